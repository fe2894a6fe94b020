"""A projection of standardised rows onto the unit sphere, trained in Keras with a loss over pairs of a batch's rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import fresh_names, load_keras, seeded
from ...data.feature_matrix import Matrix
from ..layers import Dense, Layer, Unit
from .balanced_batches import Batches
from .variable_swap import Turns

Loss = Callable[[Any, Any], Any]  # of class numbers (n,) and embeddings (n, e) of length 1


@dataclass
class Training:
    """One training among those that take turns in a network: its scaler, its batches, and the state it was left in."""

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    batches: Batches
    state: list[Any]


class Embedding:
    """One linear layer, or a hidden layer (ReLU) and a linear one; trainings of several folds take turns in it.

    Rows are standardised a batch at a time: no standardised copy of the features is made.
    """

    def __init__(self, features: Matrix, labels: np.ndarray, setting: Mapping[str, Any], loss: Loss, seed: int) -> None:
        keras = load_keras()
        self._features, self._labels, self._setting, self._seed = features, labels, setting, seed
        with fresh_names(), seeded(seed):
            hidden = keras.layers.Dense(setting["hidden"] or 1, "relu", kernel_initializer="he_normal")
            self._dense = [*([hidden] if setting["hidden"] else []), keras.layers.Dense(setting["embedding"])]
            self._network = keras.Sequential(
                [keras.Input((features.shape[1],)), *self._dense, keras.layers.UnitNormalization()]
            )
        optimizer = keras.optimizers.Adam(setting["learning_rate"])
        self._network.compile(optimizer, loss=loss)
        optimizer.build(self._network.trainable_variables)
        self._turns = Turns([*self._network.variables, *optimizer.variables])

    def start(self, rows: np.ndarray) -> Training:
        """A training on some rows of the features, before its first step."""
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        for _, block in self._features.blocks(rows):
            scaler.partial_fit(block)
        batches = Batches(self._labels[rows], self._setting["batch_size"], np.random.default_rng(self._seed))
        return Training(rows, scaler.mean_, scaler.scale_, batches, self._turns.start)

    def epoch(self, training: Training) -> float:
        """Train on as many batches as hold the rows of `training` once; the mean loss."""
        self._turns.give(training)
        mean, scale = training.mean.astype(np.float32), training.scale.astype(np.float32)
        losses = []
        for places in training.batches.epoch():
            rows = training.rows[places]
            values = (self._features[rows] - mean) / scale
            self._network.reset_metrics()
            losses.append(float(self._network.train_on_batch(values, self._labels[rows])))
        return float(np.mean(losses))

    def layers(self, training: Training) -> tuple[Layer, ...]:
        """The projection as layers that take raw rows, as `training` has left it; the scaler is folded in."""
        self._turns.give(training)
        dense = []
        for layer in self._dense:
            weights, bias = (np.array(each, np.float32) for each in layer.get_weights())
            dense.append(Dense(weights, bias, layer.activation.__name__))
        return (dense[0].scaled(training.mean, training.scale), *dense[1:], Unit())


def embed(layers: tuple[Layer, ...], features: Matrix, rows: np.ndarray) -> np.ndarray:
    """The embeddings (len(rows), e) of some rows."""
    found = []
    for _, block in features.blocks(rows):
        values = block
        for layer in layers:
            values = layer.apply(values)
        found.append(values)
    return np.concatenate(found)
