"""Pipelined extraction: decode, forward and store run at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.leases import Leases
from ..images.images import Images
from ..images.item import Rejection
from ..images.load import Progress
from ..pixels import decode, read_file
from ..pixels.decode_pool import DecoderPool
from .backbone_batcher import BackboneBatcher
from .extract_config import ExtractConfig
from .serial_executor import SerialExecutor
from .shared_work_queue import SharedWorkQueue, Wait, WorkItem

_MAX_VIEWS_PER_STEP = 8


@dataclass(frozen=True)
class _DecodeStep:
    """Up to `_MAX_VIEWS_PER_STEP` missing views of the image `index`; `is_last` if they are the last ones."""

    index: int
    views: tuple[int, ...]
    is_last: bool


_Step = _DecodeStep | WorkItem | Wait


class ExtractionPipeline:
    """Runs images of one size through the networks of several batchers.

    Decoder processes work ahead, this thread passes the decoded images to the batchers, one thread computes and one thread
    stores.

    Parameters
    ----------
    images : Images
        The images.
    size : tuple of int
        (height, width) in pixels.
    batchers : sequence of BackboneBatcher
        One for each backbone, all with the same views.
    compute_executor, store_executor : SerialExecutor
        The threads that the batchers use.
    leases : Leases
        The leases by which extractors share the work.
    config : ExtractConfig
        Its `jobs` is the number of decoder processes.
    num_extractors : int
        Number of processes that do the same extraction at once.
    """

    def __init__(
        self,
        images: Images,
        size: tuple[int, int],
        batchers: Sequence[BackboneBatcher],
        compute_executor: SerialExecutor,
        store_executor: SerialExecutor,
        leases: Leases,
        config: ExtractConfig,
        num_extractors: int,
    ) -> None:
        self._images, self._size, self._batchers = images, size, batchers
        self._compute_executor, self._store_executor = compute_executor, store_executor
        self._policy = batchers[0].tap_rows.policy
        views_per_step = min(1 + batchers[0].tap_rows.views, _MAX_VIEWS_PER_STEP)
        self._jobs = config.jobs or read_file.count_cores()
        self._max_in_flight = 2 * config.batch_size // views_per_step + 2 * self._jobs
        pending = np.logical_or.reduce([batcher.pending for batcher in batchers])
        work_key = " ".join(batcher.tap_rows.work_key for batcher in batchers)
        self._work_queue = SharedWorkQueue(pending, images.keys, work_key, leases, self._find_missing, num_extractors)
        self._total = int(pending.sum())

    def run(self, progress: Progress | None = None) -> dict[str, Rejection]:
        """Compute and store all missing rows; return the rejected images by name.

        If it is interrupted, the rows computed so far are stored.
        """
        rejections: dict[str, Rejection] = {}
        n_completed = 0
        with ExitStack() as stack:
            stack.callback(self._work_queue.close)
            stack.callback(self._store_executor.close)
            stack.callback(self._store_executor.drain)
            for batcher in self._batchers:
                stack.callback(batcher.writer.flush)
            stack.callback(self._compute_executor.close)
            stack.callback(self._compute_executor.drain)
            decoders = stack.enter_context(DecoderPool(self._jobs))
            steps = read_file.map_in_order(
                lambda step: self._decode(step, decoders), self._generate_steps(), self._jobs, self._max_in_flight
            )
            stack.enter_context(closing(steps))
            for step, outcome in steps:
                self._work_queue.renew_leases()
                if isinstance(step, Wait):
                    time.sleep(max(0.0, step.until - time.monotonic()))
                elif isinstance(step, WorkItem):
                    self._total -= int((~step.missing_mask.any(axis=1)).sum())
                    self._finish_work_item(step)
                else:
                    n_completed += step.is_last
                    if isinstance(outcome, decode.ImageRejected):
                        rejections.update(self._reject(step, outcome))
                    else:
                        self._dispatch(step, outcome)
                if progress is not None:
                    progress(n_completed, self._total)
        return rejections

    def _find_missing(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(np.logical_or.reduce([batcher.find_missing(indices) for batcher in self._batchers]))

    def _generate_steps(self) -> Iterator[_Step]:
        """Yield the steps in order; a work item comes after the steps of its images."""
        for queue_item in self._work_queue:
            if isinstance(queue_item, WorkItem):
                for index, missing_mask in zip(queue_item.indices, queue_item.missing_mask, strict=True):
                    views = np.nonzero(missing_mask)[0].tolist()
                    for start in range(0, len(views), _MAX_VIEWS_PER_STEP):
                        view_chunk = tuple(views[start : start + _MAX_VIEWS_PER_STEP])
                        yield _DecodeStep(int(index), view_chunk, start + len(view_chunk) == len(views))
            yield queue_item

    def _decode(self, step: _Step, decoders: DecoderPool) -> tuple[Any, Any]:
        if not isinstance(step, _DecodeStep):
            return step, None
        try:
            image = self._images.used[step.index]
            data = self._images.source.fetch(image.item)
            return step, decoders.decode(data, self._size, image.digest, step.views, self._policy)
        except decode.ImageRejected as rejection:
            return step, rejection

    def _dispatch(self, step: _DecodeStep, views: np.ndarray) -> None:
        for view, view_pixels in zip(step.views, views, strict=True):
            for batcher in self._batchers:
                batcher.add(step.index, view, view_pixels)

    def _reject(self, step: _DecodeStep, rejection: decode.ImageRejected) -> dict[str, Rejection]:
        name = self._images.used[step.index].name
        return {name: Rejection(name, rejection.reason, str(rejection))}

    def _finish_work_item(self, work_item: WorkItem) -> None:
        """Compute and store the rest of a work item, then release its leases."""
        for batcher in self._batchers:
            batcher.finish()
        self._compute_executor(self._store_executor, self._work_queue.release, work_item)
