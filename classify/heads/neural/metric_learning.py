"""Metric learning: rows projected to where classes lie apart, with nearest neighbours or nearest centroids there.

A head is an `Embedding` and then the votes of the nearest fit rows by cosine, or a softmax over the cosines with the
centroids of the classes. `triplet` and `supcon` differ in the loss alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ....cache.errors import HeadError
from ...evaluate.trial import Score
from ..head import Head
from ..layers import Dense, HeadLayer, NeighborVotes
from ..linear.temperature import mask_absent_classes, score_decisions
from ..options import ChoiceOption, NumberOption, Option, expand_combinations
from ..training_data import TrainingData
from .embedding import EmbeddingLoss, EmbeddingNetwork, embed
from .training_memory import check_memory

OPTIONS: dict[str, Option] = {
    "embedding": NumberOption((64,), int, 1),
    "hidden": NumberOption((0,), int, 0),
    "learning_rate": NumberOption((1e-3,), float, 0, exclusive=True),
    "batch_size": NumberOption((128,), int, 4),
    "epochs": NumberOption((30,), int, 1),
    "patience": NumberOption((10,), int, 0),
    "classifier": ChoiceOption(("knn",), ("knn", "centroid")),
    "n_neighbors": NumberOption((5,), int, 1),
}


def settings(name: str, loss_options: Mapping[str, Option], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of `a/b/c` lists in `options`, over the defaults; `own` are those of the loss; raises `HeadError`.

    embedding: columns of the projection. hidden: width of the layer before it, 0 for none. batch_size: see `Batches`.
    patience: epochs without a lower log-loss after which training stops, 0 for never. n_neighbors: of the classifier knn
    alone, and not in the settings of another.
    """
    hyperparameter_sets = expand_combinations(name, {**loss_options, **OPTIONS}, options)
    if "n_neighbors" in options and all(hyperparameters["classifier"] != "knn" for hyperparameters in hyperparameter_sets):
        raise HeadError(
            f"head {name}: n_neighbors needs classifier=knn, found classifier=centroid alone; leave one of them out"
        )
    distinct_sets = []
    for hyperparameters in hyperparameter_sets:
        relevant = {
            key: value
            for key, value in hyperparameters.items()
            if key != "n_neighbors" or hyperparameters["classifier"] == "knn"
        }
        if relevant not in distinct_sets:
            distinct_sets.append(relevant)
    return distinct_sets


def cross_validate(
    data: TrainingData,
    hyperparameter_sets: Sequence[Mapping[str, Any]],
    build_loss: Callable[[Mapping[str, Any]], EmbeddingLoss],
    seed: int,
) -> list[Score]:
    """The score of each setting, whose loss is `loss(setting)`.

    Folds are trained in step, an epoch of each in turn, so that a setting stops on what all folds say. The number of
    epochs is a setting like any other: the one with the lowest log-loss is kept (`detail["epochs"]`); with centroids, so is
    the temperature of the cosines (`detail["temperature"]`, see `temperature.scored`). detail["curves"], after each epoch:
    `loss`, as it was trained, a mean over folds; `val_loss` and `val_accuracy`, the log-loss and accuracy on all images held
    out.
    """
    return [
        _train_and_score(data, hyperparameters, build_loss(hyperparameters), seed) for hyperparameters in hyperparameter_sets
    ]


