"""Gram matrices of standardised rows with more columns than rows, for all folds from one pass over blocks of columns."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...data.feature_matrix import Matrix
from .standardize import Parts, Statistics

_READ = 1 << 24  # bytes of float32 that a thread reads at once
_COLUMNS = 2048  # in one product: short float32 sums
_EXACT = 4  # times as many columns as rows, below which products are in float64: the least eigenvalues may matter there


@dataclass(frozen=True)
class Gram:
    """Products (n, n) float64 of all rows, standardised by a fold's mean and scale (d,), but not yet centred.

    noise: what rounding may add to a product, relative to the largest.
    """

    products: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    noise: float


def grams(features: Matrix, fits: Sequence[np.ndarray], threads: int) -> list[Gram]:
    """The Gram matrix for the rows that each fold fits on; never more of the features in memory than a block per worker.

    Each worker has a product of its own: there are so few that these take no more than an eighth of the features.
    """
    from threadpoolctl import threadpool_limits

    count, width = features.shape
    parts, dtype = Parts.of(count, fits), np.float64 if width < _EXACT * count else np.float32
    products = [np.zeros((count, count)) for _ in fits]
    means, scales = np.empty((len(fits), width)), np.empty((len(fits), width))
    locks = [threading.Lock() for _ in fits]
    step = max(1, _READ // (4 * count * _COLUMNS)) * _COLUMNS
    workers = max(1, min(threads, width * 4 // (8 * count * np.dtype(dtype).itemsize)))

    def add(start: int) -> None:
        block = features.columns(start, min(start + step, width))
        for first in range(0, block.shape[1], _COLUMNS):
            values = np.ascontiguousarray(block[:, first : first + _COLUMNS])
            here = slice(start + first, start + first + values.shape[1])
            statistics = Statistics.of([values[rows] for rows in parts.rows])
            turned = np.empty(values.shape, dtype)
            for fold, member in enumerate(parts.member):
                means[fold, here], scales[fold, here] = mean, scale = statistics.scaler(member)
                np.subtract(values, mean.astype(np.float32), out=turned)
                turned *= (1 / scale).astype(dtype)
                product = turned @ turned.T
                with locks[fold]:
                    products[fold] += product

    with threadpool_limits(max(1, threads // workers)), ThreadPoolExecutor(workers) as pool:
        list(pool.map(add, range(0, width, step)))
    noise = float(np.finfo(dtype).eps)
    return [Gram(*each, noise) for each in zip(products, means, scales, strict=True)]
