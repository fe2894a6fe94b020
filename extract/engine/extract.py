"""Stage one: run frozen networks once over each image and store the activations of every tap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...cache import compression as compressing
from ...cache.atomic_files import free_bytes
from ...cache.errors import BackboneError, CacheFull
from ...cache.spec import DESCRIPTION
from ...cache.store import Store
from ..backbones.backbone_spec import Request
from ..backbones.build import Backbone, build
from ..backbones.metadata import Card, look_up
from ..backbones.taps import Tap, resolve
from ..images.dataset import Refusal
from ..images.load import Images, Progress
from ..pixels import read_file
from ..pixels.augment import Policy
from .backbone_batcher import Lane
from .non_finite import images_at_fault
from .pipeline import Conveyor
from .serial_executor import Stage
from .tap_rows import Rows


@dataclass
class Extracted:
    """What one extraction did.

    computed: image views that went through the network; passes: batches of them; rows: stored rows per tap; wide: those
    that float16 cannot hold and that are stored in float32; seconds: of the pass, which backbones of one image size share.
    not_finite: how many images gave NaN or infinity, for each tap where any did; such rows are not stored, and the images
    are refused unless most images are so there.
    """

    card: Card
    taps: list[Tap]
    images: Images
    views: int = 0
    computed: int = 0
    passes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    wide: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    not_finite: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "backbone": self.card.spec.title,
            "extraction": self.card.spec.folder,
            "precision": self.card.spec.precision,
            "taps": [str(tap) for tap in self.taps],
            "images": len(self.images.used),
            "views": self.views,
            "computed": self.computed,
            "forward_passes": self.passes,
            "rows": self.rows,
            "rows_kept_in_float32": self.wide,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "not_finite": self.not_finite,
        }


@dataclass
class _Job:
    """One backbone's part of the work; `missing` as `Rows.missing`."""

    request: Request
    rows: Rows
    backbone: Backbone | None
    missing: dict[Tap, np.ndarray]
    result: Extracted


