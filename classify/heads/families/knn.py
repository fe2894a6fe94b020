"""Nearest neighbours by cosine, scikit-learn's `KNeighborsClassifier`, of standardised rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...data.nearest_neighbors import find_neighbors_in_blocks
from ...evaluate.trial import Score
from ..head import Head
from ..layers import VOTE_WEIGHTS, L2Normalize, NeighborVotes, vote
from ..linear.cv_fold import Fold, fit_all_rows, iter_folds
from ..options import ChoiceOption, NumberOption, Option, expand_combinations
from ..training_data import TrainingData

OPTIONS: dict[str, Option] = {
    "n_neighbors": NumberOption((1, 5, 20), int, 1),
    "weights": ChoiceOption(VOTE_WEIGHTS, VOTE_WEIGHTS),
}
_SIMILARITIES = 1 << 22  # in memory at a time


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try."""
    return expand_combinations("knn", OPTIONS, options)


def cross_validate(
    data: TrainingData,
    hyperparameter_sets: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting, all from one list of neighbours; see `Neighbours` for the votes.

    Where there are fewer rows than `n_neighbors`, all of them vote.
    """
    start_time = time.perf_counter()
    predictions: list[list[np.ndarray]] = [[] for _ in hyperparameter_sets]
    max_neighbors = max(hyperparameters["n_neighbors"] for hyperparameters in hyperparameter_sets)
    for fold in iter_folds(data):
        similarity, nearest = find_neighbors(fold, max_neighbors)
        labels = fold.labels[nearest]
        for fold_predictions, hyperparameters in zip(predictions, hyperparameter_sets, strict=True):
            n_neighbors = hyperparameters["n_neighbors"]
            fold_predictions.append(
                vote(similarity[:, :n_neighbors], labels[:, :n_neighbors], fold.n_classes, hyperparameters["weights"])
            )
    seconds = (time.perf_counter() - start_time) / len(hyperparameter_sets)
    return [data.score(fold_predictions, seconds) for fold_predictions in predictions]


def fit(
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    fit_info: Mapping[str, Any],  # noqa: ARG001 - every family's `fit` takes what its `cross_validate` kept
    class_names: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head that stores all rows."""
    data = replace(data, features=data.features.to_streaming())  # beside the rows of the head they would be twice
    scaler, normalizer = fit_all_rows(data).to_standardize_layer(), L2Normalize()
    rows = np.empty(data.features.shape, np.float32)
    for positions, values in data.features.iter_blocks():
        rows[positions] = normalizer.apply(scaler.apply(values))
    n_neighbors = min(hyperparameters["n_neighbors"], len(rows))
    vote_layer = NeighborVotes(rows, data.labels.astype(np.int32), n_neighbors, hyperparameters["weights"], len(class_names))
    return Head((scaler, normalizer, vote_layer), tuple(class_names))


def find_neighbors(fold: Fold, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and positions of the `count` fit rows nearest to each row to score, as `among` gives them.

    Rows to score stay in memory, and the fit rows pass by in blocks.
    """
    rows = np.empty((len(fold.score_rows), fold.width), np.float32)
    for positions, values in fold.iter_score_blocks():
        rows[positions] = values
    rows /= np.maximum(np.sqrt(fold.compute_score_norms()), 1e-12)[:, None]
    blocks = fold.iter_fit_blocks(max(256, _SIMILARITIES // max(1, len(rows))))
    return find_neighbors_in_blocks(
        rows, ((positions, L2Normalize().apply(values)) for positions, values in blocks), n_neighbors
    )
