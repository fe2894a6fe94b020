"""Extraction: run frozen networks once over each image and store the activations of every tap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...cache.atomic_files import get_free_bytes
from ...cache.errors import BackboneError, CacheFull
from ...cache.spec import DESCRIPTIVE_FIELDS
from ...cache.store import Store
from ..backbones.backbone_spec import BackboneSpec
from ..backbones.build import Backbone, build
from ..backbones.metadata import BackboneMetadata, get_or_build
from ..backbones.non_finite import find_faulty_images
from ..backbones.tap_patterns import resolve_taps
from ..backbones.taps import Tap
from ..config import to_tuple
from ..images.images import Images
from ..images.item import Rejection
from ..images.load import Progress, remember_rejections
from .backbone_batcher import BackboneBatcher
from .extract_config import ExtractConfig
from .pipeline import ExtractionPipeline
from .serial_executor import SerialExecutor
from .tap_rows import TapRows


@dataclass(repr=False)
class ExtractResult:
    """The result of extracting from one backbone.

    Parameters
    ----------
    metadata : BackboneMetadata
        The backbone.
    taps : list of Tap
        The extracted taps.
    images : Images
        The images, with those that could not be used among the rejections.
    views : int
        Number of augmented views of each image.
    computed : int
        Number of image views computed.
    passes : int
        Number of batches computed.
    rows : dict
        Tap -> number of rows stored.
    kept_float32 : dict
        Tap -> number of these rows that overflow float16 and were stored in float32.
    bytes : int
        Bytes written.
    seconds : float
        Time of the pass, which all backbones of one image size share.
    non_finite_counts : dict
        Tap -> number of images with NaN or infinite activations, if any. Their rows are not stored, and the images are
        rejected, unless more than half of the images have them.
    """

    metadata: BackboneMetadata
    taps: list[Tap]
    images: Images
    views: int = 0
    computed: int = 0
    passes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    kept_float32: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    non_finite_counts: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"<ExtractResult of {self.metadata.spec.title}: {', '.join(map(str, self.taps))} of {len(self.images)} images, "
            f"{self.computed} computed in {self.seconds:.1f} s>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "backbone": self.metadata.spec.title,
            "extraction": self.metadata.spec.folder_name,
            "precision": self.metadata.spec.precision,
            "taps": [str(tap) for tap in self.taps],
            "images": len(self.images.used),
            "views": self.views,
            "computed": self.computed,
            "forward_passes": self.passes,
            "rows": self.rows,
            "rows_kept_in_float32": self.kept_float32,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "not_finite": self.non_finite_counts,
        }


@dataclass
class _BackboneTask:
    """The extraction from one backbone; `missing_masks` is the result of `TapRows.find_missing`."""

    backbone_spec: BackboneSpec
    tap_rows: TapRows
    backbone: Backbone | None
    missing_masks: dict[Tap, np.ndarray]
    result: ExtractResult


def extract_features(
    images: Images,
    store: Store,
    config: ExtractConfig,
    *,
    num_extractors: int = 1,
    progress: Callable[[str], Progress] | None = None,
) -> list[ExtractResult]:
    """Compute the rows that are missing in the cache, for the taps of every backbone.

    Parameters
    ----------
    images : Images
        The result of `load_images`. Images that cannot be decoded are rejected.
    store : Store
        The cache, open for writing.
    config : ExtractConfig
        What to extract. Its `devices` are ignored: this process computes (`extract_on_devices` starts workers).
    num_extractors : int
        Number of processes that do the same extraction at once and share the work.
    progress : callable, optional
        Called with the name of a stage; returns a function of (number done, total).

    Returns
    -------
    list of ExtractResult
        One for each backbone, in order.

    Raises
    ------
    BackboneError, LayerError
        If a network cannot be built, or has no such tap.
    CacheReadOnly, CacheFull
        If the rows cannot be stored.
    KeyboardInterrupt
        If it is interrupted; the rows computed so far are stored first.
    """
    store.check_writable()
    tasks = [_prepare_task(images, backbone_spec, store, config) for backbone_spec in config.backbone_specs]
    if config.compression == "none":
        _check_disk_space(tasks, store)
    for task in tasks:
        if task.missing_masks or not task.tap_rows.is_created:
            task.tap_rows.create()  # fails on a read-only cache before a network runs
    tasks_by_size: dict[tuple[int, int], list[_BackboneTask]] = {}
    for task in tasks:
        if task.missing_masks:
            tasks_by_size.setdefault(task.result.metadata.spec.image_size, []).append(task)
    rejections: dict[str, Rejection] = {}
    for same_size_tasks in tasks_by_size.values():
        report_progress = progress(" + ".join(task.backbone_spec.title for task in same_size_tasks)) if progress else None
        rejections |= _run_pass(same_size_tasks, images, store, config, num_extractors, report_progress)
    remember_rejections(images, rejections.values(), store.kv_store)
    images = images.reject(rejections)
    for task in tasks:
        images = images.reject(_find_non_finite(task, images))
    store.flush()
    return [replace(task.result, images=images) for task in tasks]


def _prepare_task(images: Images, backbone_spec: BackboneSpec, store: Store, config: ExtractConfig) -> _BackboneTask:
    metadata, backbone = get_or_build(backbone_spec, store.kv_store)
    taps = resolve_taps(to_tuple(config.layers), metadata.layers, metadata.default_layers, to_tuple(config.pools))
    tap_rows = TapRows(store, metadata, taps, config.views, config.policy)
    result = ExtractResult(metadata, taps, images, config.views)
    return _BackboneTask(backbone_spec, tap_rows, backbone, tap_rows.find_missing(images.keys), result)


def _check_disk_space(tasks: Sequence[_BackboneTask], store: Store) -> None:
    """Raise `CacheFull` if the disk cannot hold the missing rows, rather than after hours of computing."""
    required_bytes, available_bytes = (
        sum(task.tap_rows.count_bytes(task.missing_masks) for task in tasks),
        get_free_bytes(store.path),
    )
    if required_bytes > available_bytes:
        raise CacheFull(
            f"{store.path}: not enough disk space for the rows to compute ({required_bytes:,} bytes needed, "
            f"{available_bytes:,} free); give fewer or smaller taps (--dry-run lists them), compress whole maps with "
            "--compress, or give another folder with --cache"
        )


def _run_pass(
    tasks: Sequence[_BackboneTask],
    images: Images,
    store: Store,
    config: ExtractConfig,
    num_extractors: int,
    progress: Progress | None,
) -> dict[str, Rejection]:
    """Compute the missing rows of backbones of one image size; return the rejected images by name."""
    start_time = time.monotonic()
    size = tasks[0].result.metadata.spec.image_size
    compute_executor, store_executor = SerialExecutor("compute", 2), SerialExecutor("store", 1)
    batchers = [
        BackboneBatcher(
            task.tap_rows,
            _get_backbone(task, store).graph,
            task.missing_masks,
            images.keys,
            config.batch_size,
            compute_executor,
            store_executor,
            config.compression,
        )
        for task in tasks
    ]
    try:
        return ExtractionPipeline(
            images, size, batchers, compute_executor, store_executor, store.leases, config, num_extractors
        ).run(progress)
    finally:
        for task, batcher in zip(tasks, batchers, strict=True):
            result, writer = task.result, batcher.writer
            result.computed, result.passes, result.bytes = batcher.n_views, batcher.passes, writer.bytes
            result.rows = {str(tap): count for tap, count in writer.stored_counts.items() if tap in task.missing_masks}
            result.kept_float32 = {str(tap): count for tap, count in writer.kept_float32.items() if count}
            result.seconds = time.monotonic() - start_time
            task.backbone = None


def _get_backbone(task: _BackboneTask, store: Store) -> Backbone:
    backbone, spec = task.backbone or build(task.backbone_spec), task.result.metadata.spec
    if backbone.spec.digest != spec.digest:
        cached_fields, actual_fields = spec.to_dict(), backbone.spec.to_dict()
        changed_field = next(
            name for name in cached_fields if cached_fields[name] != actual_fields[name] and name not in DESCRIPTIVE_FIELDS
        )
        raise BackboneError(
            f"backbone {task.backbone_spec.title}: {changed_field} differs from the cached metadata "
            f"({str(cached_fields[changed_field])[:40]} cached, {str(actual_fields[changed_field])[:40]} now); "
            f"delete {store.path / 'index'} and run the command again"
        )
    return backbone


def _find_non_finite(task: _BackboneTask, images: Images) -> dict[str, Rejection]:
    """Return the images to reject for NaN or infinite activations, by name, and set the counts of the result."""
    masks = {tap: task.tap_rows.find_non_finite(tap, images.keys) for tap in task.result.taps}
    counts = {tap: int(np.logical_or.reduce(view_masks).sum()) for tap, view_masks in masks.items()}
    task.result.non_finite_counts = {str(tap): count for tap, count in counts.items() if count}
    rejections = {}
    for index in np.nonzero(find_faulty_images([view_masks[0] for view_masks in masks.values()]))[0]:
        name = images.used[index].name
        tap_names = ", ".join(str(tap) for tap, view_masks in masks.items() if view_masks[0][index])
        rejections[name] = Rejection(name, "not_finite", f"NaN or infinite activations at {tap_names}")
    return rejections
