"""The commands of `classify`: heads over what is cached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    return render(result.to_dict(), as_json, quiet, classify.format_demo, ["predict", model, sevens, "--top", 2])


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
    from ..classify.data.splits import split
    from ..classify.data.views import Views
    from ..classify.heads.search import Search
    from ..classify.heads.search_file import load_head_grids
    from ..classify.pipeline import extract_taps_on_devices
    from ..classify.pipeline import run as run_all
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from ..extract.engine.multi_device import add_worker_results
    from ..extract.images.load import load_images
    from ..extract.pixels.augment import parse_policy
    from .render import classify

    trackers.get_trackers(track or [])
    backbone_specs = options.parse_backbones(backbone or [options.DEFAULT_BACKBONE], weights, image_size, seed, precision)
    workers = devices.choose(device or [])
    head_grids = load_head_grids(head or [], grid, Search.parse(search, trials, seed))
    view_config = Views.from_policy(views, parse_policy(views, augment), average_views)
    with Store(cache, write=True) as store, show_progress(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, progress=stage("reading"))
        if workers:
            split(images, select)  # which `run_all` does first, but here the devices compute before it
        device_results = extract_taps_on_devices(
            workers, data, limit, backbone_specs, layer or [], store.path, pools=pool or [], batch_size=batch_size,
            views=view_config, jobs=jobs, progress=stage,
        )  # fmt: skip
        result = run_all(
            images, backbone_specs, layer or [], head_grids, store, pools=pool or [], batch_size=batch_size,
            concatenate=concatenate, views=view_config, select=select, out=out, model=model, seed=seed, jobs=jobs,
            command=get_command_line(), progress=stage,
        )  # fmt: skip
        add_worker_results(result.extract_results, device_results)
        tracking_results = [each.to_dict() for each in trackers.track(result.run, track or [], stage)]
        output = {**result.to_dict(), "tracked": tracking_results, "cache": str(store.path), **describe_corrupt_files(store)}
    return render(output, as_json, quiet, classify.format_run, ["predict", result.export_result.path, "IMAGES"])


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
    from ..classify.data.splits import split
    from ..classify.data.views import Views
    from ..classify.heads.search import Search
    from ..classify.heads.search_file import load_head_grids
    from ..classify.pipeline import collect_taps, extract_taps, extract_taps_on_devices
    from ..classify.sweep.sweep import sweep as run_sweep
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from ..extract.engine.multi_device import add_worker_results
    from ..extract.images.load import load_images
    from ..extract.pixels.augment import parse_policy
    from .render import classify

    trackers.get_trackers(track or [])
    backbone_names = backbone or ([options.DEFAULT_BACKBONE] if fill else [])
    if not backbone_names:
        reject_options(context, _BACKBONE_OPTIONS, "-b", "without one, everything cached is swept as it was extracted")
    if not fill:
        reject_options(context, ("device", "batch_size"), "--extract", "without it, nothing is computed but the heads")
    backbone_specs = options.parse_backbones(backbone_names, weights, image_size, seed, precision)
    head_grids = load_head_grids(head or [], grid, Search.parse(search, trials, seed))
    view_config = Views.from_policy(views, parse_policy(views, augment), average_views)
    patterns, output = layer or [], {}
    with Store(cache, write=fill) as store, show_progress(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, features=True, progress=stage("reading"))
        selected_taps = None
        if fill:
            split(images, select)
            device_results = extract_taps_on_devices(
                devices.choose(device or []), data, limit, backbone_specs, patterns, store.path, pools=pool or [],
                batch_size=batch_size, views=view_config, jobs=jobs, progress=stage,
            )  # fmt: skip
            extract_results = extract_taps(
                images, backbone_specs, patterns, store, pools=pool or [], batch_size=batch_size, views=view_config,
                jobs=jobs, progress=stage,
            )  # fmt: skip
            add_worker_results(extract_results, device_results)
            images, selected_taps = extract_results[-1].images, collect_taps(extract_results)
            output = {"extracted": [each.to_dict() for each in extract_results], "cache": str(store.path)}
        finished_run = run_sweep(
            images, store, head_grids, backbone_specs=[] if fill else backbone_specs, patterns=patterns, pools=pool or [],
            only_taps=selected_taps, concatenate=concatenate, views=view_config, select=select, out=out, seed=seed,
            jobs=jobs, command=get_command_line(), progress=stage("heads"),
        )  # fmt: skip
        tracking_results = [each.to_dict() for each in trackers.track(finished_run, track or [], stage)]
        output = {
            "data": finished_run.metadata["data"],
            **output,
            **finished_run.summarize(),
            "tracked": tracking_results,
            **describe_corrupt_files(store),
        }
    return render(
        output,
        as_json,
        quiet,
        classify.format_sweep,
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
    from ..classify.rank import rank as rank_taps
    from ..extract.images.load import load_images
    from .render import classify

    if not backbone:
        reject_options(context, _BACKBONE_OPTIONS, "-b", "without one, everything cached is ranked as it was extracted")
    backbone_specs = options.parse_backbones(backbone or [], weights, image_size, seed, precision)
    with Store(cache) as store, show_progress(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, features=True, progress=stage("reading"))
        ranking = rank_taps(
            images, store, backbone_specs=backbone_specs, patterns=layer or [], pools=pool or [], select=select, run=run,
            seed=seed, jobs=jobs, progress=stage("taps"),
        )  # fmt: skip
        output = {**ranking.to_dict(), **describe_corrupt_files(store)}
    limit_arguments = ["--limit", limit] if limit else []
    return render(
        output, as_json, quiet, classify.format_ranking, ["sweep", data, *limit_arguments, *build_cache_options(cache)]
    )
