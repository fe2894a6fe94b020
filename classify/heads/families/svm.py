"""Linear support vector machines over a path of C: one class against the rest, squared hinge, all solved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..linear import regularization_path
from ..linear.losses import SquaredHinge
from ..linear.temperature import mask_absent_classes, score_decisions
from ..options import NumberOption, Option, expand_combinations
from ..training_data import TrainingData

OPTIONS: dict[str, Option] = {"C": NumberOption((1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), minimum=1e-12, maximum=1e12)}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try, in order of C."""
    return expand_combinations("svm", OPTIONS, options)


def cross_validate(
    data: TrainingData,
    hyperparameter_sets: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting, the decisions made probabilities by one temperature; see `temperature.scored`.

    The objective is that of scikit-learn's `LinearSVC`, but for its intercept, which liblinear penalises unless
    `intercept_scaling` is large: here it is not.
    """
    order = sorted(range(len(hyperparameter_sets)), key=lambda index: hyperparameter_sets[index]["C"])
    results = regularization_path.cross_validate(data, SquaredHinge(), [hyperparameter_sets[index]["C"] for index in order])
    counts = [np.bincount(data.labels[rows], minlength=data.n_classes) for rows, _ in data.folds]
    scores: dict[int, Score] = {}
    for index, result in zip(order, results, strict=True):
        decisions = [
            mask_absent_classes(_expand_binary(logits), count) for logits, count in zip(result.logits, counts, strict=True)
        ]
        score = score_decisions(data, decisions, result.seconds)
        scores[index] = Score(**{**vars(score), "detail": {**score.detail, "converged": result.converged}})
    return [scores[index] for index in range(len(hyperparameter_sets))]


def fit(
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    fit_info: Mapping[str, Any],
    class_names: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head fitted on all rows, with the scaler and the temperature of `detail` folded in."""
    fold, weights, bias = regularization_path.fit(data, SquaredHinge(), hyperparameters["C"])
    factor = 1 / fit_info["temperature"]
    return Head(
        (fold.to_dense_layer(factor * _expand_binary(weights), factor * _expand_binary(bias[None])[0]),), tuple(class_names)
    )


def _expand_binary(decisions: np.ndarray) -> np.ndarray:
    """Decisions (n, classes) of decisions (n, k), where k is 1 for two classes."""
    return decisions if decisions.shape[1] > 1 else np.hstack([-decisions, decisions])
