"""Scatter matrices of rows with more rows than columns, for all folds from one pass."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ...data.feature_matrix import Matrix
from .standardize import Parts, Statistics, standardised

_BLOCK = 1 << 24  # bytes of float32 in a block of rows
_STRIP = 256  # rows in a strip of half a scatter matrix


class Scatters:
    """Scatter matrices of a problem's folds with fewer columns than rows, from one pass over the rows that they share.

    Each part's scatter is around its own mean, and those of a fold's parts are added up, so that no digits cancel, however
    far rows that are held out lie from the others.
    """

    def __init__(self, features: Matrix, labels: np.ndarray, classes: int, parts: Parts, statistics: Statistics) -> None:
        self._features, self._labels, self._classes = features, labels, classes
        self._parts, self._statistics = parts, statistics

    @cached_property
    def _made(self) -> tuple[list[list[np.ndarray]], np.ndarray, np.ndarray]:
        """Scatters of parts and class sums (parts, classes, d) around each part's mean over `_scale`, class counts.

        A scatter matrix is symmetric: kept are strips of its rows, each from the diagonal on.
        """
        count, width = len(self._parts.rows), self._features.shape[1]
        heights = [(start, min(_STRIP, width - start)) for start in range(0, width, _STRIP)]
        scatters = [[np.zeros((height, width - start)) for start, height in heights] for _ in range(count)]
        sums, counts = np.zeros((count, self._classes, width)), np.zeros((count, self._classes))
        for part, rows in enumerate(self._parts.rows):
            for places, values in self._features.blocks(rows, max(256, _BLOCK // (4 * width))):
                block = standardised(values, self._statistics.means[part], self._scale)
                of = np.eye(self._classes, dtype=np.float32)[self._labels[rows[places]]]
                product = block.T @ block
                for strip, (start, height) in zip(scatters[part], heights, strict=True):
                    strip += product[start : start + height, start:]
                sums[part] += of.T @ block
                counts[part] += of.sum(axis=0)
        return scatters, sums, counts

    @cached_property
    def _scale(self) -> np.ndarray:
        """A scale (d,) for float32 products, of the size of every part's."""
        return self._statistics.scaler(np.ones(len(self._parts.rows), bool))[1]

    def moments(self, member: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scatter, class sums and class counts of the parts of `member`, standardised by `mean` and `scale`."""
        scatters, sums, counts = self._made
        moved, ratio = (self._statistics.means - mean) / scale, self._scale / scale
        scatter, classes = np.zeros((len(mean), len(mean))), np.zeros_like(sums[0])
        for part in np.nonzero(member)[0]:
            for number, strip in enumerate(scatters[part]):
                start = _STRIP * number
                scatter[start : start + len(strip), start:] += strip
            classes += sums[part] * ratio + counts[part][:, None] * moved[part]
        for start in range(0, len(mean), _STRIP):
            stop = start + _STRIP
            scatter[stop:, start:stop] = scatter[start:stop, stop:].T
        scatter *= ratio
        scatter *= ratio[:, None]
        between = moved[member] * np.sqrt(self._statistics.counts[member])[:, None]
        scatter += between.T @ between
        return scatter, classes, counts[member].sum(axis=0)