def extract_features(
    images: Images,
    request: Request | str,
    patterns: Sequence[str],
    store: Store,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Extracted:
    """Fill the cache with the taps of one backbone that `patterns` name, for `images`; only what is missing is computed.

    `request` is a backbone (`mobilenet_v2,alpha=0.35`). `options` and errors are those of `extract_all`.
    """
    request = Request.parse(request) if isinstance(request, str) else request
    stage = None if progress is None else lambda _: progress
    return extract_all(images, [request], patterns, store, progress=stage, **options)[0]


def extract_all(
    images: Images,
    requests: Sequence[Request],
    patterns: Sequence[str],
    store: Store,
    *,
    pools: Sequence[str] = (),
    views: int = 0,
    policy: Policy | None = None,
    compression: str = "none",
    batch_size: int = 32,
    jobs: int | None = None,
    sharers: int = 1,
    progress: Callable[[str], Progress] | None = None,
) -> list[Extracted]:
    """Fill the cache with the taps that `patterns` name, of each backbone; backbones of one image size share the decoding.

    Without patterns a backbone's default taps are taken. With `views`, so many augmentations of each image by `policy` are
    cached beside the plain one. `compression` is that of whole maps (`none`, `gzip`, `blosc2`). `jobs` decoder processes
    work ahead. `sharers` extractors do the same work at once, and share it. Images that cannot be decoded are refused and
    the rest is done. On `KeyboardInterrupt` what was computed is stored before the interrupt goes on. Raises
    `BackboneError`, `LayerError`, `CacheReadOnly`, `CacheFull`, and `CacheError` for a compression that cannot be used.
    """
    compressing.check(compression)
    work = [_job(images, request, patterns, store, pools, views, policy) for request in requests]
    if compression == "none":
        _check_room(work, store)
    for job in work:
        if job.missing or not job.rows.created:
            job.rows.create()  # finds out a read-only cache before a network runs
    sizes: dict[tuple[int, int], list[_Job]] = {}
    for job in work:
        if job.missing:
            sizes.setdefault(job.result.card.spec.image_size, []).append(job)
    refused: dict[str, Refusal] = {}
    for size, together in sizes.items():
        stage = progress(" + ".join(job.request.title for job in together)) if progress else None
        options = {"batch_size": batch_size, "jobs": jobs or read_file.cores(), "sharers": sharers}
        refused |= _pass(together, images, size, store, compression, stage, **options)
    images = images.without(refused)
    for job in work:
        images = images.without(_not_finite(job, images))
    for job in work:
        job.result.images = images
    images.known.save()
    store.close()
    return [job.result for job in work]


def _job(
    images: Images,
    request: Request,
    patterns: Sequence[str],
    store: Store,
    pools: Sequence[str],
    views: int,
    policy: Policy | None,
) -> _Job:
    card, backbone = look_up(request, store.memo)
    taps = resolve(patterns, card.layers, card.defaults, pools)
    rows = Rows(store, card, taps, views, policy)
    return _Job(request, rows, backbone, rows.missing(images.keys), Extracted(card, taps, images, views))


def _check_room(work: Sequence[_Job], store: Store) -> None:
    """Raise `CacheFull` when the disk cannot hold what is missing: better now than after hours."""
    needed, free = sum(job.rows.size(job.missing) for job in work), free_bytes(store.path)
    if needed > free:
        raise CacheFull(
            f"{store.path}: expected {needed:,} bytes free for the rows to compute, found {free:,}; give fewer or smaller "
            "taps (--dry-run lists them), compress whole maps with --compress, or give another folder with --cache"
        )


def _pass(
    together: Sequence[_Job],
    images: Images,
    size: tuple[int, int],
    store: Store,
    compression: str,
    progress: Progress | None,
    **options: int,
) -> dict[str, Refusal]:
    """Compute what is missing of backbones of one image size; the images that turned out to be unusable, by name."""
    began = time.monotonic()
    compute, storing = Stage("compute", 2), Stage("store", 1)
    lanes = [
        Lane(
            job.rows,
            _built(job, store).graph,
            job.missing,
            images.keys,
            options["batch_size"],
            compute,
            storing,
            compression,
        )
        for job in together
    ]
    try:
        return Conveyor(images, size, lanes, compute, storing, store.claims, **options).run(progress)
    finally:
        for job, lane in zip(together, lanes, strict=True):
            result, writer = job.result, lane.writer
            result.computed, result.passes, result.bytes = lane.images, lane.passes, writer.bytes
            result.rows = {str(tap): count for tap, count in writer.stored.items() if tap in job.missing}
            result.wide = {str(tap): count for tap, count in writer.wide.items() if count}
            result.seconds = time.monotonic() - began
            job.backbone = None


def _built(job: _Job, store: Store) -> Backbone:
    backbone, spec = job.backbone or build(job.request), job.result.card.spec
    if backbone.spec.digest != spec.digest:
        then, now = spec.to_dict(), backbone.spec.to_dict()
        changed = next(name for name in then if then[name] != now[name] and name not in DESCRIPTION)
        raise BackboneError(
            f"backbone {job.request.title}: expected {changed} {str(then[changed])[:40]} as it was before, "
            f"found {str(now[changed])[:40]}; delete {store.path / 'known'} and run the command again"
        )
    return backbone


def _not_finite(job: _Job, images: Images) -> dict[str, Refusal]:
    """The images without a finite row, to be refused; counts those of each tap."""
    masks = {tap: job.rows.not_finite(tap, images.keys) for tap in job.result.taps}
    counts = {tap: int(np.logical_or.reduce(columns).sum()) for tap, columns in masks.items()}
    job.result.not_finite = {str(tap): count for tap, count in counts.items() if count}
    refused = {}
    for number in np.nonzero(images_at_fault([columns[0] for columns in masks.values()]))[0]:
        name = images.used[number].name
        where = ", ".join(str(tap) for tap, columns in masks.items() if columns[0][number])
        refused[name] = Refusal(name, "not_finite", f"NaN or infinite activations at {where}")
    return refused
