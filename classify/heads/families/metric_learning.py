"""Metric learning: an embedding that separates classes, with nearest neighbors or nearest centroids on top of it.

A head is an `EmbeddingNetwork`, followed by the votes of the nearest fit rows by cosine, or by a softmax over the cosines
with the class centroids. `triplet` and `supcon` differ only in the loss.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ....cache.errors import HeadError
from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily
from ..layers import Dense, HeadLayer
from ..linear.temperature import mask_absent_classes, score_decisions
from ..neighbor_votes import NeighborVotes
from ..neural.embedding import EmbeddingNetwork, LossFunction, embed
from ..neural.metric_losses import SUPERVISED_CONTRASTIVE_LOSS, TRIPLET_LOSS, EmbeddingLoss
from ..neural.training_memory import check_memory
from ..options import ChoiceOption, NumberOption, Option
from ..training_data import TrainingData

_OPTIONS: dict[str, Option] = {
    "embedding": NumberOption((64,), int, 1),
    "hidden": NumberOption((0,), int, 0),
    "learning_rate": NumberOption((1e-3,), float, 0, exclusive=True),
    "batch_size": NumberOption((128,), int, 4),
    "epochs": NumberOption((30,), int, 1),
    "patience": NumberOption((10,), int, 0),
    "classifier": ChoiceOption(("knn",), ("knn", "centroid")),
    "n_neighbors": NumberOption((5,), int, 1),
}


class MetricLearning(HeadFamily):
    """An embedding trained with a loss over pairs of rows, and a classifier on top of it.

    Options
    -------
    margin or temperature
        Parameter of the loss; see `metric_losses`.
    embedding
        Dimension of the embedding.
    hidden
        Width of the hidden layer before it, 0 for none.
    learning_rate, epochs
        Of Keras's Adam.
    batch_size
        See `BalancedBatches`.
    patience
        Number of epochs without a lower log-loss after which training stops; 0 to never stop early.
    classifier
        ``knn`` or ``centroid``.
    n_neighbors
        Only with ``classifier=knn``; not a hyperparameter of ``centroid``.
    """

    uses_keras = True

    def __init__(self, name: str, title: str, loss: EmbeddingLoss) -> None:
        self.name, self.title, self.loss = name, title, loss
        self.options = {loss.option: NumberOption((loss.default,), float, 0, exclusive=True), **_OPTIONS}
        self.search_space = {
            "embedding": "32/64/128",
            "hidden": "0/256",
            "learning_rate": "3e-4..1e-2",
            loss.option: loss.search_range,
        }

    def expand_grid(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """List the hyperparameters to try; ``n_neighbors`` is left out of those with ``classifier=centroid``."""
        hyperparameter_sets = super().expand_grid(options)
        if "n_neighbors" in options and not any(map(_uses_knn, hyperparameter_sets)):
            raise HeadError(
                f"head {self.name}: n_neighbors applies only to classifier=knn, but only "
                "classifier=centroid is given; leave one of them out"
            )
        distinct_sets: list[dict[str, Any]] = []
        for hyperparameters in hyperparameter_sets:
            if not _uses_knn(hyperparameters):
                del hyperparameters["n_neighbors"]
            if hyperparameters not in distinct_sets:
                distinct_sets.append(hyperparameters)
        return distinct_sets

    def check(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> None:
        """Raise `HeadError` if the network does not fit into memory."""
        for hyperparameters in hyperparameter_sets:
            hidden, embedding = hyperparameters["hidden"], hyperparameters["embedding"]
            widths = [data.features.shape[1], *([hidden] if hidden else []), embedding]
            check_memory(f"head {self.name}: hidden={hidden},embedding={embedding}", widths, len(data.folds))

    def group(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """Return one group per set of hyperparameters: nothing is shared."""
        return [[index] for index in range(len(hyperparameter_sets))]

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score all hyperparameters, each after its best epoch.

        Folds are trained in step, one epoch of each in turn, so that early stopping uses the score over all folds. The
        number of epochs is a hyperparameter like any other: the one with the lowest log-loss is scored, and stored as
        ``fit_info["epochs"]`` for ``fit``. With centroids, ``fit_info["temperature"]`` is the temperature of the cosines
        (see `temperature.score_decisions`). ``fit_info["curves"]`` has the values after each epoch of ``loss``, the
        training loss averaged over folds, and of ``val_loss`` and ``val_accuracy``, log-loss and accuracy on all held-out
        images.
        """
        return [
            _train_and_score(data, hyperparameters, self._bind_loss(hyperparameters), seed)
            for hyperparameters in hyperparameter_sets
        ]

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Train on all rows for ``fit_info["epochs"]`` epochs; the scaler is folded into the weights."""
        rows = np.arange(len(data.labels))
        network = EmbeddingNetwork(data.features, data.labels, hyperparameters, self._bind_loss(hyperparameters), seed)
        training = network.start_training(rows)
        for _ in range(fit_info["epochs"]):
            network.train_epoch(training)
        layers = network.build_layers(training)
        fit_embeddings = embed(layers, data.features, rows)
        if _uses_knn(hyperparameters):
            classifier: HeadLayer = _build_neighbor_votes(fit_embeddings, data.labels, data.n_classes, hyperparameters)
        else:
            weights = _compute_centroids(fit_embeddings, data.labels, data.n_classes) / fit_info["temperature"]
            classifier = Dense(weights.astype(np.float32), np.zeros(data.n_classes, np.float32), "softmax")
        return Head((*layers, classifier), data.target.class_names)

    def can_finetune(self, hyperparameters: Mapping[str, Any]) -> bool:
        """Return whether the classifier is ``centroid``: a vote of neighbors has no gradient."""
        return not _uses_knn(hyperparameters)

    def _bind_loss(self, hyperparameters: Mapping[str, Any]) -> LossFunction:
        return self.loss.bind(hyperparameters[self.loss.option])


TRIPLET = MetricLearning("triplet", "an embedding trained with triplet loss", TRIPLET_LOSS)
SUPCON = MetricLearning("supcon", "an embedding trained with supervised contrastive loss", SUPERVISED_CONTRASTIVE_LOSS)


def _uses_knn(hyperparameters: Mapping[str, Any]) -> bool:
    return bool(hyperparameters["classifier"] == "knn")


def _train_and_score(data: TrainingData, hyperparameters: Mapping[str, Any], loss: LossFunction, seed: int) -> Score:
    """Train on every fold, and score after the best epoch."""
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
        score = data.score(decisions) if _uses_knn(hyperparameters) else score_decisions(data, decisions, 0.0)
        for name, value in zip(curves, (float(np.mean(losses)), score.log_loss, score.accuracy), strict=True):
            curves[name].append(round(value, 5))
        if not best or score.log_loss < best[0].log_loss:
            best = [replace(score, fit_info={"epochs": len(curves["loss"]), **score.fit_info})]
        elif hyperparameters["patience"] and len(curves["loss"]) - best[0].fit_info["epochs"] >= hyperparameters["patience"]:
            break
    return replace(best[0], seconds=time.perf_counter() - start_time, fit_info={**best[0].fit_info, "curves": curves})


def _compute_decisions(
    data: TrainingData, hyperparameters: Mapping[str, Any], fit_embeddings: np.ndarray, rows: np.ndarray, queries: np.ndarray
) -> np.ndarray:
    """Return the decisions for embeddings `queries` (s, e), of shape (s, classes).

    They are probabilities from the votes of the fit rows, or cosines with the class centroids.
    """
    labels = data.labels[rows]
    if not _uses_knn(hyperparameters):
        cosines = queries @ _compute_centroids(fit_embeddings, labels, data.n_classes)
        return mask_absent_classes(cosines, np.bincount(labels, minlength=data.n_classes))
    return _build_neighbor_votes(fit_embeddings, labels, data.n_classes, hyperparameters).apply(queries)


def _build_neighbor_votes(
    fit_embeddings: np.ndarray, labels: np.ndarray, n_classes: int, hyperparameters: Mapping[str, Any]
) -> NeighborVotes:
    """Build the vote of the nearest embeddings; all vote if there are fewer than `n_neighbors`."""
    n_neighbors = min(hyperparameters["n_neighbors"], len(fit_embeddings))
    return NeighborVotes(fit_embeddings, labels.astype(np.int32), n_neighbors, "uniform", n_classes)


def _compute_centroids(fit_embeddings: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the mean embedding of each class scaled to unit length, (e, classes); 0 for a class without rows."""
    sums = np.zeros((n_classes, fit_embeddings.shape[1]))
    np.add.at(sums, labels, fit_embeddings)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).T
