"""The commands `demo`, `run`, `sweep` and `rank`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .settings import Settings, take_settings
from .terminal import build_cache_options, describe_corrupt_files, get_command_line, handle_errors, render, show_progress
from .track_run import track_run
from .usage import reject_options

_EXTRACT_OPTIONS = ("devices", "batch_size", "compression")  # options that say how features are computed
_BACKBONE_OPTIONS = ("weights", "image_size", "precision")  # options that say which network, where one is named


@handle_errors
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The folder to write to.")] = Path(
        "humeris-demo"
    ),
    jobs: options.Jobs = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Run the whole pipeline offline: handwritten digits on the built-in backbone nano."""
    from ..classify.demo import run_demo
    from .render import classify

    with show_progress(as_json or quiet) as stage:
        result = run_demo(out, jobs=jobs, progress=stage)
    model, sevens = result.trained.run.path / "model.keras", out / "digits" / "7"
    show = partial(classify.format_demo, trained=result.trained.run.summarize(), random=result.random.run.summarize())
    output = result.to_dict()
    failed_steps = [*output["trained"]["failed"], *output["random"]["failed"]]
    return render({**output, "failed": failed_steps}, as_json, quiet, show, ["predict", model, sevens, "--top", 2])


@handle_errors
@take_settings("run")
def run(
    data: options.Data,
    settings: Settings,
    track: options.Track = None,
    model: Annotated[
        Path | None, typer.Option(envvar="HUMERIS_MODEL", help="The exported model.", show_default="RUN/model.keras")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Extract features, sweep heads, export the best as one model and write a report."""
    from ..cache.store import Store
    from ..classify.pipeline import run as run_all
    from ..classify.report.report_config import ReportConfig
    from ..classify.sweep.sweep_config import SweepConfig
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from ..extract.engine.extract_config import ExtractConfig
    from ..extract.images.load import load_images
    from .render import classify

    trackers.get_trackers(track or [])
    extract_config, sweep_config = settings.build(ExtractConfig), settings.build(SweepConfig)
    devices.choose(extract_config.devices)
    with Store(sweep_config.cache, write=True) as store, show_progress(as_json or quiet) as stage:
        images = load_images(
            settings.build_data(data), store, limit=sweep_config.limit, jobs=sweep_config.jobs, progress=stage("reading")
        )
        result = run_all(
            images, store, extract_config, sweep_config, settings.build(ReportConfig),
            model=model, command=get_command_line(), progress=stage,
        )  # fmt: skip
        tracking_results, failed_steps = track_run(result.run, track or [], stage)
        output = {**result.to_dict(), "tracked": tracking_results, "cache": str(store.path), **describe_corrupt_files(store)}
        output["failed"] += failed_steps
    show = partial(classify.format_run, summary=result.run.summarize())
    next_command = [] if result.export_result is None else ["predict", result.export_result.path, "IMAGES"]
    return render(output, as_json, quiet, show, next_command)


@handle_errors
@take_settings("sweep")
def sweep(
    context: typer.Context,
    data: options.Data,
    settings: Settings,
    fill: Annotated[
        bool, typer.Option("--extract", envvar="HUMERIS_EXTRACT", help="Extract missing features first.")
    ] = False,
    track: options.Track = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train heads on cached features, select one, score it once on the test split; creates a run."""
    from ..cache.store import Store
    from ..cache.typed_json import to_json
    from ..classify.pipeline import extract_and_sweep
    from ..classify.sweep.sweep_config import SweepConfig
    from ..classify.tracking import registry as trackers
    from ..extract.engine.extract_config import ExtractConfig
    from ..extract.images.load import load_images
    from .render import classify

    trackers.get_trackers(track or [])
    sweep_config, extract_config = settings.build(SweepConfig), settings.build(ExtractConfig) if fill else None
    if not fill and not sweep_config.backbones:
        reject_options(context, _BACKBONE_OPTIONS, "-b", "without one, everything cached is swept as it was extracted")
    if not fill:
        reject_options(context, _EXTRACT_OPTIONS, "--extract", "without it, nothing is computed but the heads")
    output: dict[str, Any] = {}
    with Store(sweep_config.cache, write=fill) as store, show_progress(as_json or quiet) as stage:
        images = load_images(
            settings.build_data(data), store, limit=sweep_config.limit, jobs=sweep_config.jobs, features=True,
            progress=stage("reading"),
        )  # fmt: skip
        extract_results, finished_run = extract_and_sweep(
            images, store, extract_config, sweep_config, command=get_command_line(), progress=stage
        )
        if fill:
            output = {"extracted": [each.to_dict() for each in extract_results], "cache": str(store.path)}
        tracking_results, failed_steps = track_run(finished_run, track or [], stage)
        summary = finished_run.summarize()
        output = {
            "data": finished_run.metadata.data.to_dict(),
            **output,
            **to_json(summary),
            "tracked": tracking_results,
            "failed": failed_steps,
            **describe_corrupt_files(store),
        }
    return render(
        output,
        as_json,
        quiet,
        partial(classify.format_sweep, summary=summary),
        ["export", finished_run.path, "-o", "model.keras", *build_cache_options(sweep_config.cache)],
    )


@handle_errors
@take_settings("rank")
def rank(
    context: typer.Context,
    data: options.Data,
    settings: Settings,
    backbone: options.Backbones = None,
    layer: options.Layers = None,
    pool: options.Pools = None,
    weights: options.Weights = None,
    image_size: options.Size = None,
    precision: options.Precision = "float32",
    select: options.Select = None,
    run: Annotated[
        Path | None,
        typer.Option(
            envvar="HUMERIS_RUN", help="A finished run to compare with.", show_default="the latest of DATA in runs"
        ),
    ] = None,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Rank cached taps without training heads (LogME, H-score, kNN, centroid)."""
    from ..cache.store import Store
    from ..classify.api.features import rank as rank_taps
    from .render import classify

    if not backbone:
        reject_options(context, _BACKBONE_OPTIONS, "-b", "without one, everything cached is ranked as it was extracted")
    network = {"weights": weights, "image_size": image_size, "precision": precision} if backbone else {}
    with Store(cache) as store, show_progress(as_json or quiet) as stage:
        ranking = rank_taps(
            settings.build_data(data), backbone or (), run=run, cache=store, progress=stage, layers=layer or (),
            pools=pool or (), select=select, limit=limit, jobs=jobs, seed=seed, **network,
        )  # fmt: skip
        output = {**ranking.to_dict(), **describe_corrupt_files(store)}
    limit_arguments = ["--limit", limit] if limit else []
    return render(
        output,
        as_json,
        quiet,
        classify.format_ranking,
        ["sweep", data, *settings.build_list_arguments(), *limit_arguments, *build_cache_options(cache)],
    )
