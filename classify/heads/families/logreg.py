"""Logistic regression over a path of C, scikit-learn's, standardised inside each fold; all folds and C solved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..linear import regularization_path
from ..linear.losses import Logistic, Loss, Multinomial
from ..linear.temperature import softmax
from ..options import Numbers, Option, combinations
from ..training_data import Problem

# Inverse regularisation strengths, weakest fit first, so that each solution starts the next.
OPTIONS: dict[str, Option] = {"C": Numbers((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), least=1e-12, most=1e12)}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try, in order of C: `C` is a number, or `a/b/c` for several; the whole path by default."""
    return combinations("logreg", OPTIONS, options)


def cross_validate(
    problem: Problem,
    tried: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting, whether every fold converged in `detail`; see `solver` for how they are found."""
    order = sorted(range(len(tried)), key=lambda place: tried[place]["C"])
    found = regularization_path.cross_validate(problem, _loss(problem), [tried[place]["C"] for place in order])
    scores: dict[int, Score] = {}
    for place, each in zip(order, found, strict=True):
        answers = [softmax(_both(logits).astype(np.float64)) for logits in each.logits]
        scores[place] = problem.score(answers, each.seconds, {"converged": each.converged})
    return [scores[place] for place in range(len(tried))]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],  # noqa: ARG001 - every family's `fit` takes what its `cross_validate` kept
    classes: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head fitted on all rows, with the scaler folded in."""
    fold, weights, bias = regularization_path.fit(problem, _loss(problem), setting["C"])
    return Head((fold.dense(_both(weights), _both(bias[None])[0]),), tuple(classes))


def _loss(problem: Problem) -> Loss:
    return Logistic() if problem.classes == 2 else Multinomial()


def _both(logits: np.ndarray) -> np.ndarray:
    """Logits (n, classes) of logits (n, k), where k is 1 for two classes: `softmax([-z/2, z/2])` is `[1 - s(z), s(z)]`."""
    return logits if logits.shape[1] > 1 else np.hstack([-logits / 2, logits / 2])
