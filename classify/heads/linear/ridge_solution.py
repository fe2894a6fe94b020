"""Ridge regression on one-vs-rest targets, solved for every alpha by one eigendecomposition."""

from __future__ import annotations

import numpy as np

from .cv_fold import Fold


class RidgeSolution:
    """The weights that minimize `|y - x w - b|^2 + alpha |w|^2`, for targets y of 1 for a row's class and -1 otherwise.

    Parameters
    ----------
    values : ndarray of shape (width,)
        Eigenvalues of the scatter matrix of the fit rows.
    vectors : ndarray of shape (width, width) or None
        Its eigenvectors as columns; None for the axes.
    sums : ndarray of shape (classes, width)
        Sum of the rows of each class.
    counts : ndarray of shape (classes,)
        Number of rows of each class.

    Attributes
    ----------
    bias : ndarray of shape (classes,)
        Mean of the targets, since rows are centered.
    counts : ndarray of shape (classes,)
        As given.
    """

    def __init__(self, values: np.ndarray, vectors: np.ndarray | None, sums: np.ndarray, counts: np.ndarray) -> None:
        products = 2 * sums.T  # (width, classes); rows with target -1 add nothing, since all rows sum to 0
        self._values, self._vectors = values, vectors
        self._projected_products = products if vectors is None else vectors.T @ products
        self.counts, self.bias = counts, 2 * counts / counts.sum() - 1

    @classmethod
    def from_fold(cls, fold: Fold) -> RidgeSolution:
        """Solve for the fit rows of a fold."""
        eigen = fold.eigendecomposition  # first, so that only one scatter matrix is in memory
        moments = fold.compute_moments()
        return cls(*eigen, moments.sums, moments.counts)

    def compute_weights(self, alpha: float) -> np.ndarray:
        """Return the weights (width, classes) for one alpha."""
        scaled_products = self._projected_products / (self._values + alpha)[:, None]
        return scaled_products if self._vectors is None else self._vectors @ scaled_products