def check(name: str, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> None:
    """Raise `HeadError` where a setting cannot be trained in the memory there is."""
    for hyperparameters in hyperparameter_sets:
        widths = [
            data.features.shape[1],
            *([hyperparameters["hidden"]] if hyperparameters["hidden"] else []),
            hyperparameters["embedding"],
        ]
        location = f"head {name}: hidden={hyperparameters['hidden']},embedding={hyperparameters['embedding']}"
        check_memory(location, widths, len(data.folds))


def groups(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> list[list[int]]:  # noqa: ARG001 - as of every family
    """The places of settings that are trained at once: each by itself."""
    return [[index] for index in range(len(hyperparameter_sets))]


def fit(
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    fit_info: Mapping[str, Any],
    loss: EmbeddingLoss,
    class_names: Sequence[str],
    seed: int,
) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs, with the scaler folded in."""
    rows = np.arange(len(data.labels))
    network = EmbeddingNetwork(data.features, data.labels, hyperparameters, loss, seed)
    training = network.start_training(rows)
    for _ in range(fit_info["epochs"]):
        network.train_epoch(training)
    layers = network.build_layers(training)
    fit_embeddings = embed(layers, data.features, rows)
    if hyperparameters["classifier"] == "knn":
        classifier: HeadLayer = _build_neighbor_votes(fit_embeddings, data.labels, len(class_names), hyperparameters)
    else:
        weights = _compute_centroids(fit_embeddings, data.labels, len(class_names)) / fit_info["temperature"]
        classifier = Dense(weights.astype(np.float32), np.zeros(len(class_names), np.float32), "softmax")
    return Head((*layers, classifier), tuple(class_names))


def _train_and_score(data: TrainingData, hyperparameters: Mapping[str, Any], loss: EmbeddingLoss, seed: int) -> Score:
    """The score at the best epoch."""
    start_time = time.perf_counter()
    network = EmbeddingNetwork(data.features, data.labels, hyperparameters, loss, seed)
    trainings = [network.start_training(rows) for rows, _ in data.folds]
    curves: dict[str, list[float]] = {"loss": [], "val_loss": [], "val_accuracy": []}
    best: list[Score] = []
    for _ in range(hyperparameters["epochs"]):
        losses, decisions = [], []
        for training, (_, held_out) in zip(trainings, data.folds, strict=True):
            losses.append(network.train_epoch(training))
            layers = network.build_layers(training)
            fit_embeddings = embed(layers, data.features, training.rows)
            decisions.append(
                _compute_decisions(
                    data, hyperparameters, fit_embeddings, training.rows, embed(layers, data.features, held_out)
                )
            )
        score = data.score(decisions) if hyperparameters["classifier"] == "knn" else score_decisions(data, decisions, 0.0)
        for name, value in zip(curves, (float(np.mean(losses)), score.log_loss, score.accuracy), strict=True):
            curves[name].append(round(value, 5))
        if not best or score.log_loss < best[0].log_loss:
            best = [replace(score, detail={"epochs": len(curves["loss"]), **score.detail})]
        elif hyperparameters["patience"] and len(curves["loss"]) - best[0].detail["epochs"] >= hyperparameters["patience"]:
            break
    return replace(best[0], seconds=time.perf_counter() - start_time, detail={**best[0].detail, "curves": curves})


def _compute_decisions(
    data: TrainingData, hyperparameters: Mapping[str, Any], fit_embeddings: np.ndarray, rows: np.ndarray, queries: np.ndarray
) -> np.ndarray:
    """Of embeddings `asked` (s, e): probabilities from the embeddings of `rows`, or cosines with their centroids."""
    labels = data.labels[rows]
    if hyperparameters["classifier"] == "centroid":
        cosines = queries @ _compute_centroids(fit_embeddings, labels, data.n_classes)
        return mask_absent_classes(cosines, np.bincount(labels, minlength=data.n_classes))
    return _build_neighbor_votes(fit_embeddings, labels, data.n_classes, hyperparameters).apply(queries)


def _build_neighbor_votes(
    fit_embeddings: np.ndarray, labels: np.ndarray, n_classes: int, hyperparameters: Mapping[str, Any]
) -> NeighborVotes:
    """The votes of the nearest embeddings; where there are fewer than `n_neighbors`, all of them vote."""
    n_neighbors = min(hyperparameters["n_neighbors"], len(fit_embeddings))
    return NeighborVotes(fit_embeddings, labels.astype(np.int32), n_neighbors, "uniform", n_classes)


def _compute_centroids(fit_embeddings: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """The mean embedding of each class over its length, (e, classes); 0 for a class without rows."""
    sums = np.zeros((n_classes, fit_embeddings.shape[1]))
    np.add.at(sums, labels, fit_embeddings)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).T
