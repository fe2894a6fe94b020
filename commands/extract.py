"""The commands of `extract`: activations into the cache, and what there is to extract with."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .terminal import build_cache_options, describe_corrupt_files, get_command_line, handle_errors, render, show_progress


@handle_errors
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
    from ..extract.engine.estimate import estimate_extraction
    from ..extract.engine.extract_config import ExtractConfig
    from ..extract.engine.multi_device import extract_on_devices
    from ..extract.images.load import load_images
    from .render import extract as text

    config = ExtractConfig(
        backbone or options.DEFAULT_BACKBONE, layers=layer or (), pools=pool or (), weights=weights, image_size=image_size,
        precision=precision, seed=seed, views=views, augment=augment, compression=compress, limit=limit,
        batch_size=batch_size, devices=device or (), jobs=jobs,
    )  # fmt: skip
    devices.choose(device or [])
    with Store(cache, write=True) as store, show_progress(as_json or quiet) as stage:
        images = load_images(data, store, limit=limit, jobs=jobs, progress=stage("reading"))
        if dry_run:
            summaries = [each.to_dict() for each in estimate_extraction(images, store, config)]
        else:
            results = extract_on_devices(images, store, config, stage)
            images = results[-1].images
            summaries = [result.to_dict() for result in results]
        key = "planned" if dry_run else "extracted"
        output = {
            "data": images.summarize(),
            key: summaries,
            "cache": str(store.path),
            "command": get_command_line(),
            **describe_corrupt_files(store),
        }
    if dry_run:
        code = render(output, as_json, quiet, text.format_plans)
        return code if all(each["fits"] for each in summaries) else 2
    limit_arguments = ["--limit", limit] if limit else []
    return render(
        output, as_json, quiet, text.format_extraction, ["sweep", data, *limit_arguments, *build_cache_options(cache)]
    )


@handle_errors
def backbones(as_json: options.Json = False) -> int:
    """List the backbones that come by name."""
    from ..extract.backbones.registry import list_backbones
    from .render import extract as text

    return render({"backbones": [info.to_dict() for info in list_backbones()]}, as_json, False, text.format_backbones)


@handle_errors
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
    from ..extract.backbones.list_layers import describe_layers
    from .render import extract as text

    backbone_spec = options.parse_backbones([backbone], weights, image_size, 0)[0]
    return render(describe_layers(backbone_spec, Store(cache, write=True), pool or []), as_json, False, text.format_layers)


@handle_errors
def doctor(cache: options.CacheFolder = None, as_json: options.Json = False) -> int:
    """Say what this machine has: versions, devices, precision, weights, cache."""
    from ..extract.doctor import examine
    from .render import extract as text

    return render(examine(cache), as_json, False, text.format_doctor)
