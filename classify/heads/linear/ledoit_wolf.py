"""Covariance within classes with Ledoit-Wolf shrinkage, as in `LinearDiscriminantAnalysis(shrinkage="auto")`.

scikit-learn standardizes the rows of each class, computes their Ledoit-Wolf covariance, and undoes the scaling, so that a
class is shrunk towards the diagonal matrix of its own variances. The covariances are then averaged over classes, weighted
by the priors.

Ledoit, Wolf: A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate Analysis 88
(2004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cv_fold import Fold
from .gram import Gram
from .row_space import RowSpace
from .standardize import Statistics, standardize

_BLOCK = 1 << 24  # bytes of float32 in a block


def compute_covariance(fold: Fold) -> np.ndarray:
    """Return the covariance (d, d) float64 of standardized rows, for a fold that is not projected."""
    features, width = fold.data.features, fold.n_columns
    covariance, size = np.zeros((width, width)), max(256, _BLOCK // (4 * width))
    for rows in _list_class_rows(fold):
        statistics = None
        for _, values in features.iter_blocks(rows, size):
            block_statistics = Statistics.from_blocks([values])
            statistics = block_statistics if statistics is None else statistics.merge(block_statistics)
        if statistics is None:
            continue
        mean, scale = statistics.compute_scaler(np.array([True]), fold.scale)
        products, fourth_powers = np.zeros((width, width)), 0.0
        for _, values in features.iter_blocks(rows, size):
            block = standardize(values, mean, scale)
            products += block.T @ block
            fourth_powers += _sum_fourth_powers(np.einsum("ij,ij->i", block, block))
        shrinkage, mean_variance = _compute_shrinkage(products, fourth_powers, len(rows), width)
        products *= (1 - shrinkage) / len(rows)
        products[np.diag_indices(width)] += shrinkage * mean_variance
        ratio = scale / fold.scale
        covariance += products * ratio * ratio[:, None] * (len(rows) / len(fold.fit_rows))
    return covariance


def rescale_to_identity_target(fold: Fold) -> tuple[Fold, np.ndarray]:
    """Scale columns so that the shrinkage targets of all classes add up to the identity.

    Reads the features twice. A column in which no class is shrunk has no target, and gets an infinite scale.

    Returns
    -------
    fold : Fold
        Projected onto the row space of the scaled rows.
    unshrunk_shares : ndarray of shape (classes,)
        One minus the shrinkage of each class.
    """
    features, class_rows = fold.data.features, _list_class_rows(fold)
    size = max(1, _BLOCK // (4 * len(fold.data.labels)))
    class_grams = [np.zeros((len(rows), len(rows))) for rows in class_rows]
    for column_slice, values in features.iter_column_blocks(size):
        for rows, gram in zip(class_rows, class_grams, strict=True):
            if len(rows):
                block = standardize(values[rows], *_compute_scaler(values[rows], fold.scale[column_slice]))
                gram += block @ block.T
    shrinkages, mean_variances = np.zeros(len(class_rows)), np.zeros(len(class_rows))
    for class_index, (rows, gram) in enumerate(zip(class_rows, class_grams, strict=True)):
        if len(rows):
            shrinkages[class_index], mean_variances[class_index] = _compute_shrinkage(
                gram, _sum_fourth_powers(gram.diagonal()), len(rows), fold.n_columns
            )
    products, scale = np.zeros((len(fold.data.labels),) * 2), np.empty(fold.n_columns)
    for column_slice, values in features.iter_column_blocks(size):
        target = np.zeros(values.shape[1])
        for rows, shrinkage, mean_variance in zip(class_rows, shrinkages, mean_variances, strict=True):
            if len(rows):
                target += (
                    shrinkage
                    * mean_variance
                    * len(rows)
                    / len(fold.fit_rows)
                    * _compute_scaler(values[rows], fold.scale[column_slice])[1] ** 2
                )
        scale[column_slice] = np.where(target > 0, np.sqrt(target), np.inf)
        block = standardize(values, fold.mean[column_slice], scale[column_slice])
        products += block @ block.T
    scaled_gram = Gram(products, fold.mean, scale, float(np.finfo(np.float32).eps))
    row_space = RowSpace.from_gram(scaled_gram, fold.fit_rows, fold.score_rows)
    return Fold(fold.data, fold.fit_rows, fold.score_rows, fold.mean, scale, row_space), 1 - shrinkages


def _list_class_rows(fold: Fold) -> Sequence[np.ndarray]:
    return [fold.fit_rows[fold.labels == class_id] for class_id in range(fold.n_classes)]


def _compute_scaler(values: np.ndarray, constant_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return Statistics.from_blocks([values]).compute_scaler(np.array([True]), constant_scale)


def _sum_fourth_powers(squares: np.ndarray) -> float:
    return float(np.square(squares, dtype=np.float64).sum())


def _compute_shrinkage(products: np.ndarray, fourth_powers: float, count: int, width: int) -> tuple[float, float]:
    """Compute shrinkage and mean variance of `count` centered rows with `width` columns.

    Parameters
    ----------
    products : ndarray of shape (count, count) or (width, width)
        Inner products of rows with rows, or of columns with columns.
    fourth_powers
        Sum of the fourth powers of the rows' lengths.
    count, width
        Number of rows and columns.
    """
    trace = float(products.trace()) / count
    mean_variance = trace / width
    squared = float(np.square(products).sum()) / count**2
    noise = (fourth_powers / count - squared) / (width * count)
    spread = (squared - 2 * mean_variance * trace + width * mean_variance**2) / width
    noise = min(noise, spread)
    return (noise / spread if noise > 0 and width > 1 else 0.0), mean_variance
