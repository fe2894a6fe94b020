"""Covariance within classes where each class is shrunk by itself, as `LinearDiscriminantAnalysis(shrinkage="auto")` does.

scikit-learn standardises the rows of each class, takes their Ledoit-Wolf covariance, and undoes the scale, so that a class
is shrunk towards a diagonal matrix of its own variances. The classes' covariances are then averaged by their priors.

Ledoit, Wolf: A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate Analysis 88
(2004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cv_fold import Fold
from .gram import Gram
from .row_space import Turn
from .standardize import Statistics, standardised

_BLOCK = 1 << 24  # bytes of float32 in a block


def shrunk(fold: Fold) -> np.ndarray:
    """The covariance (d, d) float64 of standardised rows; for a fold that is not turned."""
    features, width = fold.problem.features, fold.columns
    covariance, size = np.zeros((width, width)), max(256, _BLOCK // (4 * width))
    for rows in _classes(fold):
        statistics = None
        for _, values in features.blocks(rows, size):
            found = Statistics.of([values])
            statistics = found if statistics is None else statistics.joined(found)
        if statistics is None:
            continue
        mean, scale = statistics.scaler(np.array([True]), fold.scale)
        products, fourths = np.zeros((width, width)), 0.0
        for _, values in features.blocks(rows, size):
            block = standardised(values, mean, scale)
            products += block.T @ block
            fourths += _fourths(np.einsum("ij,ij->i", block, block))
        share, level = _ledoit_wolf(products, fourths, len(rows), width)
        products *= (1 - share) / len(rows)
        products[np.diag_indices(width)] += share * level
        ratio = scale / fold.scale
        covariance += products * ratio * ratio[:, None] * (len(rows) / len(fold.fit_rows))
    return covariance


def unrelated(fold: Fold) -> tuple[Fold, np.ndarray]:
    """The fold in columns scaled so that all classes' targets add up to the identity, and what each class keeps: (classes,).

    That is one less the class's share of shrinkage. The features are read twice. Where no class is shrunk is no target,
    and the column is left out.
    """
    features, classes = fold.problem.features, _classes(fold)
    size = max(1, _BLOCK // (4 * len(fold.problem.labels)))
    grams = [np.zeros((len(rows), len(rows))) for rows in classes]
    for here, values in features.column_blocks(size):
        for rows, gram in zip(classes, grams, strict=True):
            if len(rows):
                block = standardised(values[rows], *_scaler(values[rows], fold.scale[here]))
                gram += block @ block.T
    shares, levels = np.zeros(len(classes)), np.zeros(len(classes))
    for number, (rows, gram) in enumerate(zip(classes, grams, strict=True)):
        if len(rows):
            shares[number], levels[number] = _ledoit_wolf(gram, _fourths(gram.diagonal()), len(rows), fold.columns)
    products, scale = np.zeros((len(fold.problem.labels),) * 2), np.empty(fold.columns)
    for here, values in features.column_blocks(size):
        target = np.zeros(values.shape[1])
        for rows, share, level in zip(classes, shares, levels, strict=True):
            if len(rows):
                target += share * level * len(rows) / len(fold.fit_rows) * _scaler(values[rows], fold.scale[here])[1] ** 2
        scale[here] = np.where(target > 0, np.sqrt(target), np.inf)
        block = standardised(values, fold.mean[here], scale[here])
        products += block @ block.T
    made = Gram(products, fold.mean, scale, float(np.finfo(np.float32).eps))
    turn = Turn.of(made, fold.fit_rows, fold.score_rows)
    return Fold(fold.problem, fold.fit_rows, fold.score_rows, fold.mean, scale, turn), 1 - shares


def _classes(fold: Fold) -> Sequence[np.ndarray]:
    return [fold.fit_rows[fold.labels == number] for number in range(fold.classes)]


def _scaler(values: np.ndarray, otherwise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return Statistics.of([values]).scaler(np.array([True]), otherwise)


def _fourths(squares: np.ndarray) -> float:
    return float(np.square(squares, dtype=np.float64).sum())


def _ledoit_wolf(products: np.ndarray, fourths: float, count: int, width: int) -> tuple[float, float]:
    """The share of shrinkage and the mean variance, of `count` centred rows of `width` columns.

    products: of rows with rows or of columns with columns, whichever are fewer; fourths: the sum of the fourth powers of the
    rows' lengths.
    """
    trace = float(products.trace()) / count
    level = trace / width
    squared = float(np.square(products).sum()) / count**2
    noise = (fourths / count - squared) / (width * count)
    spread = (squared - 2 * level * trace + width * level**2) / width
    noise = min(noise, spread)
    return (noise / spread if noise > 0 and width > 1 else 0.0), level
