"""Means and scales of columns over the rows that each fold fits on, as scikit-learn's `StandardScaler` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Parts:
    """Rows divided so that what each fold fits on is some of the parts, whole.

    rows: the row numbers of each part, ascending; member (folds, parts): which parts a fold fits on.
    """

    rows: tuple[np.ndarray, ...]
    member: np.ndarray

    @classmethod
    def of(cls, count: int, fits: Sequence[np.ndarray]) -> Parts:
        """The parts of `count` rows for the row numbers that each fold fits on; rows that no fold fits on are in none."""
        used = np.zeros((count, len(fits)), bool)
        for number, rows in enumerate(fits):
            used[rows, number] = True
        patterns, numbers = np.unique(used, axis=0, return_inverse=True)
        kept = np.nonzero(patterns.any(axis=1))[0]
        return cls(tuple(np.nonzero(numbers == part)[0] for part in kept), patterns[kept].T)


@dataclass(frozen=True)
class Statistics:
    """Of each part's columns: counts (parts,), means and summed squares of what is left (parts, d), float64."""

    counts: np.ndarray
    means: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[np.ndarray]) -> Statistics:
        """Of the rows (m, d) of each part; exact for columns that do not vary within it."""
        counts, width = np.array([len(block) for block in blocks], float), blocks[0].shape[1]
        means, squares = np.empty((len(blocks), width)), np.empty((len(blocks), width))
        for part, block in enumerate(blocks):
            means[part] = block.sum(axis=0, dtype=np.float64) / max(1, len(block))
            near = means[part].astype(np.float32)
            rest = block - near
            squares[part] = np.multiply(rest, rest, dtype=np.float64).sum(axis=0)
            squares[part] -= len(block) * (means[part] - near) ** 2
        return cls(counts, means, np.maximum(squares, 0))

    def joined(self, other: Statistics) -> Statistics:
        """With other rows of the same parts."""
        counts = self.counts + other.counts
        shares = np.divide(other.counts, counts, out=np.zeros_like(counts), where=counts > 0)[:, None]
        moved = np.where(self.counts[:, None] > 0, other.means - self.means, 0)
        means = np.where(self.counts[:, None] > 0, self.means + moved * shares, other.means)
        return Statistics(counts, means, self.squares + other.squares + moved**2 * shares * self.counts[:, None])

    def scaler(self, member: np.ndarray, otherwise: np.ndarray | float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (d,) over the parts of `member` (parts,), a mask.

        A column that varies by no more than rounding has the scale `otherwise` (scikit-learn: `_is_constant_feature`).
        """
        counts, means = self.counts[member], self.means[member]
        total = counts.sum()
        mean = means[0] + counts @ (means - means[0]) / total
        variance = (self.squares[member].sum(axis=0) + counts @ (means - mean) ** 2) / total
        constant = variance <= total * _EPSILON * variance + (total * mean * _EPSILON) ** 2
        return mean, np.where(constant, otherwise, np.sqrt(variance))


def standardised(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(values - mean) / scale` in float32, where mean and scale are float64: a mean far from zero costs no digits.

    What float32 leaves of the mean is taken away after the values are near zero.
    """
    near = mean.astype(np.float32)
    out = values - near
    out *= (1 / scale).astype(np.float32)
    out -= ((mean - near) / scale).astype(np.float32)
    return np.asarray(out)
