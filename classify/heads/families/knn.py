"""Nearest neighbours by cosine, scikit-learn's `KNeighborsClassifier`, of standardised rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...data.nearest_neighbors import among
from ...evaluate.trial import Score
from ..head import Head
from ..layers import WEIGHTS, Neighbours, Unit, votes
from ..linear.cv_fold import Fold, folds, whole
from ..options import Numbers, Option, Words, combinations
from ..training_data import Problem

OPTIONS: dict[str, Option] = {"n_neighbors": Numbers((1, 5, 20), int, 1), "weights": Words(WEIGHTS, WEIGHTS)}
_SIMILARITIES = 1 << 22  # in memory at a time


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try."""
    return combinations("knn", OPTIONS, options)


def cross_validate(
    problem: Problem,
    tried: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting, all from one list of neighbours; see `Neighbours` for the votes.

    Where there are fewer rows than `n_neighbors`, all of them vote.
    """
    began = time.perf_counter()
    answers: list[list[np.ndarray]] = [[] for _ in tried]
    most = max(setting["n_neighbors"] for setting in tried)
    for fold in folds(problem):
        similarity, nearest = neighbours(fold, most)
        labels = fold.labels[nearest]
        for each, setting in zip(answers, tried, strict=True):
            count = setting["n_neighbors"]
            each.append(votes(similarity[:, :count], labels[:, :count], fold.classes, setting["weights"]))
    seconds = (time.perf_counter() - began) / len(tried)
    return [problem.score(each, seconds) for each in answers]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],  # noqa: ARG001 - every family's `fit` takes what its `cross_validate` kept
    classes: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head that stores all rows."""
    problem = replace(problem, features=problem.features.streamed())  # beside the rows of the head they would be twice
    scaler, unit = whole(problem).scaler(), Unit()
    rows = np.empty(problem.features.shape, np.float32)
    for places, values in problem.features.blocks():
        rows[places] = unit.apply(scaler.apply(values))
    count = min(setting["n_neighbors"], len(rows))
    stored = Neighbours(rows, problem.labels.astype(np.int32), count, setting["weights"], len(classes))
    return Head((scaler, unit, stored), tuple(classes))


def neighbours(fold: Fold, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and positions of the `count` fit rows nearest to each row to score, as `among` gives them.

    Rows to score stay in memory, and the fit rows pass by in blocks.
    """
    rows = np.empty((len(fold.score_rows), fold.width), np.float32)
    for places, values in fold.score_blocks():
        rows[places] = values
    rows /= np.maximum(np.sqrt(fold.score_norms()), 1e-12)[:, None]
    blocks = fold.fit_blocks(max(256, _SIMILARITIES // max(1, len(rows))))
    return among(rows, ((places, Unit().apply(values)) for places, values in blocks), count)
