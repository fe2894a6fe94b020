"""The rows of several folds as the joint solver multiplies them: shared by all folds, or each fold's own turned rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.feature_matrix import Matrix
from .cv_fold import Fold
from .eigen import decomposed
from .standardize import standardised

_OFF_CENTRE = 50.0  # deviations: products of raw rows whose means lie farther from zero than this lose too many digits
_SAMPLED = 4  # rows for each column that the covariance is taken from: it only has to be near
_WHOLE = 3000  # columns up to which all eigenvectors are computed
_LEADING = 512
_BLOCK = 1 << 24  # bytes of rows read or standardised at once


@dataclass(frozen=True)
class Basis:
    """Directions in which rows vary, to precondition with: an eigendecomposition of their covariance.

    values (folds or 1, q): variances along `vectors` (r, q), or along the axes where that is None. rest: the mean variance
    along everything else.
    """

    values: np.ndarray
    vectors: np.ndarray | None
    rest: float = 0.0


class Shared:
    """Rows (n, d) that every fold multiplies at once.

    Each fold standardises by its own rows (an affine map of columns), which is moved from the rows to the weights: with
    scales s and means m, `((x - m) / s) w + b = x (w / s) + (b - m (w / s))`. So one product serves the weights of all folds
    and all classes, and no standardised copy is made. Only where some column's mean lies many deviations from zero are rows
    centred first: a copy, or block by block where they are not held in memory.
    """

    def __init__(self, features: Matrix, folds: Sequence[Fold], threads: int = 1) -> None:
        self._threads, self._pool = threads, ThreadPoolExecutor(threads)
        self.width = features.shape[1]
        self.count = features.shape[0]
        self._features, self._first = features, folds[0]
        centre = np.mean([fold.mean for fold in folds], axis=0)
        far = max(float((np.abs(fold.mean) / fold.scale).max(initial=0)) for fold in folds) > _OFF_CENTRE
        self._centre = centre.astype(np.float32) if far else None
        self._rows = features.array() if features.held else None
        if self._rows is not None and self._centre is not None:
            self._rows = self._rows - self._centre
        left = 0 if self._centre is None else self._centre.astype(np.float64)
        self._means = np.stack([fold.mean - left for fold in folds])
        self._inverse = np.stack([1 / fold.scale for fold in folds])

    def forward(self, weights: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Logits (folds, k, n) of weights (folds, k, d) for standardised rows; `which`: the numbers of those folds."""
        scaled = weights * self._inverse[which, None, :].astype(np.float32)
        shift = (scaled @ self._means[which, :, None].astype(np.float32))[..., 0]
        columns = np.ascontiguousarray(scaled.reshape(-1, self.width).T)
        out = np.empty((columns.shape[1], self.count), np.float32)

        def work(here: slice, rows: np.ndarray) -> None:
            out[:, here] = (rows @ columns).T

        self._each(work)
        out -= shift.reshape(-1, 1)
        return out.reshape(*weights.shape[:2], self.count)

    def backward(self, residuals: np.ndarray, which: np.ndarray) -> np.ndarray:
        """`residuals (folds, k, n) @ standardised rows`, (folds, k, d)."""
        flat = residuals.reshape(-1, self.count)
        parts = self._each(lambda here, rows: flat[:, here] @ rows)
        out = np.sum(parts, axis=0).reshape(*residuals.shape[:2], self.width)
        sums = residuals.sum(axis=2, dtype=np.float64)
        out -= (sums[..., None] * self._means[which, None, :]).astype(np.float32)
        out *= self._inverse[which, None, :].astype(np.float32)
        return np.asarray(out)

    def _each(self, work: Callable[[slice, np.ndarray], Any]) -> list[Any]:
        """What `work` gives for (positions, rows) of every part of the rows.

        Each thread multiplies rows of its own, on one thread of BLAS's (see `linear`).
        """
        if self._rows is None:
            blocks = self._features.blocks(size=max(1, _BLOCK // (4 * self.width)))
            return [work(places, self._near(rows)) for places, rows in blocks]
        ends = np.linspace(0, self.count, self._threads + 1).astype(int)
        parts = [slice(start, stop) for start, stop in itertools.pairwise(ends)]
        if len(parts) == 1:
            return [work(parts[0], self._rows)]
        rows = self._rows
        return list(self._pool.map(lambda here: work(here, rows[here]), parts))

    def basis(self) -> Basis:
        """From a sample of the rows that the first fold fits on."""
        enough = _SAMPLED * self.width if self.width <= _WHOLE else 4 * _LEADING
        chosen = self._first.fit_rows[:: max(1, len(self._first.fit_rows) // enough)]
        blocks = (
            (places, standardised(values, self._first.mean, self._first.scale))
            for places, values in self._features.blocks(chosen, max(256, _BLOCK // (4 * self.width)))
        )
        if self.width <= _WHOLE:
            covariance = np.zeros((self.width, self.width), np.float32)
            for _, rows in blocks:
                covariance += rows.T @ rows
            covariance /= len(chosen)
            values, vectors = decomposed(covariance)
            return Basis(np.maximum(values, 0)[None], vectors)
        sample = np.empty((len(chosen), self.width), np.float32)
        for places, rows in blocks:
            sample[places] = rows
        from sklearn.utils.extmath import randomized_svd

        _, singular, leading = randomized_svd(sample, _LEADING, n_iter=3, random_state=0)
        variances = singular**2 / len(sample)
        total = float(np.vdot(sample, sample)) / len(sample)
        rest = max(0.0, total - float(variances.sum())) / (self.width - _LEADING)
        return Basis(variances[None].astype(np.float32), np.ascontiguousarray(leading.T), rest)

    def _near(self, rows: np.ndarray) -> np.ndarray:
        return rows if self._centre is None else rows - self._centre


class Turned:
    """Rows that each fold has turned into the span of those it fits on, side by side: (folds, n, r), short ones padded."""

    def __init__(self, count: int, folds: Sequence[Fold], threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads)
        turns = [fold.turn for fold in folds if fold.turn is not None]
        self.count, self.width = count, max(len(turn.values) for turn in turns)
        self._rows = np.zeros((len(folds), count, self.width), np.float32)
        self._values = np.zeros((len(folds), self.width))
        for number, (fold, turn) in enumerate(zip(folds, turns, strict=True)):
            rank = len(turn.values)
            self._rows[number, fold.fit_rows, :rank] = turn.fit
            self._rows[number, fold.score_rows, :rank] = turn.score
            self._values[number, :rank] = turn.values / len(fold.fit_rows)

    def forward(self, weights: np.ndarray, which: np.ndarray) -> np.ndarray:
        """As `Shared.forward`, of weights (folds, k, r)."""
        return np.stack(list(self._pool.map(lambda own, fold: own @ self._rows[fold].T, weights, which)))

    def backward(self, residuals: np.ndarray, which: np.ndarray) -> np.ndarray:
        """As `Shared.backward`."""
        return np.stack(list(self._pool.map(lambda own, fold: own @ self._rows[fold], residuals, which)))

    def basis(self) -> Basis:
        """The axes."""
        return Basis(self._values.astype(np.float32), None)
