"""The commands of `classify`: heads over what is cached."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .terminal import build_cache_options, describe_corrupt_files, get_command_line, handle_errors, render, show_progress
from .usage import reject_options

_BACKBONE_OPTIONS = ("weights", "image_size", "precision")  # options that say which network, where one is named


@handle_errors
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="Where everything is written.")] = Path(
        "humeris-demo"
    ),
    jobs: options.Jobs = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Do the main job offline: handwritten digits on nano, and on nano with random weights."""
    from ..classify.demo import run_demo
    from .render import classify

    with show_progress(as_json or quiet) as stage:
        result = run_demo(out, jobs=jobs, progress=stage)
    model, sevens = result.trained.export_result.path, out / "digits" / "7"
    show = partial(classify.format_demo, trained=result.trained.run.summarize(), random=result.random.run.summarize())
    return render(result.to_dict(), as_json, quiet, show, ["predict", model, sevens, "--top", 2])


@handle_errors
def run(
    data: options.Data,
    backbone: options.Backbones = None,
    layer: options.Layers = None,
    pool: options.Pools = None,
    weights: options.Weights = None,
    image_size: options.Size = None,
    head: options.Heads = None,
    grid: options.Grid = None,
    search: options.SearchKind = "grid",
    trials: options.Trials = None,
    concatenate: options.Concatenate = False,
    views: options.ViewCount = 0,
    augment: options.Augment = None,
    average_views: options.AverageViews = False,
    select: options.Select = None,
    out: options.NewRun = None,
    track: options.Track = None,
    model: Annotated[
        Path | None, typer.Option(envvar="HUMERIS_MODEL", help="The model file.", show_default="RUN/model.keras")
    ] = None,
    batch_size: options.BatchSize = 32,
    precision: options.Precision = "float32",
    device: options.Devices = None,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Extract, sweep and export: one command, one model."""
    from ..cache.store import Store
    from ..classify.pipeline import run as run_all
    from ..classify.sweep.sweep_config import SweepConfig
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from ..extract.engine.extract_config import ExtractConfig
    from ..extract.images.load import load_images
    from .render import classify

    trackers.get_trackers(track or [])
    extract_config = ExtractConfig(
        backbone or options.DEFAULT_BACKBONE, layers=layer or (), pools=pool or (), weights=weights, image_size=image_size,
        precision=precision, seed=seed, views=views, augment=augment, limit=limit, batch_size=batch_size,
        devices=device or (), jobs=jobs,
    )  # fmt: skip
    devices.choose(device or [])
    sweep_config = SweepConfig(
        head or (), grid=grid, search=search, trials=trials, layers=layer or (), pools=pool or (), concatenate=concatenate,
        views=views, augment=augment, average_views=average_views, select=select, seed=seed, limit=limit, jobs=jobs, out=out,
    )  # fmt: skip
    with Store(cache, write=True) as store, show_progress(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, progress=stage("reading"))
        result = run_all(
            images, store, extract_config, sweep_config, model=model, command=get_command_line(), progress=stage
        )
        tracking_results = [each.to_dict() for each in trackers.track(result.run, track or [], stage)]
        output = {**result.to_dict(), "tracked": tracking_results, "cache": str(store.path), **describe_corrupt_files(store)}
    show = partial(classify.format_run, summary=result.run.summarize())
    return render(output, as_json, quiet, show, ["predict", result.export_result.path, "IMAGES"])


@handle_errors
def sweep(
    context: typer.Context,
    data: options.Data,
    backbone: options.Backbones = None,
    layer: options.Layers = None,
    pool: options.Pools = None,
    weights: options.Weights = None,
    image_size: options.Size = None,
    precision: options.Precision = "float32",
    head: options.Heads = None,
    grid: options.Grid = None,
    search: options.SearchKind = "grid",
    trials: options.Trials = None,
    concatenate: options.Concatenate = False,
    views: options.ViewCount = 0,
    augment: options.Augment = None,
    average_views: options.AverageViews = False,
    fill: Annotated[
        bool, typer.Option("--extract", envvar="HUMERIS_EXTRACT", help="Compute what is missing in the cache first.")
    ] = False,
    batch_size: options.BatchSize = 32,
    device: options.Devices = None,
    select: options.Select = None,
    out: options.NewRun = None,
    track: options.Track = None,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train heads over what is cached, choose one honestly, score it once; leaves a run."""
    from ..cache.store import Store
    from ..cache.typed_json import to_json
    from ..classify.pipeline import extract_and_sweep
    from ..classify.sweep.sweep_config import SweepConfig
    from ..classify.tracking import registry as trackers
    from ..extract.engine.extract_config import ExtractConfig
    from ..extract.images.load import load_images
    from .render import classify

    trackers.get_trackers(track or [])
    backbone_names = backbone or ([options.DEFAULT_BACKBONE] if fill else [])
    if not backbone_names:
        reject_options(context, _BACKBONE_OPTIONS, "-b", "without one, everything cached is swept as it was extracted")
    if not fill:
        reject_options(context, ("device", "batch_size"), "--extract", "without it, nothing is computed but the heads")
    sweep_config = SweepConfig(
        head or (), grid=grid, search=search, trials=trials, backbones=backbone_names, weights=weights,
        image_size=image_size, precision=precision, layers=layer or (), pools=pool or (), concatenate=concatenate,
        views=views, augment=augment, average_views=average_views, select=select, seed=seed, limit=limit, jobs=jobs, out=out,
    )  # fmt: skip
    extract_config = ExtractConfig(
        sweep_config.backbone_specs, layers=layer or (), pools=pool or (), views=views, augment=augment, limit=limit,
        batch_size=batch_size, devices=device or (), jobs=jobs,
    )  # fmt: skip
    output: dict[str, Any] = {}
    with Store(cache, write=fill) as store, show_progress(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, features=True, progress=stage("reading"))
        extract_results, finished_run = extract_and_sweep(
            images, store, extract_config if fill else None, sweep_config, command=get_command_line(), progress=stage
        )
        if fill:
            output = {"extracted": [each.to_dict() for each in extract_results], "cache": str(store.path)}
        tracking_results = [each.to_dict() for each in trackers.track(finished_run, track or [], stage)]
        summary = finished_run.summarize()
        output = {
            "data": finished_run.metadata.data.to_dict(),
            **output,
            **to_json(summary),
            "tracked": tracking_results,
            **describe_corrupt_files(store),
        }
    return render(
        output,
        as_json,
        quiet,
        partial(classify.format_sweep, summary=summary),
        ["export", finished_run.path, "-o", "model.keras", *build_cache_options(cache)],
    )


@handle_errors
def rank(
    context: typer.Context,
    data: options.Data,
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
            envvar="HUMERIS_RUN", help="A finished run to compare with.", show_default="the latest of DATA under runs"
        ),
    ] = None,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Score every cached tap without training (LogME, H-score, kNN, centroid), and say whether training agrees."""
    from ..cache.store import Store
    from ..classify.data.select_features import FeatureQuery
    from ..classify.rank import rank as rank_taps
    from ..extract.images.load import load_images
    from .render import classify

    if not backbone:
        reject_options(context, _BACKBONE_OPTIONS, "-b", "without one, everything cached is ranked as it was extracted")
    backbone_specs = options.parse_backbones(backbone or [], weights, image_size, seed, precision)
    query = FeatureQuery(backbone_specs, layer or [], pool or [])
    with Store(cache) as store, show_progress(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, features=True, progress=stage("reading"))
        ranking = rank_taps(images, store, query, select=select, run=run, seed=seed, jobs=jobs, progress=stage("taps"))
        output = {**ranking.to_dict(), **describe_corrupt_files(store)}
    limit_arguments = ["--limit", limit] if limit else []
    return render(
        output, as_json, quiet, classify.format_ranking, ["sweep", data, *limit_arguments, *build_cache_options(cache)]
    )
