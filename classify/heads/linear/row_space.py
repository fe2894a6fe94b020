"""Rows turned into the span of those that are fitted on.

Heads that depend on rows only through inner products, as every one with an L2 penalty does, have the same answers in the
span of the rows they are fitted on as in all columns: n rows have rank n - 1 at most once they are centred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .eigen import decompose_symmetric
from .gram import Gram


@dataclass(frozen=True)
class RowSpace:
    """From rows to their span: `values` (r,) and `vectors` (m, r), eigenvalues (descending) and eigenvectors of their Gram.

    fit_projection (m, r), score_projection (s, r): the rows in the span, float32. score_norms (s,): squared lengths of those
    to score, what lies outside the span included.
    """

    values: np.ndarray
    vectors: np.ndarray
    fit_projection: np.ndarray
    score_projection: np.ndarray
    score_norms: np.ndarray

    @classmethod
    def from_gram(cls, gram: Gram, fit_rows: np.ndarray, score_rows: np.ndarray) -> RowSpace:
        """Of the products of a fold's rows; directions that are no more than rounding are left out.

        A Gram matrix that nothing else holds is let go before the decomposition.
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
