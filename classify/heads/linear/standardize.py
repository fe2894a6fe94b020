"""Means and scales of columns over the fit rows of each fold, as in scikit-learn's `StandardScaler`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class RowPartition:
    """Rows divided into parts, so that each fold fits on a union of parts.

    Parameters
    ----------
    rows
        The row numbers of each part, ascending.
    membership : ndarray of shape (folds, parts), bool
        The parts that each fold fits on.
    """

    rows: tuple[np.ndarray, ...]
    membership: np.ndarray

    @classmethod
    def from_folds(cls, count: int, fit_rows_per_fold: Sequence[np.ndarray]) -> RowPartition:
        """Divide `count` rows into parts given the row numbers that each fold fits on; rows in no fold are in no part."""
        is_used = np.zeros((count, len(fit_rows_per_fold)), bool)
        for fold_index, rows in enumerate(fit_rows_per_fold):
            is_used[rows, fold_index] = True
        patterns, pattern_ids = np.unique(is_used, axis=0, return_inverse=True)
        used_patterns = np.nonzero(patterns.any(axis=1))[0]
        return cls(tuple(np.nonzero(pattern_ids == part)[0] for part in used_patterns), patterns[used_patterns].T)


@dataclass(frozen=True)
class Statistics:
    """Counts, means and sums of squares of the columns of each part.

    Parameters
    ----------
    counts : ndarray of shape (parts,), float64
        Number of rows.
    means : ndarray of shape (parts, d), float64
        Column means.
    squares : ndarray of shape (parts, d), float64
        Sums of squared deviations from the mean.
    """

    counts: np.ndarray
    means: np.ndarray
    squares: np.ndarray

    @classmethod
    def from_blocks(cls, blocks: Sequence[np.ndarray]) -> Statistics:
        """Compute the statistics of the rows (m, d) of each part; exact for columns that are constant within it."""
        counts, width = np.array([len(block) for block in blocks], float), blocks[0].shape[1]
        means, squares = np.empty((len(blocks), width)), np.empty((len(blocks), width))
        for part, block in enumerate(blocks):
            means[part] = block.sum(axis=0, dtype=np.float64) / max(1, len(block))
            rounded_mean = means[part].astype(np.float32)
            residuals = block - rounded_mean
            squares[part] = np.multiply(residuals, residuals, dtype=np.float64).sum(axis=0)
            squares[part] -= len(block) * (means[part] - rounded_mean) ** 2
        return cls(counts, means, np.maximum(squares, 0))

    def merge(self, other: Statistics) -> Statistics:
        """Combine with the statistics of other rows of the same parts."""
        counts = self.counts + other.counts
        shares = np.divide(other.counts, counts, out=np.zeros_like(counts), where=counts > 0)[:, None]
        mean_shift = np.where(self.counts[:, None] > 0, other.means - self.means, 0)
        means = np.where(self.counts[:, None] > 0, self.means + mean_shift * shares, other.means)
        return Statistics(counts, means, self.squares + other.squares + mean_shift**2 * shares * self.counts[:, None])

    def compute_scaler(
        self, part_mask: np.ndarray, constant_scale: np.ndarray | float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute mean and scale (d,) over some parts.

        Parameters
        ----------
        part_mask : ndarray of shape (parts,), bool
            The parts.
        constant_scale
            The scale of a column that varies by no more than rounding (scikit-learn's `_is_constant_feature`).
        """
        counts, means = self.counts[part_mask], self.means[part_mask]
        total = counts.sum()
        mean = means[0] + counts @ (means - means[0]) / total
        variance = (self.squares[part_mask].sum(axis=0) + counts @ (means - mean) ** 2) / total
        constant = variance <= total * _EPSILON * variance + (total * mean * _EPSILON) ** 2
        return mean, np.where(constant, constant_scale, np.sqrt(variance))


def standardize(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return `(values - mean) / scale` in float32 for float64 mean and scale, exact even if the mean is large.

    The part of the mean that float32 cannot represent is subtracted once values are near zero.
    """
    rounded_mean = mean.astype(np.float32)
    out = values - rounded_mean
    out *= (1 / scale).astype(np.float32)
    out -= ((mean - rounded_mean) / scale).astype(np.float32)
    return np.asarray(out)
