"""Scatter matrices of features with more rows than columns, for all folds in one pass."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ...data.feature_matrix import FeatureMatrix
from .standardize import RowPartition, Statistics, standardize

_BLOCK = 1 << 24  # bytes of float32 in a block of rows
_STRIP = 256  # rows per strip of half a scatter matrix


class ScatterMatrices:
    """Scatter matrices of the standardized fit rows of every fold.

    The scatter of each part of the rows is around the part's own mean, and a fold adds those of its parts, so that no
    digits cancel, however far held-out rows are from the others.
    """

    def __init__(
        self, features: FeatureMatrix, labels: np.ndarray, n_classes: int, partition: RowPartition, statistics: Statistics
    ) -> None:
        self._features, self._labels, self._n_classes = features, labels, n_classes
        self._partition, self._statistics = partition, statistics

    @cached_property
    def _part_moments(self) -> tuple[list[list[np.ndarray]], np.ndarray, np.ndarray]:
        """Scatter matrices of the parts, class sums (parts, classes, d) and class counts (parts, classes).

        Rows have their part's mean subtracted and are divided by `_scale`. Scatter matrices are symmetric: only strips of
        rows from the diagonal on are kept.
        """
        n_parts, width = len(self._partition.rows), self._features.shape[1]
        heights = [(start, min(_STRIP, width - start)) for start in range(0, width, _STRIP)]
        scatters = [[np.zeros((height, width - start)) for start, height in heights] for _ in range(n_parts)]
        sums, counts = np.zeros((n_parts, self._n_classes, width)), np.zeros((n_parts, self._n_classes))
        for part, rows in enumerate(self._partition.rows):
            for positions, values in self._features.iter_blocks(rows, max(256, _BLOCK // (4 * width))):
                block = standardize(values, self._statistics.means[part], self._scale)
                one_hot = np.eye(self._n_classes, dtype=np.float32)[self._labels[rows[positions]]]
                product = block.T @ block
                for strip, (start, height) in zip(scatters[part], heights, strict=True):
                    strip += product[start : start + height, start:]
                sums[part] += one_hot.T @ block
                counts[part] += one_hot.sum(axis=0)
        return scatters, sums, counts

    @cached_property
    def _scale(self) -> np.ndarray:
        """The scale (d,) over all parts, which keeps float32 products of moderate size."""
        return self._statistics.compute_scaler(np.ones(len(self._partition.rows), bool))[1]

    def compute_moments(
        self, part_mask: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Add up the parts of a fold.

        Parameters
        ----------
        part_mask : ndarray of shape (parts,), bool
            The parts that the fold fits on.
        mean, scale : ndarray of shape (d,)
            The fold's scaler.

        Returns
        -------
        scatter : ndarray of shape (d, d)
            Scatter matrix of the standardized rows.
        class_sums : ndarray of shape (classes, d)
            Sums of the standardized rows.
        class_counts : ndarray of shape (classes,)
            Number of rows of each class.
        """
        scatters, sums, counts = self._part_moments
        mean_shifts, ratio = (self._statistics.means - mean) / scale, self._scale / scale
        scatter, class_sums = np.zeros((len(mean), len(mean))), np.zeros_like(sums[0])
        for part in np.nonzero(part_mask)[0]:
            for strip_index, strip in enumerate(scatters[part]):
                start = _STRIP * strip_index
                scatter[start : start + len(strip), start:] += strip
            class_sums += sums[part] * ratio + counts[part][:, None] * mean_shifts[part]
        for start in range(0, len(mean), _STRIP):
            stop = start + _STRIP
            scatter[stop:, start:stop] = scatter[start:stop, stop:].T
        scatter *= ratio
        scatter *= ratio[:, None]
        between = mean_shifts[part_mask] * np.sqrt(self._statistics.counts[part_mask])[:, None]
        scatter += between.T @ between
        return scatter, class_sums, counts[part_mask].sum(axis=0)
