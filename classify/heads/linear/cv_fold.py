"""A cross-validation fold for linear heads: standardized, and projected if there are more columns than rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..layers import Dense, Standardize
from ..training_data import TrainingData
from .eigen import decompose_symmetric
from .gram import compute_grams
from .row_space import RowSpace
from .scatter import ScatterMatrices
from .standardize import RowPartition, Statistics, standardize

_BLOCK = 1 << 24  # bytes of float32 in a block of rows
_CACHE_BYTES = 1 << 27  # memory for folds kept for the next head; or a quarter of the features' size
_GRAM_BYTES = 1 << 26  # memory for Gram matrices computed in one pass; or a quarter of the features' size


@dataclass(frozen=True)
class Moments:
    """Second and first moments of a fold's standardized fit rows, in float64.

    Parameters
    ----------
    scatter : ndarray of shape (r, r)
        Scatter matrix.
    sums : ndarray of shape (classes, r)
        Sum of the rows of each class.
    counts : ndarray of shape (classes,)
        Number of rows of each class.
    """

    scatter: np.ndarray
    sums: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to fit on and rows to score, standardized by the fit rows as scikit-learn's `StandardScaler` does.

    Parameters
    ----------
    data
        The training data that the fold is part of.
    fit_rows : ndarray of shape (m,)
        Row numbers.
    score_rows : ndarray of shape (s,)
        Row numbers.
    mean, scale : ndarray of shape (d,), float64
        The scaler.
    row_space
        The projection of the rows; None if they are not projected.
    """

    data: TrainingData
    fit_rows: np.ndarray
    score_rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    row_space: RowSpace | None = None
    _part_mask: np.ndarray | None = None
    _scatters: ScatterMatrices | None = field(default=None, repr=False)

    @property
    def labels(self) -> np.ndarray:
        """Class numbers (m,) of the fit rows."""
        return np.asarray(self.data.labels[self.fit_rows])

    @property
    def n_classes(self) -> int:
        """Number of classes, including those without fit rows."""
        return self.data.n_classes

    @property
    def n_columns(self) -> int:
        """Number of columns of a raw row, d."""
        return self.data.features.shape[1]

    @property
    def width(self) -> int:
        """Number of columns that heads use: d, or the rank of the fit rows if they are projected."""
        return self.n_columns if self.row_space is None else len(self.row_space.values)

    def iter_fit_blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (positions, rows (b, width) float32) of the fit rows."""
        return self._iter_blocks(self.fit_rows, None if self.row_space is None else self.row_space.fit_projection, size)

    def iter_score_blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (positions, rows (b, width) float32) of the rows to score."""
        return self._iter_blocks(self.score_rows, None if self.row_space is None else self.row_space.score_projection, size)

    def _iter_blocks(
        self, rows: np.ndarray, projected_rows: np.ndarray | None, size: int | None
    ) -> Iterator[tuple[slice, np.ndarray]]:
        size = size or max(256, _BLOCK // (4 * max(1, self.width)))
        if projected_rows is None:
            for positions, values in self.data.features.iter_blocks(rows, size):
                yield positions, standardize(values, self.mean, self.scale)
        else:
            for start in range(0, len(rows), size):
                yield slice(start, min(start + size, len(rows))), projected_rows[start : start + size]

    def compute_score_norms(self) -> np.ndarray:
        """Return the squared lengths (s,) of the rows to score, including their parts outside the row space."""
        if self.row_space is not None:
            return self.row_space.score_norms
        out = np.empty(len(self.score_rows))
        for positions, rows in self.iter_score_blocks():
            out[positions] = np.einsum("ij,ij->i", rows, rows)
        return out

    def compute_class_sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return class sums (classes, width) and counts (classes,) of the fit rows, without a scatter matrix."""
        sums, counts = np.zeros((self.n_classes, self.width)), np.bincount(self.labels, minlength=self.n_classes)
        for positions, rows in self.iter_fit_blocks():
            sums += np.eye(self.n_classes, dtype=np.float32)[self.labels[positions]].T @ rows
        return sums, counts.astype(np.float64)

    def compute_moments(self) -> Moments:
        """Return scatter matrix, class sums and class counts of the fit rows."""
        if self.row_space is not None:
            one_hot = np.eye(self.n_classes)[self.labels]
            return Moments(
                np.diag(self.row_space.values),
                one_hot.T @ self.row_space.fit_projection.astype(np.float64),
                one_hot.sum(axis=0),
            )
        assert self._scatters is not None
        assert self._part_mask is not None
        return Moments(*self._scatters.compute_moments(self._part_mask, self.mean, self.scale))

    @cached_property
    def eigendecomposition(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Eigenvalues (width,) of the scatter matrix, and eigenvectors as columns; None if these are the axes."""
        if self.row_space is not None:
            return self.row_space.values, None
        values, vectors = decompose_symmetric(self.compute_moments().scatter)
        return np.maximum(values, 0), vectors

    def compute_decisions(self, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return `rows @ weights + bias` (s, k) float32 for the rows to score; weights (width, k), bias (k,)."""
        decisions = np.empty((len(self.score_rows), len(bias)), np.float32)
        weights32 = weights.astype(np.float32)
        for positions, rows in self.iter_score_blocks():
            decisions[positions] = rows @ weights32 + bias.astype(np.float32)
        return decisions

    def to_dense_layer(self, weights: np.ndarray, bias: np.ndarray, activation: str = "softmax") -> Dense:
        """Return the layer for raw rows (n, d), given weights (width, k) and bias (k,) for the fold's rows.

        The scaler is folded in, and weights of projected rows become weights of columns, computed in blocks of columns.
        """
        out = np.empty((self.n_columns, len(bias)), np.float32)
        shift = bias.astype(np.float64)
        for column_slice, column_weights in self.iter_column_weights(weights):
            out[column_slice] = column_weights / self.scale[column_slice, None]
            shift -= self.mean[column_slice] @ out[column_slice].astype(np.float64)
        return Dense(out, shift.astype(np.float32), activation)

    def iter_column_weights(self, weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (columns, weights (columns, k) float64) for standardized rows, given weights (width, k) of the fold."""
        if self.row_space is None:
            yield slice(0, self.n_columns), np.asarray(weights, np.float64)
            return
        dual_weights = self.row_space.vectors @ (weights / np.sqrt(self.row_space.values)[:, None])
        for column_slice, values in self.data.features.iter_column_blocks(max(1, _BLOCK // (8 * len(self.data.labels)))):
            rows = (values[self.fit_rows] - self.mean[column_slice]) / self.scale[column_slice]
            yield column_slice, rows.T @ dual_weights

    def to_standardize_layer(self) -> Standardize:
        """Return the layer that standardizes raw rows (n, d)."""
        return Standardize(self.mean.astype(np.float32), (1 / self.scale).astype(np.float32))


def iter_folds(data: TrainingData, project: bool | None = None) -> Iterator[Fold]:
    """Build the folds of training data, in order; small ones stay in ``data.cache`` for the next head.

    Parameters
    ----------
    data
        Rows, labels and folds.
    project
        Whether rows are projected onto the row space of the fit rows; by default if there are more columns than rows.
    """
    count, width = data.features.shape
    project = width > count if project is None else project
    cache_key = "projected folds" if project else "folds"
    cached_folds: tuple[Fold, ...] | None = data.cache.get(cache_key)
    if cached_folds is not None:
        yield from cached_folds
        return
    fold_bytes = 12 * count * count if project else 16 * width * width
    is_cacheable = len(data.folds) * fold_bytes <= max(_CACHE_BYTES, data.features.nbytes // 4)
    new_folds = []
    for fold in _build_folds(
        data, [fit_rows for fit_rows, _ in data.folds], [score_rows for _, score_rows in data.folds], project
    ):
        if is_cacheable:
            new_folds.append(fold)
        yield fold
    if is_cacheable:
        data.cache[cache_key] = tuple(new_folds)


def fit_all_rows(data: TrainingData, project: bool | None = None) -> Fold:
    """Build a fold that fits on all rows and scores none; `project` as in `iter_folds`."""
    count, width = data.features.shape
    project = width > count if project is None else project
    (fold,) = _build_folds(data, [np.arange(len(data.labels))], [np.arange(0)], project)
    return fold


def _build_folds(
    data: TrainingData, fit_rows_per_fold: Sequence[np.ndarray], score_rows_per_fold: Sequence[np.ndarray], project: bool
) -> Iterator[Fold]:
    return (_build_projected_folds if project else _build_standardized_folds)(data, fit_rows_per_fold, score_rows_per_fold)


def _build_projected_folds(
    data: TrainingData, fit_rows_per_fold: Sequence[np.ndarray], score_rows_per_fold: Sequence[np.ndarray]
) -> Iterator[Fold]:
    folds_per_pass = max(1, max(_GRAM_BYTES, data.features.nbytes // 4) // (8 * len(data.labels) ** 2))
    for start in range(0, len(fit_rows_per_fold), folds_per_pass):
        fold_grams = compute_grams(data.features, fit_rows_per_fold[start : start + folds_per_pass], data.threads)
        scalers = [(gram.mean, gram.scale) for gram in fold_grams]
        for scaler, fit_rows, score_rows in zip(
            scalers, fit_rows_per_fold[start:], score_rows_per_fold[start:], strict=False
        ):
            yield Fold(data, fit_rows, score_rows, *scaler, RowSpace.from_gram(fold_grams.pop(0), fit_rows, score_rows))


def _build_standardized_folds(
    data: TrainingData, fit_rows_per_fold: Sequence[np.ndarray], score_rows_per_fold: Sequence[np.ndarray]
) -> Iterator[Fold]:
    features, partition = data.features, RowPartition.from_folds(len(data.labels), fit_rows_per_fold)
    size = max(256, _BLOCK // (4 * features.shape[1]))
    statistics: Statistics | None = None
    for positions, values in features.iter_blocks(None, size):
        blocks = [
            values[(rows[(rows >= positions.start) & (rows < positions.stop)] - positions.start)] for rows in partition.rows
        ]
        block_statistics = Statistics.from_blocks(blocks)
        statistics = block_statistics if statistics is None else statistics.merge(block_statistics)
    assert statistics is not None
    scatters = ScatterMatrices(features, data.labels, data.n_classes, partition, statistics)
    for fit_rows, score_rows, part_mask in zip(fit_rows_per_fold, score_rows_per_fold, partition.membership, strict=True):
        yield Fold(data, fit_rows, score_rows, *statistics.compute_scaler(part_mask), None, part_mask, scatters)
