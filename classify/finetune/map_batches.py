"""Batches of cached maps, shuffled in every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.feature_matrix import RowReader
from ..data.views import ViewReader
from ..heads.neural import mixup as mixing
from .batch_options import BatchOptions


class MapBatches:
    """Batches (maps, soft labels) of the cached maps of one layer.

    Batch `number` is maps (b, height, width, channels) and labels (b, classes), both float32; the last one may be smaller.
    With `options.training`, the images are shuffled in each `epoch`, each is shown in one of its cached views, and maps and
    labels are mixed; otherwise they come in order. A batch depends on seed, epoch and number alone, so batches can be asked
    for in any order, by several threads, and again.
    """

    n_readers = 2  # threads that may read ahead: decompression occupies one core

    def __init__(
        self,
        reader: RowReader,
        keys: np.ndarray,
        labels: np.ndarray,
        options: BatchOptions,
        views: int = 0,
    ) -> None:
        self._reader, self._keys, self._options = reader, keys, options
        self._labels = labels
        self._mixing = {"mixup": options.mixup, "cutmix": options.cutmix}
        self._view_mask = np.zeros((len(keys), 1 + views), bool)
        self._view_mask[:, 0] = True
        for view in range(1, 1 + views):
            assert isinstance(reader, ViewReader)
            self._view_mask[:, view] = ~reader.find_missing(keys, view)
        self.epoch = 0
        self._epoch_draw: tuple[int, np.ndarray, np.ndarray, Sequence[mixing.Mix]] | None = None

    def __len__(self) -> int:
        return -(-len(self._keys) // self._options.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        batch_slice = slice(number * self._options.batch_size, (number + 1) * self._options.batch_size)
        if not self._options.training:
            return self._read(self._keys[batch_slice], np.zeros(len(self._keys[batch_slice]), np.intp)), self._labels[
                batch_slice
            ]
        order, views, mixes = self._draw_epoch()
        rows = order[batch_slice]
        maps, labels = self._read(self._keys[rows], views[rows]), self._labels[rows]
        if not mixes:
            return maps, labels
        mix = mixes[number]
        maps = mix.apply_cutmix(maps.reshape(len(maps), -1), maps.shape[1:]).reshape(maps.shape)
        map_share, label_share = np.float32(mix.row_shares[0]), np.float32(mix.label_shares[0])
        return map_share * maps + (1 - map_share) * maps[::-1], label_share * labels + (1 - label_share) * labels[::-1]

    def _read(self, keys: np.ndarray, views: np.ndarray) -> np.ndarray:
        out: np.ndarray | None = None
        for view in np.unique(views).tolist():
            mask = views == view
            rows = self._reader.read(keys[mask], view)
            out = np.empty((len(keys), *rows.shape[1:]), np.float32) if out is None else out
            out[mask] = rows
        assert out is not None
        return out

    def _draw_epoch(self) -> tuple[np.ndarray, np.ndarray, Sequence[mixing.Mix]]:
        """Return the order (n,), the view of each image (n,) and the mixing of each batch in this epoch."""
        if self._epoch_draw is None or self._epoch_draw[0] != self.epoch:
            random = np.random.default_rng([self._options.seed, self.epoch])
            order = random.permutation(len(self._keys))
            ranks = np.where(self._view_mask, random.random(self._view_mask.shape), -1)
            mixes: Sequence[mixing.Mix] = ()
            if any(self._mixing.values()):
                shape = self._reader.read(self._keys[:1]).shape[1:]
                mixes = mixing.draw_mixes([self._mixing], shape, len(self), [self._options.seed, self.epoch, 1])
            self._epoch_draw = self.epoch, order, ranks.argmax(axis=1), mixes
        return self._epoch_draw[1:]
