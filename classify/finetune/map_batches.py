"""Batches of whole maps from the cache, in a new order every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.feature_matrix import Stored
from ..data.views import Viewed
from ..heads.neural import mixup as mixing


class MapBatches:
    """Batches (maps, soft labels) of the rows that one layer has of some images.

    Batch `number` is maps (b, height, width, channels) and labels (b, classes), both float32; the last one is short. With
    `training` the order is drawn anew for each `epoch`, each image is seen in any one of its `views` and the plain one that
    there are, and maps and labels are mixed as `heads.mixing` does; else they come in order, plain. What a batch holds
    depends on seed, epoch and number alone: batches may be asked for in any order, from several threads, and again.
    """

    readers = 2  # threads that may read ahead: decompression takes one core for itself

    def __init__(
        self,
        stored: Stored,
        keys: np.ndarray,
        labels: np.ndarray,
        classes: int,
        *,
        batch_size: int,
        seed: int = 0,
        training: bool = False,
        views: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        self._stored, self._keys, self._size, self._seed, self._training = stored, keys, batch_size, seed, training
        self._labels = np.eye(classes, dtype=np.float32)[labels]
        self._mixing = {"mixup": mixup, "cutmix": cutmix}
        self._views = np.zeros((len(keys), 1 + views), bool)
        self._views[:, 0] = True
        for view in range(1, 1 + views):
            assert isinstance(stored, Viewed)
            self._views[:, view] = ~stored.missing(keys, view)
        self.epoch = 0
        self._drawn: tuple[int, np.ndarray, np.ndarray, Sequence[mixing.Mix]] | None = None

    def __len__(self) -> int:
        return -(-len(self._keys) // self._size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        here = slice(number * self._size, (number + 1) * self._size)
        if not self._training:
            return self._read(self._keys[here], np.zeros(len(self._keys[here]), np.intp)), self._labels[here]
        order, views, mixes = self._draw()
        rows = order[here]
        maps, labels = self._read(self._keys[rows], views[rows]), self._labels[rows]
        if not mixes:
            return maps, labels
        mix = mixes[number]
        maps = mix.cut(maps.reshape(len(maps), -1), maps.shape[1:]).reshape(maps.shape)
        share, own = np.float32(mix.rows[0]), np.float32(mix.labels[0])
        return share * maps + (1 - share) * maps[::-1], own * labels + (1 - own) * labels[::-1]

    def _read(self, keys: np.ndarray, views: np.ndarray) -> np.ndarray:
        out: np.ndarray | None = None
        for view in np.unique(views).tolist():
            mine = views == view
            found = self._stored.read(keys[mine], view)
            out = np.empty((len(keys), *found.shape[1:]), np.float32) if out is None else out
            out[mine] = found
        assert out is not None
        return out

    def _draw(self) -> tuple[np.ndarray, np.ndarray, Sequence[mixing.Mix]]:
        """Order (n,), the view of each image (n,), and how each batch is mixed, of this epoch."""
        if self._drawn is None or self._drawn[0] != self.epoch:
            random = np.random.default_rng([self._seed, self.epoch])
            order = random.permutation(len(self._keys))
            ranks = np.where(self._views, random.random(self._views.shape), -1)
            mixes: Sequence[mixing.Mix] = ()
            if any(self._mixing.values()):
                shape = self._stored.read(self._keys[:1]).shape[1:]
                mixes = mixing.draw([self._mixing], shape, len(self), [self._seed, self.epoch, 1])
            self._drawn = self.epoch, order, ranks.argmax(axis=1), mixes
        return self._drawn[1:]
