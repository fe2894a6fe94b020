"""The command that trains more than the head."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..cache.formatting import to_printable
from . import options
from .terminal import build_cache_options, describe_corrupt_files, get_command_line, handle_errors, render, show_progress

if TYPE_CHECKING:
    from ..classify.finetune.train_loop import Epoch


@handle_errors
def finetune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="HUMERIS_FROM",
            metavar="LAYER|input",
            help="Train the layers above LAYER on its cached maps, or the whole network on the images.",
        ),
    ],
    trial: Annotated[
        str | None, typer.Option(envvar="HUMERIS_TRIAL", help="The head to start from.", show_default="the best")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            envvar="HUMERIS_FINETUNE_WEIGHTS", help="random: from scratch, with --from input.", show_default="as RUN's"
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(envvar="HUMERIS_EPOCHS", help="At most, after those of the head.")] = 10,
    head_epochs: Annotated[
        int | None,
        typer.Option(envvar="HUMERIS_HEAD_EPOCHS", help="First, of the head alone.", show_default="2; from scratch 0"),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(envvar="HUMERIS_PATIENCE", help="Epochs without a lower validation loss to stop after; 0 for never."),
    ] = 5,
    batch_size: options.BatchSize = 32,
    optimizer: Annotated[str, typer.Option(envvar="HUMERIS_OPTIMIZER", help="sgd, adam, adamw, radam or ranger.")] = "adam",
    learning_rate: Annotated[
        float | None,
        typer.Option(
            envvar="HUMERIS_LEARNING_RATE",
            help="Of everything, once the head was trained.",
            show_default="3e-4; from input 1e-5; from scratch 1e-3",
        ),
    ] = None,
    head_learning_rate: Annotated[
        float, typer.Option(envvar="HUMERIS_HEAD_LEARNING_RATE", help="While the head alone is trained.")
    ] = 1e-3,
    schedule: Annotated[
        str, typer.Option(envvar="HUMERIS_SCHEDULE", help="Of the learning rate: constant, cosine or one_cycle.")
    ] = "cosine",
    weight_decay: Annotated[
        float | None, typer.Option(envvar="HUMERIS_WEIGHT_DECAY", help="Decoupled.", show_default="0; adamw 0.004")
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(envvar="HUMERIS_LABEL_SMOOTHING", help="Share spread over all classes.")
    ] = 0.0,
    mixup: Annotated[float, typer.Option(envvar="HUMERIS_MIXUP", help="Alpha; 0 for none.")] = 0.0,
    cutmix: Annotated[float, typer.Option(envvar="HUMERIS_CUTMIX", help="Alpha; 0 for none.")] = 0.0,
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            envvar="HUMERIS_AUGMENT",
            metavar="NAME[=strength],…",
            show_default=False,
            help="From input: flip, crop, color, randaugment, autoaugment, cutout and others, anew every epoch. "
            "From a layer: how its --views are made.",
        ),
    ] = None,
    views: Annotated[
        int,
        typer.Option(
            "--views", envvar="HUMERIS_VIEWS", min=0, max=1000, help="Augmented views of each image whose maps are cached."
        ),
    ] = 0,
    train_batch_norm: Annotated[
        bool,
        typer.Option("--train-batch-norm", envvar="HUMERIS_TRAIN_BATCH_NORM", help="Do not freeze batch normalisation."),
    ] = False,
    precision: options.Precision = "float32",
    refit: Annotated[
        bool,
        typer.Option(envvar="HUMERIS_REFIT", help="Train again on validation images too, once the best epoch is known."),
    ] = True,
    compress: Annotated[
        str, typer.Option(envvar="HUMERIS_COMPRESS", help="Of the maps: none, gzip, or blosc2 (needs hdf5plugin).")
    ] = "none",
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone", "-b", metavar="NAME[,key=value]", help="Where the backbone is now, if its file was moved."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The new run folder.", show_default="RUN-LAYER-…"),
    ] = None,
    track: options.Track = None,
    device: options.Devices = None,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="HUMERIS_DRY_RUN", help="Say what would be cached; compute nothing.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train the layers above LAYER together with the head of a run; leaves a run, its model and its report."""
    from ..cache.store import Store
    from ..classify.finetune.finetune_config import FinetuneConfig
    from ..classify.finetune.prepare import prepare
    from ..classify.runs.run import Run
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from .render import finetune as text

    trackers.get_trackers(track or [])
    if len(devices.choose(device or [])) > 1:
        raise typer.BadParameter("expected one device to train on, found several", param_hint="--device")
    config = FinetuneConfig(
        start, trial=trial, weights=weights, epochs=epochs, head_epochs=head_epochs, patience=patience,
        batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate, head_learning_rate=head_learning_rate,
        schedule=schedule, weight_decay=weight_decay, label_smoothing=label_smoothing, mixup=mixup, cutmix=cutmix,
        views=views, augment=augment, train_batch_norm=train_batch_norm, precision=precision, refit=refit,
        compression=compress, backbones=backbone or (), jobs=jobs, out=out,
    )  # fmt: skip

    def print_line(line: str) -> None:
        if line and not (quiet or as_json):
            print(to_printable(line), file=sys.stderr, flush=True)

    def print_epoch(epoch: Epoch) -> None:
        print_line(text.format_epoch(epoch))

    with Store(cache, write=True) as store, show_progress(as_json or quiet) as stage:
        preparation = prepare(Run.load(run), store, config, progress=stage("reading"))
        plans = [each.to_dict() for each in preparation.plan_extraction(store)]
        if dry_run:
            code = render({"planned": plans, "cache": str(store.path)}, as_json, quiet, text.format_dry_run)
            return code if all(each["fits"] for each in plans) else 2
        for line in text.format_caching(plans).splitlines():
            print_line(line)
        from ..classify.finetune.finetune import finetune as run_finetune

        result = run_finetune(preparation, store, command=get_command_line(), on_epoch=print_epoch, stage=stage)
        tracking_results = [each.to_dict() for each in trackers.track(result.run, track or [], stage)]
        output = {**result.to_dict(), "tracked": tracking_results, "cache": str(store.path), **describe_corrupt_files(store)}
    return render(
        output,
        as_json,
        quiet,
        partial(text.format_finetune, summary=result.run.summarize(), finetune=result.summary),
        ["predict", result.exported.path, "IMAGES", *build_cache_options(cache)],
    )
