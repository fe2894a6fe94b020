"""A fold as linear heads see it: standardised by its own fit rows and, of more columns than rows, turned into their span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..layers import Dense, Scale
from ..training_data import Problem
from .eigen import decomposed
from .gram import grams
from .row_space import Turn
from .scatter import Scatters
from .standardize import Parts, Statistics, standardised

_BLOCK = 1 << 24  # bytes of float32 in a block of rows
_KEPT = 1 << 27  # bytes of folds that are kept for the next head, or a quarter of the features'
_GRAMS = 1 << 26  # bytes of Gram matrices made in one pass, or a quarter of the features'


@dataclass(frozen=True)
class Moments:
    """scatter (r, r): products of a fold's centred, standardised fit rows. sums (classes, r); counts (classes,). float64."""

    scatter: np.ndarray
    sums: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to fit on and rows to score, standardised by the fit rows as scikit-learn's `StandardScaler` does it.

    fit_rows (m,), score_rows (s,): row numbers in the problem. mean, scale (d,): float64. turn: how rows were turned into
    the span of the fit rows; None where there are no more columns than rows in the problem.
    """

    problem: Problem
    fit_rows: np.ndarray
    score_rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    turn: Turn | None = None
    _member: np.ndarray | None = None
    _scatters: Scatters | None = field(default=None, repr=False)

    @property
    def labels(self) -> np.ndarray:
        """Class numbers (m,) of the fit rows."""
        return np.asarray(self.problem.labels[self.fit_rows])

    @property
    def classes(self) -> int:
        """How many classes there are, those without fit rows included."""
        return self.problem.classes

    @property
    def columns(self) -> int:
        """Columns of a row as it is cached, d."""
        return self.problem.features.shape[1]

    @property
    def width(self) -> int:
        """Columns of a row as heads see it: d, or the rank of the fit rows."""
        return self.columns if self.turn is None else len(self.turn.values)

    def fit_blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """(positions, rows (b, width) float32) of the fit rows."""
        return self._blocks(self.fit_rows, None if self.turn is None else self.turn.fit, size)

    def score_blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """(positions, rows (b, width) float32) of the rows to score."""
        return self._blocks(self.score_rows, None if self.turn is None else self.turn.score, size)

    def _blocks(self, rows: np.ndarray, held: np.ndarray | None, size: int | None) -> Iterator[tuple[slice, np.ndarray]]:
        size = size or max(256, _BLOCK // (4 * max(1, self.width)))
        if held is None:
            for places, values in self.problem.features.blocks(rows, size):
                yield places, standardised(values, self.mean, self.scale)
        else:
            for start in range(0, len(rows), size):
                yield slice(start, min(start + size, len(rows))), held[start : start + size]

    def score_norms(self) -> np.ndarray:
        """Squared lengths (s,) of the rows to score, what lies outside the span of the fit rows included."""
        if self.turn is not None:
            return self.turn.score_norms
        out = np.empty(len(self.score_rows))
        for places, rows in self.score_blocks():
            out[places] = np.einsum("ij,ij->i", rows, rows)
        return out

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Class sums (classes, width) of the fit rows, and their counts (classes,), without a scatter matrix."""
        sums, counts = np.zeros((self.classes, self.width)), np.bincount(self.labels, minlength=self.classes)
        for places, rows in self.fit_blocks():
            sums += np.eye(self.classes, dtype=np.float32)[self.labels[places]].T @ rows
        return sums, counts.astype(np.float64)

    def moments(self) -> Moments:
        """Scatter matrix, class sums and class counts of the fit rows."""
        if self.turn is not None:
            of = np.eye(self.classes)[self.labels]
            return Moments(np.diag(self.turn.values), of.T @ self.turn.fit.astype(np.float64), of.sum(axis=0))
        assert self._scatters is not None
        assert self._member is not None
        return Moments(*self._scatters.moments(self._member, self.mean, self.scale))

    @cached_property
    def eigen(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Eigenvalues (width,) of the scatter matrix, and its eigenvectors as columns: None where they are the axes."""
        if self.turn is not None:
            return self.turn.values, None
        values, vectors = decomposed(self.moments().scatter)
        return np.maximum(values, 0), vectors

    def answers(self, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """`rows @ weights + bias` (s, k) float32 of the rows to score; weights (width, k), bias (k,)."""
        out = np.empty((len(self.score_rows), len(bias)), np.float32)
        small = weights.astype(np.float32)
        for places, rows in self.score_blocks():
            out[places] = rows @ small + bias.astype(np.float32)
        return out

    def dense(self, weights: np.ndarray, bias: np.ndarray, activation: str = "softmax") -> Dense:
        """The layer for raw rows (n, d) that answers as weights (width, k) and bias (k,) do for rows as heads see them.

        The scaler is folded in, and the weights are turned back a block of columns at a time.
        """
        out = np.empty((self.columns, len(bias)), np.float32)
        shift = bias.astype(np.float64)
        for here, back in self.back(weights):
            out[here] = back / self.scale[here, None]
            shift -= self.mean[here] @ out[here].astype(np.float64)
        return Dense(out, shift.astype(np.float32), activation)

    def back(self, weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """(columns, weights (columns, k) float64) for standardised rows in all columns, of weights (width, k)."""
        if self.turn is None:
            yield slice(0, self.columns), np.asarray(weights, np.float64)
            return
        turned = self.turn.vectors @ (weights / np.sqrt(self.turn.values)[:, None])
        for here, values in self.problem.features.column_blocks(max(1, _BLOCK // (8 * len(self.problem.labels)))):
            rows = (values[self.fit_rows] - self.mean[here]) / self.scale[here]
            yield here, rows.T @ turned

    def scaler(self) -> Scale:
        """The layer that standardises raw rows (n, d)."""
        return Scale(self.mean.astype(np.float32), (1 / self.scale).astype(np.float32))


def folds(problem: Problem, turned: bool | None = None) -> Iterator[Fold]:
    """The folds of a problem, in order. Those that are small beside the features are kept for the next head.

    turned: whether rows are turned into the span of those fitted on; where there are more columns than rows unless given.
    """
    count, width = problem.features.shape
    turned = width > count if turned is None else turned
    name = "turned folds" if turned else "folds"
    kept: tuple[Fold, ...] | None = problem.memo.get(name)
    if kept is not None:
        yield from kept
        return
    each = 12 * count * count if turned else 16 * width * width
    keep = len(problem.folds) * each <= max(_KEPT, problem.features.nbytes // 4)
    made = []
    for fold in _made(problem, [fit for fit, _ in problem.folds], [score for _, score in problem.folds], turned):
        if keep:
            made.append(fold)
        yield fold
    if keep:
        problem.memo[name] = tuple(made)


def whole(problem: Problem, turned: bool | None = None) -> Fold:
    """All rows to fit on, and none to score; `turned` as in `folds`."""
    count, width = problem.features.shape
    turned = width > count if turned is None else turned
    (fold,) = _made(problem, [np.arange(len(problem.labels))], [np.arange(0)], turned)
    return fold


def _made(problem: Problem, fits: Sequence[np.ndarray], scores: Sequence[np.ndarray], turned: bool) -> Iterator[Fold]:
    return (_turned if turned else _plain)(problem, fits, scores)


def _turned(problem: Problem, fits: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> Iterator[Fold]:
    together = max(1, max(_GRAMS, problem.features.nbytes // 4) // (8 * len(problem.labels) ** 2))
    for start in range(0, len(fits), together):
        made = grams(problem.features, fits[start : start + together], problem.threads)
        scalers = [(gram.mean, gram.scale) for gram in made]
        for scaler, fit, score in zip(scalers, fits[start:], scores[start:], strict=False):
            yield Fold(problem, fit, score, *scaler, Turn.of(made.pop(0), fit, score))


def _plain(problem: Problem, fits: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> Iterator[Fold]:
    features, parts = problem.features, Parts.of(len(problem.labels), fits)
    size = max(256, _BLOCK // (4 * features.shape[1]))
    statistics: Statistics | None = None
    for places, values in features.blocks(None, size):
        blocks = [values[(rows[(rows >= places.start) & (rows < places.stop)] - places.start)] for rows in parts.rows]
        found = Statistics.of(blocks)
        statistics = found if statistics is None else statistics.joined(found)
    assert statistics is not None
    scatters = Scatters(features, problem.labels, problem.classes, parts, statistics)
    for fit, score, member in zip(fits, scores, parts.member, strict=True):
        yield Fold(problem, fit, score, *statistics.scaler(member), None, member, scatters)
