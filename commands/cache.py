"""The commands `humeris cache …`: inspect, verify, prune and export the cache of activations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .settings import Settings, take_settings
from .terminal import handle_errors, render, show_progress

app = typer.Typer(no_args_is_help=True, help="Inspect, verify, prune and export the cache of activations.")


@app.command("list")
@handle_errors
def cache_list(cache: options.CacheFolder = None, as_json: options.Json = False) -> int:
    """List the extractions in the cache."""
    from ..cache.inventory import build_inventory
    from ..cache.store import Store
    from .render import cache as text

    return render(build_inventory(Store(cache)), as_json, False, text.format_inventory)


@app.command("info")
@handle_errors
def cache_info(
    name: Annotated[str, typer.Argument(metavar="EXTRACTION", help="The extraction's folder name, or a prefix.")],
    cache: options.CacheFolder = None,
    as_json: options.Json = False,
) -> int:
    """Show how an extraction was made and what it holds."""
    from ..cache.inventory import describe_extraction
    from ..cache.store import Store
    from .render import cache as text

    return render(describe_extraction(Store(cache), name), as_json, False, text.format_extraction)


@app.command("verify")
@handle_errors
def cache_verify(cache: options.CacheFolder = None, as_json: options.Json = False) -> int:
    """Verify every file against its digest; corrupt files are quarantined and recomputed."""
    from ..cache.inventory import verify
    from ..cache.store import Store
    from .render import cache as text

    with Store(cache, write=True) as store:
        output = verify(store)
    return render(output, as_json, False, text.format_verification)


@app.command("prune")
@handle_errors
def cache_prune(
    older_than: Annotated[
        str | None,
        typer.Option(envvar="HUMERIS_OLDER_THAN", metavar="AGE", help="Remove taps without new rows for 30d, 12h, 2w …"),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            envvar="HUMERIS_MAX_SIZE",
            metavar="SIZE",
            help="Remove the oldest taps until the rest fits in 10GB …",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="HUMERIS_DRY_RUN", help="Show what would be removed; remove nothing.")
    ] = False,
    cache: options.CacheFolder = None,
    as_json: options.Json = False,
) -> int:
    """Free disk space: remove the oldest taps, quarantined files and what killed processes left.

    A tap is removed as a whole. Its age is the time since rows were last added to it, not since it was last read, which no
    file system records reliably. Removed rows are recomputed when they are next needed.
    """
    from ..cache.prune import parse_age, parse_size, prune
    from ..cache.store import Store
    from .render import cache as text

    if older_than is None and max_size is None:
        raise typer.BadParameter("no age or size is given; give --older-than, --max-size or both", param_hint="--older-than")
    age = None if older_than is None else parse_age(older_than)
    size = None if max_size is None else parse_size(max_size)
    with Store(cache, write=True) as store:
        output = prune(store, older_than=age, max_bytes=size, dry_run=dry_run)
    return render(output, as_json, False, text.format_pruning)


@app.command("export")
@handle_errors
@take_settings("cache export")
def cache_export(
    data: options.Data,
    settings: Settings,
    out: Annotated[Path, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The HDF5 file to write.")],
    backbone: options.Backbones = None,
    layer: options.Layers = None,
    pool: options.Pools = None,
    weights: options.Weights = None,
    image_size: options.Size = None,
    precision: options.Precision = "float32",
    cache: options.CacheFolder = None,
    jobs: options.Jobs = None,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Export the cached features of DATA to one portable HDF5 file, with a dataset per tap."""
    from ..cache.store import Store
    from ..extract.engine.export_hdf5 import export_hdf5
    from ..extract.images.load import load_images
    from .render import extract

    backbone_specs = options.parse_backbones(backbone or [options.DEFAULT_BACKBONE], weights, image_size, seed, precision)
    if len(backbone_specs) > 1:
        raise typer.BadParameter(f"{len(backbone_specs)} backbones given, a file holds one; give one", param_hint="-b")
    with Store(cache) as store, show_progress(as_json or quiet) as stage:
        images = load_images(settings.build_data(data), store, limit=limit, jobs=jobs, progress=stage("reading"))
        result = export_hdf5(images, backbone_specs[0], layer or [], store, out, pool or [])
    return render({"data": images.summarize(), "exported": result.to_dict()}, as_json, quiet, extract.format_portable_export)
