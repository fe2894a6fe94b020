"""The layer in which the nearest stored rows vote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..data.nearest_neighbors import top_k
from .layers import check_width

VOTE_WEIGHTS = ("uniform", "distance")
MIN_COSINE_DISTANCE = 1e-3  # nearer rows count as equally near: float32 resolves this distance to one part in ten thousand
_MAX_SIMILARITIES = 1 << 22  # held in memory at a time


@dataclass(frozen=True)
class NeighborVotes:
    """Class probabilities by a vote of the nearest stored rows, by cosine.

    Among equally near rows the first stored comes first. One more vote is divided equally among all classes, so that no
    probability is 0; it does not change their order.

    Parameters
    ----------
    rows : ndarray of shape (m, d), float32
        Stored rows, of unit length, as input rows must be.
    labels : ndarray of shape (m,), integer
        Their class numbers.
    n_neighbors
        Number of neighbors that vote.
    weights
        ``uniform``, or ``distance``: a vote is weighted by the inverse cosine distance, as in scikit-learn.
    n_classes
        Number of classes.
    """

    rows: np.ndarray
    labels: np.ndarray
    n_neighbors: int
    weights: str
    n_classes: int

    kind: ClassVar[str] = "neighbor_votes"
    array_fields: ClassVar[tuple[str, ...]] = ("rows", "labels")
    json_fields: ClassVar[tuple[str, ...]] = ("n_neighbors", "weights", "n_classes")

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return probabilities (n, classes)."""
        probabilities, block_size = (
            np.empty((len(values), self.n_classes), np.float32),
            max(1, _MAX_SIMILARITIES // len(self.rows)),
        )
        for start in range(0, len(values), block_size):
            similarity, nearest = top_k(values[start : start + block_size] @ self.rows.T, self.n_neighbors)
            probabilities[start : start + block_size] = vote(similarity, self.labels[nearest], self.n_classes, self.weights)
        return probabilities

    def find_ties(self, values: np.ndarray, rounding: float, tolerance: float) -> np.ndarray:
        """Find rows whose probabilities may change by rounding.

        Either rows of several classes are equally near at the edge of the neighborhood, so that any of them may vote, or
        (for weights ``distance``, to first order) the neighbors are so near that their weights are uncertain.

        Parameters
        ----------
        values : ndarray of shape (n, d)
            Rows of unit length.
        rounding
            Bound on the error of a cosine.
        tolerance
            Change of a probability up to which a row is not counted.

        Returns
        -------
        ndarray of shape (n,), bool
        """
        mask, block_size = np.zeros(len(values), bool), max(1, _MAX_SIMILARITIES // len(self.rows))
        for start in range(0, len(values), block_size):
            block = slice(start, start + block_size)
            cosines = values[block] @ self.rows.T
            similarity, nearest = top_k(cosines, self.n_neighbors)
            farthest = similarity[:, -1:]
            on_edge = np.abs(cosines - farthest) <= 2 * rounding
            open_votes = self.n_neighbors - (cosines > farthest + 2 * rounding).sum(axis=1)
            mixed_classes = np.where(on_edge, self.labels, -1).max(axis=1) > np.where(
                on_edge, self.labels, self.n_classes
            ).min(axis=1)
            mask[block] = mixed_classes & (on_edge.sum(axis=1) > open_votes)
            if self.weights == "distance":
                distance, vote_shares, labels = (
                    1 - similarity,
                    _compute_vote_shares(similarity, self.weights),
                    self.labels[nearest],
                )
                other_shares = 1 - np.take_along_axis(_sum_by_class(labels, vote_shares, self.n_classes), labels, axis=1)
                slopes = np.where(
                    distance > MIN_COSINE_DISTANCE - rounding,
                    vote_shares * other_shares / np.maximum(distance, MIN_COSINE_DISTANCE),
                    0,
                )
                mask[block] |= slopes.sum(axis=1) * rounding > tolerance
        return mask

    def compute_output_width(self, width: int | None) -> int:
        """Return the number of classes."""
        if self.rows.ndim != 2 or self.labels.shape != self.rows.shape[:1] or self.labels.dtype.kind not in "iu":
            raise ValueError(f"shapes of rows {self.rows.shape} and labels {self.labels.shape} do not match")
        if not 1 <= self.n_neighbors <= len(self.rows) or not 0 <= self.labels.min() <= self.labels.max() < self.n_classes:
            raise ValueError(
                f"invalid votes: {self.n_neighbors} neighbors of {len(self.rows)} rows in {self.n_classes} classes"
            )
        if self.weights not in VOTE_WEIGHTS:
            raise ValueError(f"weights {self.weights!r}")
        return check_width(width, self.rows.shape[1], self.n_classes)


def vote(similarity: np.ndarray, labels: np.ndarray, n_classes: int, weights: str) -> np.ndarray:
    """Compute class probabilities from the votes of k neighbors; see `NeighborVotes`.

    Parameters
    ----------
    similarity : ndarray of shape (n, k), float32
        Cosines.
    labels : ndarray of shape (n, k), integer
        Class numbers.
    n_classes
        The number of classes.
    weights
        ``uniform`` or ``distance``.

    Returns
    -------
    ndarray of shape (n, n_classes), float32
    """
    n_neighbors = similarity.shape[1]
    class_shares = _sum_by_class(labels, _compute_vote_shares(similarity, weights), n_classes)
    return np.asarray(
        class_shares * np.float32(n_neighbors / (n_neighbors + 1)) + np.float32(1 / (n_classes * (n_neighbors + 1)))
    )


def _compute_vote_shares(similarity: np.ndarray, weights: str) -> np.ndarray:
    """Return the weight of each neighbor's vote (n, k), summing to 1, for cosines (n, k)."""
    distance = np.float32(1) - similarity if weights == "distance" else np.ones_like(similarity)
    shares = 1 / np.maximum(distance, np.float32(MIN_COSINE_DISTANCE))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _sum_by_class(labels: np.ndarray, shares: np.ndarray, n_classes: int) -> np.ndarray:
    """Sum the weights (n, k) of neighbors by their class numbers (n, k) into (n, n_classes)."""
    totals = np.zeros((len(labels), n_classes), np.float32)
    np.add.at(totals, (np.arange(len(labels))[:, None], labels), shares)
    return totals
