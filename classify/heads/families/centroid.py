"""Nearest class centroid on standardized rows, as scikit-learn's `NearestCentroid` with equal priors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily
from ..layers import Dense, L2Normalize
from ..linear.cv_fold import Fold, fit_all_rows, iter_folds
from ..linear.temperature import mask_absent_classes, score_decisions
from ..options import ChoiceOption, Option
from ..training_data import TrainingData


class NearestCentroid(HeadFamily):
    """scikit-learn's `NearestCentroid`; its decisions become probabilities by a temperature.

    Options
    -------
    metric
        ``euclidean``: decisions `x m - |m|^2 / 2` for each centroid m, which rank classes as the distances do.
        ``cosine``: `x m / |x| |m|`.
    """

    name = "centroid"
    title = "nearest class centroid"
    options: Mapping[str, Option] = {"metric": ChoiceOption(("euclidean", "cosine"), ("euclidean", "cosine"))}

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score every metric; see `temperature.score_decisions`."""
        start_time = time.perf_counter()
        decisions: list[list[np.ndarray]] = [[] for _ in hyperparameter_sets]
        for fold in iter_folds(data):
            counts = np.bincount(fold.labels, minlength=fold.n_classes)
            for fold_decisions, hyperparameters in zip(decisions, hyperparameter_sets, strict=True):
                scores = fold.compute_decisions(*_compute_centroids(fold, hyperparameters["metric"]))
                if hyperparameters["metric"] == "cosine":
                    scores /= np.maximum(np.sqrt(fold.compute_score_norms()), 1e-12)[:, None]
                fold_decisions.append(mask_absent_classes(scores, counts))
        seconds = (time.perf_counter() - start_time) / len(hyperparameter_sets)
        return [score_decisions(data, fold_decisions, seconds) for fold_decisions in decisions]

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Compute the centroids of all rows; ``fit_info["temperature"]`` is folded into the weights."""
        fold = fit_all_rows(data)
        weights, bias = (values / fit_info["temperature"] for values in _compute_centroids(fold, hyperparameters["metric"]))
        if hyperparameters["metric"] == "euclidean":
            return Head((fold.to_dense_layer(weights, bias),), data.target.class_names)
        column_weights = np.empty((fold.n_columns, len(bias)), np.float32)
        for column_slice, block_weights in fold.iter_column_weights(weights):
            column_weights[column_slice] = block_weights
        return Head(
            (fold.to_standardize_layer(), L2Normalize(), Dense(column_weights, bias.astype(np.float32), "softmax")),
            data.target.class_names,
        )


def _compute_centroids(fold: Fold, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (width, classes) and bias (classes,); a class without rows has weights of 0."""
    sums, counts = fold.compute_class_sums()
    means = sums / np.maximum(counts, 1)[:, None]
    squares = np.einsum("ij,ij->i", means, means)
    if metric == "euclidean":
        return means.T, -squares / 2
    return (means / np.maximum(np.sqrt(squares), 1e-12)[:, None]).T, np.zeros(len(counts))
