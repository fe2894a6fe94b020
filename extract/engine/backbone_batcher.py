"""Batches images for one backbone and stores its rows."""

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
    """Collects image views into batches for one network; several batchers share the decoded images.

    Parameters
    ----------
    tap_rows : TapRows
        The rows of the backbone.
    graph : Graph
        The network.
    missing_masks : mapping
        Tap -> mask (n, 1 + views) of the rows to compute, from `TapRows.find_missing`.
    keys : np.ndarray
        Digests (n,) S32 of all images, which are referred to by their index.
    batch_size : int
        Number of image views in a batch.
    compute_executor, store_executor : SerialExecutor
        The threads that run the network and store rows.
    compression : str
        Compression of whole maps.

    Attributes
    ----------
    n_views : int
        Number of image views computed so far.
    writer : RowWriter
        Stores the rows.
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
        """Number of batches computed so far."""
        return self._forward.passes

    def find_missing(self, indices: np.ndarray) -> np.ndarray:
        """Return the mask (m, 1 + views) of the views of `indices` (m,) that neither this nor another process has stored."""
        if self.tap_rows.has_new_rows:
            current_masks = self.tap_rows.find_missing(self._keys)  # of all images, as has_new_rows is then false
            for tap, mask in self._missing_masks.items():
                mask &= current_masks.get(tap, False)
        return np.asarray(np.logical_or.reduce([mask[indices] for mask in self._missing_masks.values()]))

    def add(self, index: int, view: int, pixels: np.ndarray) -> None:
        """Add a view (height, width, 3) of an image to the batch, unless all its rows are stored."""
        if any(mask[index, view] for mask in self._missing_masks.values()):
            self._batch.append((index, view, pixels))
            if len(self._batch) == self._forward.batch_size:
                self.run()

    def run(self) -> None:
        """Submit the batch, full or not, to the compute executor."""
        if self._batch:
            self._compute_executor(self._run, self._batch)
            self._batch = []

    def finish(self) -> None:
        """Submit the last batch, and then the storing of all rows."""
        self.run()
        self._compute_executor(self.writer.flush)

    def _run(self, batch: Sequence[tuple[int, int, np.ndarray]]) -> None:
        indices = np.array([index for index, _, _ in batch])
        views = np.array([view for _, view, _ in batch], np.uint16)
        rows = dict(zip(self._forward.taps, self._forward([pixels for _, _, pixels in batch]), strict=True))
        self.n_views += len(batch)
        store_masks = {tap: mask[indices, views] for tap, mask in self._missing_masks.items()}
        self.writer.add(self._keys[indices], views, rows, store_masks)
