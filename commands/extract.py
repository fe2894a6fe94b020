"""The commands of `extract`: activations into the cache, and what there is to extract with."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options
from .terminal import at, command, damage, render, reported, stages


@reported
def extract(
    data: options.Data,
    backbone: options.Backbones = None,
    layer: options.Layers = None,
    pool: options.Pools = None,
    weights: options.Weights = None,
    image_size: options.Size = None,
    views: options.ViewCount = 0,
    augment: options.Augment = None,
    compress: Annotated[
        str, typer.Option(envvar="HUMERIS_COMPRESS", help="Of whole maps: none, gzip, or blosc2 (needs hdf5plugin).")
    ] = "none",
    batch_size: options.BatchSize = 32,
    precision: options.Precision = "float32",
    device: options.Devices = None,
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="HUMERIS_DRY_RUN", help="Say what it would cost; compute nothing.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Fill the cache with activations; only what is missing is computed."""
    from ..cache.store import Store
    from ..extract.backbones import device as devices
    from ..extract.engine.estimate import plan
    from ..extract.engine.extract import extract_all
    from ..extract.engine.multi_device import Order, add_all, extract_apart
    from ..extract.images.load import load_images
    from ..extract.pixels.augment import policy_of
    from .render import extract as text

    requests = options.requests(backbone or [options.DEFAULT_BACKBONE], weights, image_size, seed, precision)
    policy = policy_of(views, augment)
    workers = devices.choose(device or [])
    with Store(cache, write=True) as store, stages(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, progress=stage("reading"))
        patterns, pools = layer or [], pool or []
        if dry_run:
            plans = [plan(images, each, patterns, store, pools, views, policy, compress) for each in requests]
            done = [each.to_dict() for each in plans]
        else:
            asked: dict[str, Any] = {
                "pools": pools,
                "batch_size": batch_size,
                "views": views,
                "policy": policy,
                "compression": compress,
            }
            order = Order(data, limit, requests, patterns, store.path, asked)
            apart = extract_apart(workers, [order], jobs, stage)
            results = extract_all(images, requests, patterns, store, jobs=jobs, progress=stage, **asked)
            add_all(results, apart)
            images = results[-1].images
            done = [result.to_dict() for result in results]
        name = "planned" if dry_run else "extracted"
        found = {
            "data": images.summary(),
            name: done,
            "cache": str(store.path),
            "command": command(),
            **damage(store),
        }
    if dry_run:
        code = render(found, as_json, quiet, text.plans)
        return code if all(each["fits"] for each in done) else 2
    limited = ["--limit", limit] if limit else []
    return render(found, as_json, quiet, text.extracted, ["sweep", data, *limited, *at(cache)])


@reported
def backbones(as_json: options.Json = False) -> int:
    """List the backbones that come by name."""
    from ..extract.backbones.keras_applications import APPLICATIONS
    from .render import extract as text

    return render({"backbones": [vars(item) for item in APPLICATIONS]}, as_json, False, text.backbones)


@reported
def layers(
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE", help="A name, or FILE.keras,preprocessing=MODE.")],
    weights: options.Weights = None,
    image_size: options.Size = None,
    pool: options.Pools = None,
    cache: options.CacheFolder = None,
    as_json: options.Json = False,
) -> int:
    """List a backbone's layers: shape, bytes per image, share of the forward cost."""
    from ..cache.store import Store
    from ..extract.backbones.list_layers import describe
    from .render import extract as text

    request = options.requests([backbone], weights, image_size, 0)[0]
    return render(describe(request, Store(cache, write=True), pool or []), as_json, False, text.layers)


@reported
def doctor(cache: options.CacheFolder = None, as_json: options.Json = False) -> int:
    """Say what this machine has: versions, devices, precision, weights, cache."""
    from ..extract.doctor import examine
    from .render import extract as text

    return render(examine(cache), as_json, False, text.doctor)
