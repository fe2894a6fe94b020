"""Rows turned into the span of those that are fitted on.

Heads that depend on rows only through inner products, as every one with an L2 penalty does, have the same answers in the
span of the rows they are fitted on as in all columns: n rows have rank n - 1 at most once they are centred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .eigen import decomposed
from .gram import Gram


@dataclass(frozen=True)
class Turn:
    """From rows to their span: `values` (r,) and `vectors` (m, r), eigenvalues (descending) and eigenvectors of their Gram.

    fit (m, r), score (s, r): the rows in the span, float32. score_norms (s,): squared lengths of those to score,
    what lies outside the span included.
    """

    values: np.ndarray
    vectors: np.ndarray
    fit: np.ndarray
    score: np.ndarray
    score_norms: np.ndarray

    @classmethod
    def of(cls, gram: Gram, fit: np.ndarray, score: np.ndarray) -> Turn:
        """Of the products of a fold's rows; directions that are no more than rounding are left out.

        A Gram matrix that nothing else holds is let go before the decomposition.
        """
        products = gram.products[np.ix_(fit, fit)]
        mean, level = products.mean(axis=0), float(products.mean())
        products -= mean
        products -= mean[:, None]
        products += level
        across = gram.products[np.ix_(score, fit)]
        shift = across.mean(axis=1)
        norms, noise = gram.products.diagonal()[score] - 2 * shift + level, gram.noise
        del gram
        longest = float(products.diagonal().max())
        values, vectors = decomposed(products)
        del products
        rounding = noise * len(fit) ** 0.5 * longest
        least = max(rounding, float(np.finfo(np.float64).eps) * len(fit) * float(values[-1]))
        real = np.nonzero(values > least)[0][::-1]
        values, vectors = values[real], vectors[:, real]
        turned = (across - shift[:, None] - mean + level) @ (vectors / np.sqrt(values))
        return cls(
            values,
            vectors,
            (vectors * np.sqrt(values)).astype(np.float32),
            turned.astype(np.float32),
            np.maximum(norms, 0),
        )
