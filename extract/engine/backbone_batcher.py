"""One backbone's share of a pass over the images: batches through its network, rows to the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..backbones.forward import ForwardPass
from ..backbones.graph import Graph
from ..backbones.taps import Tap
from .row_writer import RowWriter
from .serial_executor import SerialExecutor
from .tap_rows import TapRows


class BackboneBatcher:
    """Gathers image views into batches for one network; several batchers share the decoded images.

    keys: digests (n,) of all images; they are known by number here. missing_masks: what `TapRows.find_missing` says of
    them; what it leaves out is not computed. n_views, passes: how many views, and batches of them, went through the network.
    """

    def __init__(
        self,
        tap_rows: TapRows,
        graph: Graph,
        missing_masks: Mapping[Tap, np.ndarray],
        keys: np.ndarray,
        batch_size: int,
        compute_executor: SerialExecutor,
        store_executor: SerialExecutor,
        compression: str,
    ) -> None:
        self.tap_rows, self._keys = tap_rows, keys
        self._compute_executor = compute_executor
        self._forward = ForwardPass(graph, list(missing_masks), batch_size)
        self.writer = RowWriter(tap_rows, store_executor, compression)
        self._missing_masks = {tap: mask.copy() for tap, mask in missing_masks.items()}
        self._batch: list[tuple[int, int, np.ndarray]] = []
        self.n_views = 0

    @property
    def pending(self) -> np.ndarray:
        """Mask (n,) of the images that lack a row at any tap and view."""
        return np.asarray(np.logical_or.reduce([mask.any(axis=1) for mask in self._missing_masks.values()]))

    @property
    def passes(self) -> int:
        """Batches that went through the network."""
        return self._forward.passes

    def find_missing(self, indices: np.ndarray) -> np.ndarray:
        """Mask (n, 1 + views) of the image views that lack a row at any tap, and that no other process stored meanwhile."""
        if self.tap_rows.has_new_rows:
            current_masks = self.tap_rows.find_missing(self._keys)  # of all, for the next time there may be no news
            for tap, mask in self._missing_masks.items():
                mask &= current_masks.get(tap, False)
        return np.asarray(np.logical_or.reduce([mask[indices] for mask in self._missing_masks.values()]))

    def add(self, index: int, view: int, pixels: np.ndarray) -> None:
        """Take a view (height, width, 3) of an image, unless its rows are there."""
        if any(mask[index, view] for mask in self._missing_masks.values()):
            self._batch.append((index, view, pixels))
            if len(self._batch) == self._forward.batch_size:
                self.run()

    def run(self) -> None:
        """Give the batch, full or not, to the computing stage."""
        if self._batch:
            self._compute_executor(self._run, self._batch)
            self._batch = []

    def finish(self) -> None:
        """Compute and store all that was taken."""
        self.run()
        self._compute_executor(self.writer.flush)

    def _run(self, batch: Sequence[tuple[int, int, np.ndarray]]) -> None:
        indices = np.array([index for index, _, _ in batch])
        views = np.array([view for _, view, _ in batch], np.uint16)
        rows = dict(zip(self._forward.taps, self._forward([pixels for _, _, pixels in batch]), strict=True))
        self.n_views += len(batch)
        store_masks = {tap: mask[indices, views] for tap, mask in self._missing_masks.items()}
        self.writer.add(self._keys[indices], views, rows, store_masks)
