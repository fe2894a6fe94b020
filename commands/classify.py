"""The commands of `classify`: heads over what is cached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .terminal import at, command, damage, render, reported, stages
from .usage import refuse_typed

_OF_BACKBONE = ("weights", "image_size", "precision")  # options that say which network, where one is named


@reported
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="Where everything is written.")] = Path(
        "humeris-demo"
    ),
    jobs: options.Jobs = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Do the main job offline: handwritten digits on nano, and on nano with random weights."""
    from ..classify.demo import demo as run_demo
    from .render import classify

    with stages(as_json or quiet) as stage:
        result = run_demo(out, jobs=jobs, progress=stage)
    model, sevens = result.trained.exported.path, out / "digits" / "7"
    return render(result.to_dict(), as_json, quiet, classify.demo, ["predict", model, sevens, "--top", 2])


@reported
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
    from ..classify.heads.search_file import families
    from ..classify.pipeline import extract_taps_apart
    from ..classify.pipeline import run as run_all
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from ..extract.engine.multi_device import add_all
    from ..extract.images.load import load_images
    from ..extract.pixels.augment import policy_of
    from .render import classify

    trackers.check(track or [])
    requests = options.requests(backbone or [options.DEFAULT_BACKBONE], weights, image_size, seed, precision)
    workers = devices.choose(device or [])
    tried = families(head or [], grid, Search.parse(search, trials, seed))
    viewed = Views.of(views, policy_of(views, augment), average_views)
    with Store(cache, write=True) as store, stages(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, progress=stage("reading"))
        if workers:
            split(images, select)  # which `run_all` does first, but here the devices compute before it
        apart = extract_taps_apart(
            workers, data, limit, requests, layer or [], store.path, pools=pool or [], batch_size=batch_size, views=viewed,
            jobs=jobs, progress=stage,
        )  # fmt: skip
        result = run_all(
            images, requests, layer or [], tried, store, pools=pool or [], batch_size=batch_size, concatenate=concatenate,
            views=viewed, select=select, out=out, model=model, seed=seed, jobs=jobs, command=command(), progress=stage,
        )  # fmt: skip
        add_all(result.extracted, apart)
        tracked = [each.to_dict() for each in trackers.track(result.run, track or [], stage)]
        found = {**result.to_dict(), "tracked": tracked, "cache": str(store.path), **damage(store)}
    return render(found, as_json, quiet, classify.outcome, ["predict", result.exported.path, "IMAGES"])


@reported
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
    from ..classify.heads.search_file import families
    from ..classify.pipeline import extract_taps, extract_taps_apart, taps_of
    from ..classify.sweep.sweep import sweep as run_sweep
    from ..classify.tracking import registry as trackers
    from ..extract.backbones import device as devices
    from ..extract.engine.multi_device import add_all
    from ..extract.images.load import load_images
    from ..extract.pixels.augment import policy_of
    from .render import classify

    trackers.check(track or [])
    named = backbone or ([options.DEFAULT_BACKBONE] if fill else [])
    if not named:
        refuse_typed(context, _OF_BACKBONE, "-b", "without one, everything cached is swept as it was extracted")
    if not fill:
        refuse_typed(context, ("device", "batch_size"), "--extract", "without it, nothing is computed but the heads")
    requests = options.requests(named, weights, image_size, seed, precision)
    tried = families(head or [], grid, Search.parse(search, trials, seed))
    viewed = Views.of(views, policy_of(views, augment), average_views)
    patterns, found = layer or [], {}
    with Store(cache, write=fill) as store, stages(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, features=True, progress=stage("reading"))
        only = None
        if fill:
            split(images, select)
            apart = extract_taps_apart(
                devices.choose(device or []), data, limit, requests, patterns, store.path, pools=pool or [],
                batch_size=batch_size, views=viewed, jobs=jobs, progress=stage,
            )  # fmt: skip
            extracted = extract_taps(
                images, requests, patterns, store, pools=pool or [], batch_size=batch_size, views=viewed, jobs=jobs,
                progress=stage,
            )  # fmt: skip
            add_all(extracted, apart)
            images, only = extracted[-1].images, taps_of(extracted)
            found = {"extracted": [each.to_dict() for each in extracted], "cache": str(store.path)}
        done = run_sweep(
            images, store, tried, requests=[] if fill else requests, patterns=patterns, pools=pool or [], only=only,
            concatenate=concatenate, views=viewed, select=select, out=out, seed=seed, jobs=jobs, command=command(),
            progress=stage("heads"),
        )  # fmt: skip
        tracked = [each.to_dict() for each in trackers.track(done, track or [], stage)]
        found = {"data": done.description["data"], **found, **done.summary(), "tracked": tracked, **damage(store)}
    return render(found, as_json, quiet, classify.run, ["export", done.path, "-o", "model.keras", *at(cache)])


@reported
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
        refuse_typed(context, _OF_BACKBONE, "-b", "without one, everything cached is ranked as it was extracted")
    requests = options.requests(backbone or [], weights, image_size, seed, precision)
    with Store(cache) as store, stages(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, features=True, progress=stage("reading"))
        done = rank_taps(
            images, store, requests=requests, patterns=layer or [], pools=pool or [], select=select, run=run, seed=seed,
            jobs=jobs, progress=stage("taps"),
        )  # fmt: skip
        found = {**done.to_dict(), **damage(store)}
    limited = ["--limit", limit] if limit else []
    return render(found, as_json, quiet, classify.ranking, ["sweep", data, *limited, *at(cache)])
