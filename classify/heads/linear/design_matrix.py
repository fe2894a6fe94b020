"""Products with the rows of several folds for the joint solver.

The rows are shared by all folds, or projected onto the row space of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.feature_matrix import FeatureMatrix
from .cv_fold import Fold
from .eigen import decompose_symmetric
from .standardize import standardize

_MAX_OFFSET = 50.0  # in standard deviations: farther from zero, products of raw rows lose too many digits
_ROWS_PER_COLUMN = 4  # rows per column for estimating the covariance, which is only a preconditioner
_MAX_FULL_EIGEN = 3000  # number of columns up to which all eigenvectors are computed
_N_LEADING = 512
_BLOCK = 1 << 24  # bytes of rows read or standardized at once


@dataclass(frozen=True)
class Basis:
    """An eigendecomposition of the rows' covariance, for preconditioning.

    Parameters
    ----------
    values : ndarray of shape (folds or 1, q)
        Variances along `vectors`.
    vectors : ndarray of shape (r, q) or None
        Eigenvectors as columns; None for the axes.
    residual_variance
        Mean variance along all other directions.
    """

    values: np.ndarray
    vectors: np.ndarray | None
    residual_variance: float = 0.0


class SharedDesign:
    """Rows (n, d) that are multiplied with the weights of all folds at once.

    Each fold standardizes by its own fit rows. This is an affine map of columns and can be applied to the weights
    instead: with scales s and means m, `((x - m) / s) w + b = x (w / s) + (b - m (w / s))`. So one product serves the
    weights of all folds and classes, without a standardized copy of the rows. Only if the mean of some column is many
    standard deviations from zero are the rows centered first: as a copy, or block by block if they are not held in
    memory.
    """

    def __init__(self, features: FeatureMatrix, folds: Sequence[Fold], threads: int = 1) -> None:
        self._threads, self._pool = threads, ThreadPoolExecutor(threads)
        self.width = features.shape[1]
        self.count = features.shape[0]
        self._features, self._first_fold = features, folds[0]
        center = np.mean([fold.mean for fold in folds], axis=0)
        needs_centering = max(float((np.abs(fold.mean) / fold.scale).max(initial=0)) for fold in folds) > _MAX_OFFSET
        self._center = center.astype(np.float32) if needs_centering else None
        self._rows = features.to_array() if features.fits_in_memory else None
        if self._rows is not None and self._center is not None:
            self._rows = self._rows - self._center
        offset = 0 if self._center is None else self._center.astype(np.float64)
        self._means = np.stack([fold.mean - offset for fold in folds])
        self._inverse_scales = np.stack([1 / fold.scale for fold in folds])

    def forward(self, weights: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return logits (folds, k, n) of weights (folds, k, d) for standardized rows of the folds `fold_ids`."""
        scaled = weights * self._inverse_scales[fold_ids, None, :].astype(np.float32)
        shift = (scaled @ self._means[fold_ids, :, None].astype(np.float32))[..., 0]
        columns = np.ascontiguousarray(scaled.reshape(-1, self.width).T)
        logits = np.empty((columns.shape[1], self.count), np.float32)

        def multiply_block(row_slice: slice, rows: np.ndarray) -> None:
            logits[:, row_slice] = (rows @ columns).T

        self._map_blocks(multiply_block)
        logits -= shift.reshape(-1, 1)
        return logits.reshape(*weights.shape[:2], self.count)

    def backward(self, residuals: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return `residuals (folds, k, n) @ standardized rows`, (folds, k, d)."""
        flat = residuals.reshape(-1, self.count)
        products = self._map_blocks(lambda row_slice, rows: flat[:, row_slice] @ rows)
        gradient = np.sum(products, axis=0).reshape(*residuals.shape[:2], self.width)
        sums = residuals.sum(axis=2, dtype=np.float64)
        gradient -= (sums[..., None] * self._means[fold_ids, None, :]).astype(np.float32)
        gradient *= self._inverse_scales[fold_ids, None, :].astype(np.float32)
        return np.asarray(gradient)

    def _map_blocks(self, work: Callable[[slice, np.ndarray], Any]) -> list[Any]:
        """Call `work` with (positions, rows) of every block; blocks are divided over threads, with one BLAS thread each."""
        if self._rows is None:
            blocks = self._features.iter_blocks(size=max(1, _BLOCK // (4 * self.width)))
            return [work(positions, self._center_rows(rows)) for positions, rows in blocks]
        bounds = np.linspace(0, self.count, self._threads + 1).astype(int)
        slices = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
        if len(slices) == 1:
            return [work(slices[0], self._rows)]
        rows = self._rows
        return list(self._pool.map(lambda row_slice: work(row_slice, rows[row_slice]), slices))

    def compute_basis(self) -> Basis:
        """Return the basis computed from a sample of the first fold's fit rows."""
        sample_size = _ROWS_PER_COLUMN * self.width if self.width <= _MAX_FULL_EIGEN else 4 * _N_LEADING
        sample_rows = self._first_fold.fit_rows[:: max(1, len(self._first_fold.fit_rows) // sample_size)]
        blocks = (
            (positions, standardize(values, self._first_fold.mean, self._first_fold.scale))
            for positions, values in self._features.iter_blocks(sample_rows, max(256, _BLOCK // (4 * self.width)))
        )
        if self.width <= _MAX_FULL_EIGEN:
            covariance = np.zeros((self.width, self.width), np.float32)
            for _, rows in blocks:
                covariance += rows.T @ rows
            covariance /= len(sample_rows)
            values, vectors = decompose_symmetric(covariance)
            return Basis(np.maximum(values, 0)[None], vectors)
        sample = np.empty((len(sample_rows), self.width), np.float32)
        for positions, rows in blocks:
            sample[positions] = rows
        from sklearn.utils.extmath import randomized_svd

        _, singular, leading = randomized_svd(sample, _N_LEADING, n_iter=3, random_state=0)
        variances = singular**2 / len(sample)
        total = float(np.vdot(sample, sample)) / len(sample)
        residual_variance = max(0.0, total - float(variances.sum())) / (self.width - _N_LEADING)
        return Basis(variances[None].astype(np.float32), np.ascontiguousarray(leading.T), residual_variance)

    def _center_rows(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._center is None else rows - self._center


class ProjectedDesign:
    """Rows (folds, n, r) projected onto the row space of each fold, padded with zeros to the highest rank r."""

    def __init__(self, count: int, folds: Sequence[Fold], threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads)
        row_spaces = [fold.row_space for fold in folds if fold.row_space is not None]
        self.count, self.width = count, max(len(row_space.values) for row_space in row_spaces)
        self._rows = np.zeros((len(folds), count, self.width), np.float32)
        self._values = np.zeros((len(folds), self.width))
        for index, (fold, row_space) in enumerate(zip(folds, row_spaces, strict=True)):
            rank = len(row_space.values)
            self._rows[index, fold.fit_rows, :rank] = row_space.fit_projection
            self._rows[index, fold.score_rows, :rank] = row_space.score_projection
            self._values[index, :rank] = row_space.values / len(fold.fit_rows)

    def forward(self, weights: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return logits (folds, k, n) of weights (folds, k, r) of the folds `fold_ids`."""
        return np.stack(
            list(self._pool.map(lambda fold_weights, fold: fold_weights @ self._rows[fold].T, weights, fold_ids))
        )

    def backward(self, residuals: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return products (folds, k, r) of residuals (folds, k, n) with the rows."""
        return np.stack(
            list(self._pool.map(lambda fold_residuals, fold: fold_residuals @ self._rows[fold], residuals, fold_ids))
        )

    def compute_basis(self) -> Basis:
        """Return the axes: projected rows are along the eigenvectors."""
        return Basis(self._values.astype(np.float32), None)
