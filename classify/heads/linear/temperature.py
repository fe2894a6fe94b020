"""Probabilities for decisions that are none: one temperature, by the log-loss of decisions on rows held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...evaluate.trial import Score
from ..training_data import Problem

_LEAST, _MOST = np.log(1e-4), np.log(1e4)  # of the factor, where decisions spread by 1 on average
_POINTS = 401  # between them; a slope is taken to be straight from one to the next, 5 % on


def softmax(decisions: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes); NaN where a decision is NaN or infinite, which `Problem.score` takes to know nothing."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(decisions - decisions.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def scored(problem: Problem, decisions: Sequence[np.ndarray], seconds: float) -> Score:
    """The score of decisions (rows to score, classes) for each fold.

    Those of a fold are divided by the temperature that fits the other folds, so that no row is scored with one fitted on it;
    of a single fold, each half of its images by that of the other. `detail` keeps the temperature that fits all of them, for
    the head that is fitted on all rows. Decisions that are not finite are taken to tell nothing.
    """
    rows = np.concatenate(decisions).astype(np.float64)
    rows[~np.isfinite(rows).all(axis=1)] = 0
    labels = np.concatenate([problem.labels[held_out] for _, held_out in problem.folds])
    lengths = [len(held_out) for _, held_out in problem.folds]
    if len(lengths) > 1:
        parts = np.repeat(np.arange(len(lengths)), lengths)
    else:
        parts = halves(labels, problem.images[problem.folds[0][1]])
    all_rows, others = factors(rows, labels, parts)
    answers = softmax(others[parts][:, None] * rows)
    return problem.score(np.split(answers, np.cumsum(lengths)[:-1]), seconds, {"temperature": 1 / all_rows})


def present(decisions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The decisions (n, classes), where a class without rows to fit on is no better than the worst of the others."""
    least = decisions[:, counts > 0].min(axis=1, keepdims=True)
    return np.asarray(np.where(counts > 0, decisions, least))


def halves(labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The half, 0 or 1, of each row (n,): images of a class take turns, in their order, and views stay with their image."""
    _, first, places = np.unique(images, return_index=True, return_inverse=True)
    half = np.empty(len(first), np.intp)
    half[np.argsort(labels[first], kind="stable")] = np.arange(len(first)) % 2
    return half[places]


def factors(decisions: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> tuple[float, np.ndarray]:
    """The factor (one over the temperature) that decisions (n, classes) are multiplied by before a softmax.

    labels (n,); parts (n,): from 0 on. It is that of all rows, and for each part (parts,) that of the rows of all others, or
    of its own where there are no others. It changes no order.

    It has the least mean cross-entropy on rows that the decisions were not fitted to, which is convex in it (Guo, Pleiss,
    Sun, Weinberger: On calibration of modern neural networks, ICML 2017, arXiv:1706.04599). Rows that are all right would
    have it without bound, so that labels are smoothed as Platt smooths those of two classes (Probabilistic outputs for
    support vector machines, 1999): a row's own class has the target (n + 1) / (n + 2), where n rows are of that class, and
    the other has the rest. Among k classes the rest is 2 / k of that, since they share one factor: about two rows in all
    count as lost, as for two. The rest goes to the greatest of the other decisions, so that far classes ask for nothing.
    Where no factor above 0 is better than any other, as for decisions that tell nothing, it is next to 0.
    """
    sums = _Sums(decisions.astype(np.float64), labels, parts)
    every = np.ones(sums.count, bool)
    others = [sums.factor(every if sums.count == 1 else np.arange(sums.count) != part) for part in range(sums.count)]
    return sums.factor(every), np.array(others)


class _Sums:
    """What the slope of the loss is made of, for each part of the rows, so that parts put together need no rows again."""

    def __init__(self, decisions: np.ndarray, labels: np.ndarray, parts: np.ndarray) -> None:
        self.count = int(parts.max()) + 1
        self._parts, self._below = parts, decisions - decisions.max(axis=1, keepdims=True)
        numbers, shape = np.arange(len(labels)), (self.count, decisions.shape[1])
        own = self._below[numbers, labels]
        rivals = self._below.copy()
        rivals[numbers, labels] = -np.inf
        self._own, self._lost, self._rows = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for sums, values in ((self._own, own), (self._lost, rivals.max(axis=1) - own), (self._rows, 1)):
            np.add.at(sums, (parts, labels), values)
        self._scale = float(-self._below.mean()) or 1.0
        self._slopes: dict[int, np.ndarray] = {}

    def factor(self, chosen: np.ndarray) -> float:
        """Where the slope of the loss of the chosen parts is 0."""
        rows = self._rows[chosen].sum(axis=0)
        weights = 2 / len(rows) / (rows + 2)
        own = float((self._own[chosen].sum(axis=0) + weights * self._lost[chosen].sum(axis=0)).sum())

        def slope(point: int) -> float:
            return float(self._mean(point)[chosen].sum()) - own

        low, high = 0, _POINTS - 1
        if slope(low) >= 0:
            return self._times(low)
        if slope(high) <= 0:
            return self._times(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        return self._times(low + slope(low) / (slope(low) - slope(high)))

    def _mean(self, point: int) -> np.ndarray:
        """Of each part, the sum of its decisions' means under the softmax at a factor."""
        if point not in self._slopes:
            powers = np.exp(self._times(point) * self._below)
            means = np.einsum("ij,ij->i", powers, self._below) / powers.sum(axis=1)
            self._slopes[point] = np.bincount(self._parts, means, self.count)
        return self._slopes[point]

    def _times(self, point: float) -> float:
        return float(np.exp(_LEAST + (_MOST - _LEAST) * point / (_POINTS - 1)) / self._scale)
