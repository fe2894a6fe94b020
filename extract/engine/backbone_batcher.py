"""One backbone's share of a pass over the images: batches through its network, rows to the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..backbones.forward import Forward
from ..backbones.graph import Graph
from ..backbones.taps import Tap
from .row_writer import Writer
from .serial_executor import Stage
from .tap_rows import Rows


class Lane:
    """Gathers image views into batches for one network; several lanes share the decoded images.

    keys: digests (n,) of all images; they are known by number here. missing: what `rows.missing` says of them; what it
    leaves out is not computed. images, passes: how many views, and batches of them, went through the network.
    """

    def __init__(
        self,
        rows: Rows,
        graph: Graph,
        missing: Mapping[Tap, np.ndarray],
        keys: np.ndarray,
        batch_size: int,
        compute: Stage,
        store: Stage,
        compression: str,
    ) -> None:
        self.rows, self._keys = rows, keys
        self._compute = compute
        self._forward = Forward(graph, list(missing), batch_size)
        self.writer = Writer(rows, store, compression)
        self._missing = {tap: mask.copy() for tap, mask in missing.items()}
        self._batch: list[tuple[int, int, np.ndarray]] = []
        self.images = 0

    @property
    def pending(self) -> np.ndarray:
        """Mask (n,) of the images that lack a row at any tap and view."""
        return np.asarray(np.logical_or.reduce([mask.any(axis=1) for mask in self._missing.values()]))

    @property
    def passes(self) -> int:
        """Batches that went through the network."""
        return self._forward.passes

    def missing(self, numbers: np.ndarray) -> np.ndarray:
        """Mask (n, 1 + views) of the image views that lack a row at any tap, and that no other process stored meanwhile."""
        if self.rows.news:
            found = self.rows.missing(self._keys)  # of all, for the next time there may be no news
            for tap, mask in self._missing.items():
                mask &= found.get(tap, False)
        return np.asarray(np.logical_or.reduce([mask[numbers] for mask in self._missing.values()]))

    def add(self, number: int, view: int, pixels: np.ndarray) -> None:
        """Take a view (height, width, 3) of an image, unless its rows are there."""
        if any(mask[number, view] for mask in self._missing.values()):
            self._batch.append((number, view, pixels))
            if len(self._batch) == self._forward.batch_size:
                self.run()

    def run(self) -> None:
        """Give the batch, full or not, to the computing stage."""
        if self._batch:
            self._compute(self._run, self._batch)
            self._batch = []

    def finish(self) -> None:
        """Compute and store all that was taken."""
        self.run()
        self._compute(self.writer.flush)

    def _run(self, batch: Sequence[tuple[int, int, np.ndarray]]) -> None:
        numbers = np.array([number for number, _, _ in batch])
        views = np.array([view for _, view, _ in batch], np.uint16)
        rows = dict(zip(self._forward.taps, self._forward([pixels for _, _, pixels in batch]), strict=True))
        self.images += len(batch)
        wanted = {tap: mask[numbers, views] for tap, mask in self._missing.items()}
        self.writer.add(self._keys[numbers], views, rows, wanted)
