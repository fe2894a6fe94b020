"""Linear support vector machines over a path of C: one class against the rest, squared hinge, all solved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..linear import regularization_path
from ..linear.losses import SquaredHinge
from ..linear.temperature import present, scored
from ..options import Numbers, Option, combinations
from ..training_data import Problem

OPTIONS: dict[str, Option] = {"C": Numbers((1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), least=1e-12, most=1e12)}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try, in order of C."""
    return combinations("svm", OPTIONS, options)


def cross_validate(
    problem: Problem,
    tried: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting, the decisions made probabilities by one temperature; see `temperature.scored`.

    The objective is that of scikit-learn's `LinearSVC`, but for its intercept, which liblinear penalises unless
    `intercept_scaling` is large: here it is not.
    """
    order = sorted(range(len(tried)), key=lambda place: tried[place]["C"])
    found = regularization_path.cross_validate(problem, SquaredHinge(), [tried[place]["C"] for place in order])
    counts = [np.bincount(problem.labels[rows], minlength=problem.classes) for rows, _ in problem.folds]
    scores: dict[int, Score] = {}
    for place, each in zip(order, found, strict=True):
        decisions = [present(_both(logits), count) for logits, count in zip(each.logits, counts, strict=True)]
        score = scored(problem, decisions, each.seconds)
        scores[place] = Score(**{**vars(score), "detail": {**score.detail, "converged": each.converged}})
    return [scores[place] for place in range(len(tried))]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],
    classes: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head fitted on all rows, with the scaler and the temperature of `detail` folded in."""
    fold, weights, bias = regularization_path.fit(problem, SquaredHinge(), setting["C"])
    times = 1 / detail["temperature"]
    return Head((fold.dense(times * _both(weights), times * _both(bias[None])[0]),), tuple(classes))


def _both(decisions: np.ndarray) -> np.ndarray:
    """Decisions (n, classes) of decisions (n, k), where k is 1 for two classes."""
    return decisions if decisions.shape[1] > 1 else np.hstack([-decisions, decisions])
