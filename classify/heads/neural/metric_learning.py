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
from ..layers import Dense, Layer, Neighbours
from ..linear.temperature import present, scored
from ..options import Numbers, Option, Words, combinations
from ..training_data import Problem
from .embedding import Embedding, Loss, embed
from .training_memory import fits_memory

OPTIONS: dict[str, Option] = {
    "embedding": Numbers((64,), int, 1),
    "hidden": Numbers((0,), int, 0),
    "learning_rate": Numbers((1e-3,), float, 0, open=True),
    "batch_size": Numbers((128,), int, 4),
    "epochs": Numbers((30,), int, 1),
    "patience": Numbers((10,), int, 0),
    "classifier": Words(("knn",), ("knn", "centroid")),
    "n_neighbors": Numbers((5,), int, 1),
}


def settings(name: str, own: Mapping[str, Option], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of `a/b/c` lists in `options`, over the defaults; `own` are those of the loss; raises `HeadError`.

    embedding: columns of the projection. hidden: width of the layer before it, 0 for none. batch_size: see `Batches`.
    patience: epochs without a lower log-loss after which training stops, 0 for never. n_neighbors: of the classifier knn
    alone, and not in the settings of another.
    """
    found = combinations(name, {**own, **OPTIONS}, options)
    if "n_neighbors" in options and all(setting["classifier"] != "knn" for setting in found):
        raise HeadError(
            f"head {name}: n_neighbors needs classifier=knn, found classifier=centroid alone; leave one of them out"
        )
    kept = []
    for setting in found:
        mine = {key: value for key, value in setting.items() if key != "n_neighbors" or setting["classifier"] == "knn"}
        if mine not in kept:
            kept.append(mine)
    return kept


def cross_validate(
    problem: Problem, tried: Sequence[Mapping[str, Any]], loss: Callable[[Mapping[str, Any]], Loss], seed: int
) -> list[Score]:
    """The score of each setting, whose loss is `loss(setting)`.

    Folds are trained in step, an epoch of each in turn, so that a setting stops on what all folds say. The number of
    epochs is a setting like any other: the one with the lowest log-loss is kept (`detail["epochs"]`); with centroids, so is
    the temperature of the cosines (`detail["temperature"]`, see `temperature.scored`). detail["curves"], after each epoch:
    `loss`, as it was trained, a mean over folds; `val_loss` and `val_accuracy`, the log-loss and accuracy on all images held
    out.
    """
    return [_course(problem, setting, loss(setting), seed) for setting in tried]


def check(name: str, problem: Problem, tried: Sequence[Mapping[str, Any]]) -> None:
    """Raise `HeadError` where a setting cannot be trained in the memory there is."""
    for setting in tried:
        widths = [problem.features.shape[1], *([setting["hidden"]] if setting["hidden"] else []), setting["embedding"]]
        where = f"head {name}: hidden={setting['hidden']},embedding={setting['embedding']}"
        fits_memory(where, widths, len(problem.folds))


def groups(problem: Problem, tried: Sequence[Mapping[str, Any]]) -> list[list[int]]:  # noqa: ARG001 - as of every family
    """The places of settings that are trained at once: each by itself."""
    return [[place] for place in range(len(tried))]


def fit(
    problem: Problem, setting: Mapping[str, Any], detail: Mapping[str, Any], loss: Loss, classes: Sequence[str], seed: int
) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs, with the scaler folded in."""
    rows = np.arange(len(problem.labels))
    network = Embedding(problem.features, problem.labels, setting, loss, seed)
    training = network.start(rows)
    for _ in range(detail["epochs"]):
        network.epoch(training)
    layers = network.layers(training)
    embedded = embed(layers, problem.features, rows)
    if setting["classifier"] == "knn":
        last: Layer = _neighbours(embedded, problem.labels, len(classes), setting)
    else:
        weights = _centroids(embedded, problem.labels, len(classes)) / detail["temperature"]
        last = Dense(weights.astype(np.float32), np.zeros(len(classes), np.float32), "softmax")
    return Head((*layers, last), tuple(classes))


def _course(problem: Problem, setting: Mapping[str, Any], loss: Loss, seed: int) -> Score:
    """The score at the best epoch."""
    began = time.perf_counter()
    network = Embedding(problem.features, problem.labels, setting, loss, seed)
    trainings = [network.start(rows) for rows, _ in problem.folds]
    curves: dict[str, list[float]] = {"loss": [], "val_loss": [], "val_accuracy": []}
    best: list[Score] = []
    for _ in range(setting["epochs"]):
        losses, decisions = [], []
        for training, (_, held_out) in zip(trainings, problem.folds, strict=True):
            losses.append(network.epoch(training))
            layers = network.layers(training)
            embedded = embed(layers, problem.features, training.rows)
            decisions.append(_decide(problem, setting, embedded, training.rows, embed(layers, problem.features, held_out)))
        score = problem.score(decisions) if setting["classifier"] == "knn" else scored(problem, decisions, 0.0)
        for name, value in zip(curves, (float(np.mean(losses)), score.log_loss, score.accuracy), strict=True):
            curves[name].append(round(value, 5))
        if not best or score.log_loss < best[0].log_loss:
            best = [replace(score, detail={"epochs": len(curves["loss"]), **score.detail})]
        elif setting["patience"] and len(curves["loss"]) - best[0].detail["epochs"] >= setting["patience"]:
            break
    return replace(best[0], seconds=time.perf_counter() - began, detail={**best[0].detail, "curves": curves})


def _decide(
    problem: Problem, setting: Mapping[str, Any], embedded: np.ndarray, rows: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Of embeddings `asked` (s, e): probabilities from the embeddings of `rows`, or cosines with their centroids."""
    labels = problem.labels[rows]
    if setting["classifier"] == "centroid":
        cosines = asked @ _centroids(embedded, labels, problem.classes)
        return present(cosines, np.bincount(labels, minlength=problem.classes))
    return _neighbours(embedded, labels, problem.classes, setting).apply(asked)


def _neighbours(embedded: np.ndarray, labels: np.ndarray, classes: int, setting: Mapping[str, Any]) -> Neighbours:
    """The votes of the nearest embeddings; where there are fewer than `n_neighbors`, all of them vote."""
    count = min(setting["n_neighbors"], len(embedded))
    return Neighbours(embedded, labels.astype(np.int32), count, "uniform", classes)


def _centroids(embedded: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean embedding of each class over its length, (e, classes); 0 for a class without rows."""
    sums = np.zeros((classes, embedded.shape[1]))
    np.add.at(sums, labels, embedded)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).T
