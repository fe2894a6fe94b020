"""Nearest neighbors by cosine on standardized rows, as scikit-learn's `KNeighborsClassifier`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...data.nearest_neighbors import find_neighbors_in_blocks
from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily
from ..layers import L2Normalize
from ..linear.cv_fold import Fold, fit_all_rows, iter_folds
from ..neighbor_votes import VOTE_WEIGHTS, NeighborVotes, vote
from ..options import ChoiceOption, NumberOption, Option
from ..training_data import TrainingData

_SIMILARITIES = 1 << 22  # held in memory at a time


class KNearestNeighbors(HeadFamily):
    """scikit-learn's `KNeighborsClassifier(metric="cosine")`; see `NeighborVotes` for the probabilities.

    Options
    -------
    n_neighbors
        Number of neighbors that vote; all rows if there are fewer.
    weights
        ``uniform``, or ``distance``: a vote is weighted by the inverse cosine distance.
    """

    name = "knn"
    title = "nearest neighbors"
    options: Mapping[str, Option] = {
        "n_neighbors": NumberOption((1, 5, 20), int, 1),
        "weights": ChoiceOption(VOTE_WEIGHTS, VOTE_WEIGHTS),
    }

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score all hyperparameters from one search for neighbors in each fold."""
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
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Store all rows, standardized and scaled to unit length."""
        data = replace(data, features=data.features.to_streaming())  # streamed, else the rows would be in memory twice
        scaler, normalizer = fit_all_rows(data).to_standardize_layer(), L2Normalize()
        rows = np.empty(data.features.shape, np.float32)
        for positions, values in data.features.iter_blocks():
            rows[positions] = normalizer.apply(scaler.apply(values))
        n_neighbors = min(hyperparameters["n_neighbors"], len(rows))
        votes = NeighborVotes(rows, data.labels.astype(np.int32), n_neighbors, hyperparameters["weights"], data.n_classes)
        return Head((scaler, normalizer, votes), data.target.class_names)

    def can_finetune(self, hyperparameters: Mapping[str, Any]) -> bool:
        """Return False: a vote has no gradient."""
        return False


def find_neighbors(fold: Fold, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the fit rows nearest to each row to score.

    The rows to score stay in memory; fit rows are read in blocks.

    Returns
    -------
    similarity : ndarray of shape (score rows, n_neighbors)
        Cosines, highest first; fewer columns if there are fewer fit rows.
    nearest : ndarray of the same shape
        Positions among the fit rows.
    """
    rows = np.empty((len(fold.score_rows), fold.width), np.float32)
    for positions, values in fold.iter_score_blocks():
        rows[positions] = values
    rows /= np.maximum(np.sqrt(fold.compute_score_norms()), 1e-12)[:, None]
    blocks = fold.iter_fit_blocks(max(256, _SIMILARITIES // max(1, len(rows))))
    return find_neighbors_in_blocks(
        rows, ((positions, L2Normalize().apply(values)) for positions, values in blocks), n_neighbors
    )
