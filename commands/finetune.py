"""The command `finetune`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..cache.formatting import to_printable
from . import options
from .settings import Settings, take_settings
from .terminal import build_cache_options, describe_corrupt_files, get_command_line, handle_errors, render, show_progress
from .track_run import track_run

if TYPE_CHECKING:
    from ..classify.finetune.train_loop import Epoch


@handle_errors
@take_settings("finetune")
def finetune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    settings: Settings,
    track: options.Track = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="HUMERIS_DRY_RUN", help="Estimate what would be cached; compute nothing.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Fine-tune the layers above LAYER with the head of a run; creates a run, a model and a report."""
    from ..cache.store import Store
    from ..classify.finetune.finetune_config import FinetuneConfig
    from ..classify.finetune.prepare import prepare
    from ..classify.runs.run import Run
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from .render import finetune as text

    trackers.get_trackers(track or [])
    config = settings.build(FinetuneConfig)
    if len(devices.choose(config.devices)) > 1:
        raise typer.BadParameter("several devices given; training uses one", param_hint="--device")

    def print_line(line: str) -> None:
        if line and not (quiet or as_json):
            print(to_printable(line), file=sys.stderr, flush=True)

    def print_epoch(epoch: Epoch) -> None:
        print_line(text.format_epoch(epoch))

    with Store(config.cache, write=True) as store, show_progress(as_json or quiet) as stage:
        preparation = prepare(Run.load(run), store, config, progress=stage("reading"))
        plans = [each.to_dict() for each in preparation.plan_extraction(store)]
        if dry_run:
            code = render({"planned": plans, "cache": str(store.path)}, as_json, quiet, text.format_dry_run)
            return code if all(each["fits"] for each in plans) else 2
        for line in text.format_caching(plans).splitlines():
            print_line(line)
        from ..classify.finetune.finetune import finetune as run_finetune

        result = run_finetune(preparation, store, command=get_command_line(), on_epoch=print_epoch, stage=stage)
        tracking_results, failed_steps = track_run(result.run, track or [], stage)
        output = {**result.to_dict(), "tracked": tracking_results, "cache": str(store.path), **describe_corrupt_files(store)}
        output["failed"] += failed_steps
    cache_options = build_cache_options(config.cache)
    return render(
        output,
        as_json,
        quiet,
        partial(text.format_finetune, summary=result.run.summarize(), finetune=result.summary),
        [] if result.export_result is None else ["predict", result.export_result.path, "IMAGES", *cache_options],
    )
