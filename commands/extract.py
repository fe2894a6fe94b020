"""The commands of feature extraction: `extract`, `backbones`, `layers` and `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .settings import Settings, take_settings
from .terminal import build_cache_options, describe_corrupt_files, get_command_line, handle_errors, render, show_progress


@handle_errors
@take_settings("extract")
def extract(
    data: options.Data,
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="HUMERIS_DRY_RUN", help="Estimate time and disk space; compute nothing.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Extract features into the cache; only missing rows are computed."""
    from ..cache.store import Store
    from ..extract.backbones import device as devices
    from ..extract.engine.estimate import estimate_extraction
    from ..extract.engine.extract_config import ExtractConfig
    from ..extract.engine.multi_device import extract_on_devices
    from ..extract.images.load import load_images
    from .render import extract as text

    config = settings.build(ExtractConfig)
    devices.choose(config.devices)
    with Store(config.cache, write=True) as store, show_progress(as_json or quiet) as stage:
        images = load_images(
            settings.build_data(data), store, limit=config.limit, jobs=config.jobs, progress=stage("reading")
        )
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
    limit_arguments = ["--limit", config.limit] if config.limit else []
    return render(
        output,
        as_json,
        quiet,
        text.format_extraction,
        ["sweep", data, *settings.build_list_arguments(), *limit_arguments, *build_cache_options(config.cache)],
    )


@handle_errors
def backbones(as_json: options.Json = False) -> int:
    """List the built-in backbones."""
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
    """List the layers of a backbone: shape, bytes per image, share of the forward cost."""
    from ..cache.store import Store
    from ..extract.backbones.list_layers import describe_layers
    from .render import extract as text

    backbone_spec = options.parse_backbones([backbone], weights, image_size, 0)[0]
    return render(describe_layers(backbone_spec, Store(cache, write=True), pool or []), as_json, False, text.format_layers)


@handle_errors
def doctor(cache: options.CacheFolder = None, as_json: options.Json = False) -> int:
    """Report versions, devices, precision, weights and the cache of this machine."""
    from ..extract.doctor import examine
    from .render import extract as text

    return render(examine(cache), as_json, False, text.format_doctor)
