"""Stage one: run frozen networks once over each image and store the activations of every tap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    """What one extraction did.

    computed: image views that went through the network; passes: batches of them; rows: stored rows per tap;
    kept_float32: those that float16 cannot hold and that are stored in float32; seconds: of the pass, which backbones of one
    image size share. non_finite_counts: how many images gave NaN or infinity, for each tap where any did; such rows are not
    stored, and the images are refused unless most images are so there.
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
        """JSON values."""
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
    """One backbone's part of the work; `missing_masks` as of `TapRows.find_missing`."""

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
    """Fill the cache with the taps of every backbone; only what is missing is computed.

    Parameters
    ----------
    images : Images
        What `load_images` gives. Those that cannot be decoded are refused, and the rest is done.
    store : Store
        The cache, open for writing.
    config : ExtractConfig
        What to extract. Its `devices` are for `extract_on_devices`, which starts workers; here this process computes.
    num_extractors : int
        How many processes do the same work at once, and share it.
    progress : callable, optional
        Gives the callback (done, total) of a named stage.

    Returns
    -------
    list of ExtractResult
        One for each backbone, in order.

    Raises
    ------
    BackboneError, LayerError
        For a network that cannot be built, or a tap that it has not.
    CacheReadOnly, CacheFull
        Where the rows cannot be stored. On `KeyboardInterrupt` what was computed is stored before the interrupt goes on.
    """
    tasks = [_prepare_task(images, backbone_spec, store, config) for backbone_spec in config.backbone_specs]
    if config.compression == "none":
        _check_disk_space(tasks, store)
    for task in tasks:
        if task.missing_masks or not task.tap_rows.is_created:
            task.tap_rows.create()  # finds out a read-only cache before a network runs
    tasks_by_size: dict[tuple[int, int], list[_BackboneTask]] = {}
    for task in tasks:
        if task.missing_masks:
            tasks_by_size.setdefault(task.result.metadata.spec.image_size, []).append(task)
    refusals: dict[str, Rejection] = {}
    for same_size_tasks in tasks_by_size.values():
        report_progress = progress(" + ".join(task.backbone_spec.title for task in same_size_tasks)) if progress else None
        refusals |= _run_pass(same_size_tasks, images, store, config, num_extractors, report_progress)
    remember_rejections(images, refusals.values(), store.kv_store)
    images = images.reject(refusals)
    for task in tasks:
        images = images.reject(_find_non_finite(task, images))
    for task in tasks:
        task.result.images = images
    store.flush()
    return [task.result for task in tasks]


def _prepare_task(images: Images, backbone_spec: BackboneSpec, store: Store, config: ExtractConfig) -> _BackboneTask:
    metadata, backbone = get_or_build(backbone_spec, store.kv_store)
    taps = resolve_taps(to_tuple(config.layers), metadata.layers, metadata.default_layers, to_tuple(config.pools))
    tap_rows = TapRows(store, metadata, taps, config.views, config.policy)
    result = ExtractResult(metadata, taps, images, config.views)
    return _BackboneTask(backbone_spec, tap_rows, backbone, tap_rows.find_missing(images.keys), result)


def _check_disk_space(tasks: Sequence[_BackboneTask], store: Store) -> None:
    """Raise `CacheFull` when the disk cannot hold what is missing: better now than after hours."""
    required_bytes, available_bytes = (
        sum(task.tap_rows.count_bytes(task.missing_masks) for task in tasks),
        get_free_bytes(store.path),
    )
    if required_bytes > available_bytes:
        raise CacheFull(
            f"{store.path}: expected {required_bytes:,} bytes free for the rows to compute, found {available_bytes:,}; give "
            "fewer or smaller taps (--dry-run lists them), compress whole maps with --compress, or give another folder with "
            "--cache"
        )


def _run_pass(
    tasks: Sequence[_BackboneTask],
    images: Images,
    store: Store,
    config: ExtractConfig,
    num_extractors: int,
    progress: Progress | None,
) -> dict[str, Rejection]:
    """Compute what is missing of backbones of one image size; the images that turned out to be unusable, by name."""
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
        expected_fields, actual_fields = spec.to_dict(), backbone.spec.to_dict()
        changed_field = next(
            name
            for name in expected_fields
            if expected_fields[name] != actual_fields[name] and name not in DESCRIPTIVE_FIELDS
        )
        raise BackboneError(
            f"backbone {task.backbone_spec.title}: expected {changed_field} {str(expected_fields[changed_field])[:40]} as "
            f"it was before, found {str(actual_fields[changed_field])[:40]}; delete {store.path / 'index'} and run the "
            "command again"
        )
    return backbone


def _find_non_finite(task: _BackboneTask, images: Images) -> dict[str, Rejection]:
    """The images without a finite row, to be refused; counts those of each tap."""
    masks = {tap: task.tap_rows.find_non_finite(tap, images.keys) for tap in task.result.taps}
    counts = {tap: int(np.logical_or.reduce(view_masks).sum()) for tap, view_masks in masks.items()}
    task.result.non_finite_counts = {str(tap): count for tap, count in counts.items() if count}
    refusals = {}
    for index in np.nonzero(find_faulty_images([view_masks[0] for view_masks in masks.values()]))[0]:
        name = images.used[index].name
        tap_names = ", ".join(str(tap) for tap, view_masks in masks.items() if view_masks[0][index])
        refusals[name] = Rejection(name, "not_finite", f"NaN or infinite activations at {tap_names}")
    return refusals
