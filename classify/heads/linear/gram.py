"""Gram matrices of standardized rows with more columns than rows, for all folds in one pass over blocks of columns."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...data.feature_matrix import FeatureMatrix
from .standardize import RowPartition, Statistics

_READ = 1 << 24  # bytes of float32 that a thread reads at once
_COLUMNS = 2048  # per product: keeps float32 sums short
_FLOAT64_RATIO = 4  # with fewer columns per row, products are in float64, since the smallest eigenvalues may matter


@dataclass(frozen=True)
class Gram:
    """Inner products of all rows, standardized by a fold's scaler.

    Parameters
    ----------
    products : ndarray of shape (n, n), float64
        Not exactly centered: the mean was rounded to float32.
    mean, scale : ndarray of shape (d,)
        The scaler.
    noise
        Bound on the rounding error of a product, relative to the largest product.
    """

    products: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    noise: float


def compute_grams(features: FeatureMatrix, fit_rows_per_fold: Sequence[np.ndarray], threads: int) -> list[Gram]:
    """Compute each fold's Gram matrix, with only one block of features per worker in memory.

    Each worker also holds one matrix of products; the number of workers is limited so that these take at most an eighth
    of the features' size.
    """
    from threadpoolctl import threadpool_limits

    count, width = features.shape
    partition, dtype = (
        RowPartition.from_folds(count, fit_rows_per_fold),
        np.float64 if width < _FLOAT64_RATIO * count else np.float32,
    )
    products = [np.zeros((count, count)) for _ in fit_rows_per_fold]
    means, scales = np.empty((len(fit_rows_per_fold), width)), np.empty((len(fit_rows_per_fold), width))
    locks = [threading.Lock() for _ in fit_rows_per_fold]
    step = max(1, _READ // (4 * count * _COLUMNS)) * _COLUMNS
    n_workers = max(1, min(threads, width * 4 // (8 * count * np.dtype(dtype).itemsize)))

    def add_columns(start: int) -> None:
        block = features.read_columns(start, min(start + step, width))
        for first in range(0, block.shape[1], _COLUMNS):
            values = np.ascontiguousarray(block[:, first : first + _COLUMNS])
            column_slice = slice(start + first, start + first + values.shape[1])
            statistics = Statistics.from_blocks([values[rows] for rows in partition.rows])
            standardized = np.empty(values.shape, dtype)
            for fold_index, part_mask in enumerate(partition.membership):
                means[fold_index, column_slice], scales[fold_index, column_slice] = mean, scale = statistics.compute_scaler(
                    part_mask
                )
                np.subtract(values, mean.astype(np.float32), out=standardized)
                standardized *= (1 / scale).astype(dtype)
                product = standardized @ standardized.T
                with locks[fold_index]:
                    products[fold_index] += product

    with threadpool_limits(max(1, threads // n_workers)), ThreadPoolExecutor(n_workers) as pool:
        list(pool.map(add_columns, range(0, width, step)))
    noise = float(np.finfo(dtype).eps)
    return [Gram(*fold_arrays, noise) for fold_arrays in zip(products, means, scales, strict=True)]
