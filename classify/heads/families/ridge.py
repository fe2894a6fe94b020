"""Ridge classification over a path of alpha, as scikit-learn's; all penalties share one eigendecomposition per fold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily, Regularization
from ..linear.cv_fold import fit_all_rows, iter_folds
from ..linear.ridge_solution import RidgeSolution
from ..linear.temperature import mask_absent_classes, score_decisions
from ..options import NumberOption, Option
from ..training_data import TrainingData


class RidgeClassifier(HeadFamily):
    """scikit-learn's `RidgeClassifier`; its decisions become probabilities by a temperature for each alpha.

    Options
    -------
    alpha
        Regularization strength; see `RidgeSolution` for the objective.
    """

    name = "ridge"
    title = "ridge regression"
    options: Mapping[str, Option] = {"alpha": NumberOption((1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7), exclusive=True)}
    regularization = Regularization("alpha")

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score every alpha.

        Decisions become probabilities by a softmax with one temperature for each alpha, which leaves accuracy unchanged.
        A fold is scored with the temperature fitted on the other folds; ``fit_info["temperature"]`` is the one for the
        final head. See `temperature.score_decisions`.
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
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Fit on all rows; the scaler and ``fit_info["temperature"]`` are folded into the weights."""
        fold = fit_all_rows(data)
        solution = RidgeSolution.from_fold(fold)
        weights, bias = solution.compute_weights(hyperparameters["alpha"]), solution.bias
        return Head(
            (fold.to_dense_layer(weights / fit_info["temperature"], bias / fit_info["temperature"]),),
            data.target.class_names,
        )
