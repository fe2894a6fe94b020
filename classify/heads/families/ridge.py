"""Ridge classification over a path of alpha, scikit-learn's, all penalties from one eigendecomposition per fold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..linear.cv_fold import Fold, folds, whole
from ..linear.temperature import present, scored
from ..options import Numbers, Option, combinations
from ..training_data import Problem

OPTIONS: dict[str, Option] = {"alpha": Numbers((1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7), open=True)}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try, in order of alpha."""
    return combinations("ridge", OPTIONS, options)


def cross_validate(
    problem: Problem,
    tried: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting; see `Solution` for the objective.

    The decisions are no probabilities: they become some by a softmax at one temperature for each setting, which moves the
    accuracy not. A fold is scored with the one that fits the other folds; the one for the fitted head is in `detail`. See
    `temperature.scored`.
    """
    began = time.perf_counter()
    decisions: list[list[np.ndarray]] = [[] for _ in tried]
    for fold in folds(problem):
        solution = Solution.of(fold)
        weights = [solution.weights(setting["alpha"]) for setting in tried]
        answers = fold.answers(np.hstack(weights), np.tile(solution.bias, len(tried)))
        for each, found in zip(decisions, np.split(answers, len(tried), axis=1), strict=True):
            each.append(present(found, solution.counts))
    seconds = (time.perf_counter() - began) / len(tried)
    return [scored(problem, each, seconds) for each in decisions]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],
    classes: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head fitted on all rows, with the scaler and the temperature of `detail` folded in."""
    fold = whole(problem)
    solution = Solution.of(fold)
    weights, bias = solution.weights(setting["alpha"]), solution.bias
    return Head((fold.dense(weights / detail["temperature"], bias / detail["temperature"]),), tuple(classes))


class Solution:
    """The weights for every alpha: least `|y - x w - b|^2 + alpha |w|^2` for targets y of 1 for a row's class and -1 else.

    bias (classes,): the targets' mean, since the rows are centred. counts (classes,): rows of each class.
    """

    def __init__(self, values: np.ndarray, vectors: np.ndarray | None, sums: np.ndarray, counts: np.ndarray) -> None:
        products = 2 * sums.T  # (width, classes); the rows that count -1 add nothing, as all rows sum to 0
        self._values, self._vectors = values, vectors
        self._along = products if vectors is None else vectors.T @ products
        self.counts, self.bias = counts, 2 * counts / counts.sum() - 1

    @classmethod
    def of(cls, fold: Fold) -> Solution:
        """For the fit rows of a fold."""
        eigen = fold.eigen  # first: the scatter matrix that it takes apart is then in memory once
        moments = fold.moments()
        return cls(*eigen, moments.sums, moments.counts)

    def weights(self, alpha: float) -> np.ndarray:
        """Weights (width, classes)."""
        along = self._along / (self._values + alpha)[:, None]
        return along if self._vectors is None else self._vectors @ along
