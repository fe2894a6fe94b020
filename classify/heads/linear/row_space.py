"""Projection of rows onto the row space of the training rows.

Heads that depend on rows only through inner products, such as those with an L2 penalty, make the same predictions from
the projections: n centered rows have rank n - 1 at most, however many columns there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .eigen import decompose_symmetric
from .gram import Gram


@dataclass(frozen=True)
class RowSpace:
    """The row space of a fold's fit rows, and the rows projected onto it.

    Parameters
    ----------
    values : ndarray of shape (r,)
        Eigenvalues of the centered fit rows' Gram matrix, descending.
    vectors : ndarray of shape (m, r)
        Its eigenvectors as columns.
    fit_projection : ndarray of shape (m, r), float32
        The fit rows.
    score_projection : ndarray of shape (s, r), float32
        The rows to score.
    score_norms : ndarray of shape (s,)
        Squared lengths of the rows to score, including their parts outside the row space.
    """

    values: np.ndarray
    vectors: np.ndarray
    fit_projection: np.ndarray
    score_projection: np.ndarray
    score_norms: np.ndarray

    @classmethod
    def from_gram(cls, gram: Gram, fit_rows: np.ndarray, score_rows: np.ndarray) -> RowSpace:
        """Decompose a fold's Gram matrix, without the directions that are only rounding errors.

        The reference to the matrix is dropped before the decomposition, so that it is freed if the caller keeps none.

        Parameters
        ----------
        gram
            Inner products of all rows, standardized by the fold's scaler.
        fit_rows : ndarray of shape (m,)
            Row numbers.
        score_rows : ndarray of shape (s,)
            Row numbers.
        """
        products = gram.products[np.ix_(fit_rows, fit_rows)]
        mean, mean_product = products.mean(axis=0), float(products.mean())
        products -= mean
        products -= mean[:, None]
        products += mean_product
        cross_products = gram.products[np.ix_(score_rows, fit_rows)]
        shift = cross_products.mean(axis=1)
        norms, noise = gram.products.diagonal()[score_rows] - 2 * shift + mean_product, gram.noise
        del gram
        longest = float(products.diagonal().max())
        values, vectors = decompose_symmetric(products)
        del products
        rounding = noise * len(fit_rows) ** 0.5 * longest
        threshold = max(rounding, float(np.finfo(np.float64).eps) * len(fit_rows) * float(values[-1]))
        retained = np.nonzero(values > threshold)[0][::-1]
        values, vectors = values[retained], vectors[:, retained]
        projected = (cross_products - shift[:, None] - mean + mean_product) @ (vectors / np.sqrt(values))
        return cls(
            values,
            vectors,
            (vectors * np.sqrt(values)).astype(np.float32),
            projected.astype(np.float32),
            np.maximum(norms, 0),
        )
