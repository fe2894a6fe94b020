"""Ridge classification over a path of alpha, scikit-learn's, all penalties from one eigendecomposition per fold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..linear.cv_fold import Fold, fit_all_rows, iter_folds
from ..linear.temperature import mask_absent_classes, score_decisions
from ..options import NumberOption, Option, expand_combinations
from ..training_data import TrainingData

OPTIONS: dict[str, Option] = {"alpha": NumberOption((1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7), exclusive=True)}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try, in order of alpha."""
    return expand_combinations("ridge", OPTIONS, options)


def cross_validate(
    data: TrainingData,
    hyperparameter_sets: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting; see `Solution` for the objective.

    The decisions are no probabilities: they become some by a softmax at one temperature for each setting, which moves the
    accuracy not. A fold is scored with the one that fits the other folds; the one for the fitted head is in `detail`. See
    `temperature.scored`.
    """
    start_time = time.perf_counter()
    decisions: list[list[np.ndarray]] = [[] for _ in hyperparameter_sets]
    for fold in iter_folds(data):
        solution = RidgeSolution.from_fold(fold)
        weights = [solution.compute_weights(hyperparameters["alpha"]) for hyperparameters in hyperparameter_sets]
        all_decisions = fold.compute_decisions(np.hstack(weights), np.tile(solution.bias, len(hyperparameter_sets)))
        for fold_decisions, alpha_decisions in zip(
            decisions, np.split(all_decisions, len(hyperparameter_sets), axis=1), strict=True
        ):
            fold_decisions.append(mask_absent_classes(alpha_decisions, solution.counts))
    seconds = (time.perf_counter() - start_time) / len(hyperparameter_sets)
    return [score_decisions(data, fold_decisions, seconds) for fold_decisions in decisions]


def fit(
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    fit_info: Mapping[str, Any],
    class_names: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head fitted on all rows, with the scaler and the temperature of `detail` folded in."""
    fold = fit_all_rows(data)
    solution = RidgeSolution.from_fold(fold)
    weights, bias = solution.compute_weights(hyperparameters["alpha"]), solution.bias
    return Head(
        (fold.to_dense_layer(weights / fit_info["temperature"], bias / fit_info["temperature"]),), tuple(class_names)
    )


class RidgeSolution:
    """The weights for every alpha: least `|y - x w - b|^2 + alpha |w|^2` for targets y of 1 for a row's class and -1 else.

    bias (classes,): the targets' mean, since the rows are centred. counts (classes,): rows of each class.
    """

    def __init__(self, values: np.ndarray, vectors: np.ndarray | None, sums: np.ndarray, counts: np.ndarray) -> None:
        products = 2 * sums.T  # (width, classes); the rows that count -1 add nothing, as all rows sum to 0
        self._values, self._vectors = values, vectors
        self._projected_products = products if vectors is None else vectors.T @ products
        self.counts, self.bias = counts, 2 * counts / counts.sum() - 1

    @classmethod
    def from_fold(cls, fold: Fold) -> RidgeSolution:
        """For the fit rows of a fold."""
        eigen = fold.eigendecomposition  # first: the scatter matrix that it takes apart is then in memory once
        moments = fold.compute_moments()
        return cls(*eigen, moments.sums, moments.counts)

    def compute_weights(self, alpha: float) -> np.ndarray:
        """Weights (width, classes)."""
        scaled_products = self._projected_products / (self._values + alpha)[:, None]
        return scaled_products if self._vectors is None else self._vectors @ scaled_products
