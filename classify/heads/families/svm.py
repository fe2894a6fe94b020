"""Linear support vector machines over a path of C: one-vs-rest, squared hinge, all solved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily, Regularization
from ..linear import regularization_path
from ..linear.losses import SquaredHinge
from ..linear.temperature import mask_absent_classes, score_decisions
from ..options import NumberOption, Option
from ..training_data import TrainingData


class LinearSVM(HeadFamily):
    """scikit-learn's `LinearSVC`; its decisions become probabilities by a temperature for each C.

    The intercept is not penalized; liblinear penalizes it unless `intercept_scaling` is large.

    Options
    -------
    C
        Inverse regularization strength.
    """

    name = "svm"
    title = "a linear support vector machine"
    options: Mapping[str, Option] = {"C": NumberOption((1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), minimum=1e-12, maximum=1e12)}
    regularization = Regularization("C", is_inverse=True)

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score every C; see `temperature.score_decisions`. ``fit_info["converged"]`` says whether every fold converged."""
        order = sorted(range(len(hyperparameter_sets)), key=lambda index: hyperparameter_sets[index]["C"])
        results = regularization_path.cross_validate(
            data, SquaredHinge(), [hyperparameter_sets[index]["C"] for index in order]
        )
        counts = [np.bincount(data.labels[rows], minlength=data.n_classes) for rows, _ in data.folds]
        scores: dict[int, Score] = {}
        for index, result in zip(order, results, strict=True):
            decisions = [
                mask_absent_classes(_expand_binary(logits), count)
                for logits, count in zip(result.logits, counts, strict=True)
            ]
            score = score_decisions(data, decisions, result.seconds)
            scores[index] = Score(**{**vars(score), "fit_info": {**score.fit_info, "converged": result.converged}})
        return [scores[index] for index in range(len(hyperparameter_sets))]

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Fit on all rows; the scaler and ``fit_info["temperature"]`` are folded into the weights."""
        fold, weights, bias = regularization_path.fit(data, SquaredHinge(), hyperparameters["C"])
        factor = 1 / fit_info["temperature"]
        return Head(
            (fold.to_dense_layer(factor * _expand_binary(weights), factor * _expand_binary(bias[None])[0]),),
            data.target.class_names,
        )


def _expand_binary(decisions: np.ndarray) -> np.ndarray:
    """Return decisions (n, classes) for decisions (n, k); k is 1 for two classes."""
    return decisions if decisions.shape[1] > 1 else np.hstack([-decisions, decisions])
