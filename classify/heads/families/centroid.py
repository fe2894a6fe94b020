"""The nearest class centroid, scikit-learn's `NearestCentroid` with equal priors, of standardised rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..layers import Dense, Unit
from ..linear.cv_fold import Fold, folds, whole
from ..linear.temperature import present, scored
from ..options import Option, Words, combinations
from ..training_data import Problem

OPTIONS: dict[str, Option] = {"metric": Words(("euclidean", "cosine"), ("euclidean", "cosine"))}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try."""
    return combinations("centroid", OPTIONS, options)


def cross_validate(
    problem: Problem,
    tried: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting; probabilities by one temperature for each, see `temperature.scored`.

    euclidean: `x m - |m|^2 / 2` for each centroid m, which orders classes as the distances do; cosine: `x m / |x| |m|`.
    """
    began = time.perf_counter()
    decisions: list[list[np.ndarray]] = [[] for _ in tried]
    for fold in folds(problem):
        counts = np.bincount(fold.labels, minlength=fold.classes)
        for each, setting in zip(decisions, tried, strict=True):
            found = fold.answers(*_centroids(fold, setting["metric"]))
            if setting["metric"] == "cosine":
                found /= np.maximum(np.sqrt(fold.score_norms()), 1e-12)[:, None]
            each.append(present(found, counts))
    seconds = (time.perf_counter() - began) / len(tried)
    return [scored(problem, each, seconds) for each in decisions]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],
    classes: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head of all rows, with the temperature of `detail` folded in."""
    fold = whole(problem)
    weights, bias = (values / detail["temperature"] for values in _centroids(fold, setting["metric"]))
    if setting["metric"] == "euclidean":
        return Head((fold.dense(weights, bias),), tuple(classes))
    turned = np.empty((fold.columns, len(bias)), np.float32)
    for here, back in fold.back(weights):
        turned[here] = back
    return Head((fold.scaler(), Unit(), Dense(turned, bias.astype(np.float32), "softmax")), tuple(classes))


def _centroids(fold: Fold, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights (width, classes) and bias (classes,); a class without rows has weights of 0."""
    sums, counts = fold.sums()
    means = sums / np.maximum(counts, 1)[:, None]
    squares = np.einsum("ij,ij->i", means, means)
    if metric == "euclidean":
        return means.T, -squares / 2
    return (means / np.maximum(np.sqrt(squares), 1e-12)[:, None]).T, np.zeros(len(counts))
