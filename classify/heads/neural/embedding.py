"""A network that embeds standardized rows on the unit sphere, trained in Keras with a loss over pairs of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras, reset_layer_names, seed_initializers
from ...data.feature_matrix import FeatureMatrix
from ..layers import Dense, HeadLayer, L2Normalize
from .balanced_batches import BalancedBatches
from .variable_swap import VariableSwap

LossFunction = Callable[[Any, Any], Any]  # takes class numbers (n,) and embeddings (n, e) of unit length


@dataclass
class EmbeddingTraining:
    """The state of one training, such as that of a fold, in a network shared by several.

    Parameters
    ----------
    rows : ndarray of shape (m,)
        Row numbers to train on.
    mean, scale : ndarray of shape (d,)
        The scaler.
    batches
        The batches.
    state
        Values of the network's and the optimizer's variables.
    """

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    batches: BalancedBatches
    state: list[Any]


class EmbeddingNetwork:
    """A linear layer, optionally after a hidden layer (ReLU); trainings of several folds share the compiled model.

    Rows are standardized per batch: no standardized copy of the features is made.

    Parameters
    ----------
    features
        Rows (n, d).
    labels : ndarray of shape (n,)
        Class numbers.
    hyperparameters
        ``hidden``, ``embedding``, ``learning_rate`` and ``batch_size`` are used.
    loss
        Loss of the class numbers and embeddings of a batch.
    seed
        Seed of the initial weights and the batches.
    """

    def __init__(
        self, features: FeatureMatrix, labels: np.ndarray, hyperparameters: Mapping[str, Any], loss: LossFunction, seed: int
    ) -> None:
        keras = load_keras()
        self._features, self._labels, self._hyperparameters, self._seed = features, labels, hyperparameters, seed
        with reset_layer_names(), seed_initializers(seed):
            hidden = keras.layers.Dense(hyperparameters["hidden"] or 1, "relu", kernel_initializer="he_normal")
            self._dense_layers = [
                *([hidden] if hyperparameters["hidden"] else []),
                keras.layers.Dense(hyperparameters["embedding"]),
            ]
            self._network = keras.Sequential(
                [keras.Input((features.shape[1],)), *self._dense_layers, keras.layers.UnitNormalization()]
            )
        optimizer = keras.optimizers.Adam(hyperparameters["learning_rate"])
        self._network.compile(optimizer, loss=loss)
        optimizer.build(self._network.trainable_variables)
        self._variable_swap = VariableSwap([*self._network.variables, *optimizer.variables])

    def start_training(self, rows: np.ndarray) -> EmbeddingTraining:
        """Start a training on some rows (m,) of the features."""
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        for _, block in self._features.iter_blocks(rows):
            scaler.partial_fit(block)
        batches = BalancedBatches(self._labels[rows], self._hyperparameters["batch_size"], np.random.default_rng(self._seed))
        return EmbeddingTraining(rows, scaler.mean_, scaler.scale_, batches, self._variable_swap.initial_state)

    def train_epoch(self, training: EmbeddingTraining) -> float:
        """Train on as many batches as would cover all rows once; return the mean loss."""
        self._variable_swap.swap_in(training)
        mean, scale = training.mean.astype(np.float32), training.scale.astype(np.float32)
        losses = []
        for positions in training.batches.iterate_epoch():
            rows = training.rows[positions]
            values = (self._features[rows] - mean) / scale
            self._network.reset_metrics()
            losses.append(float(self._network.train_on_batch(values, self._labels[rows])))
        return float(np.mean(losses))

    def build_layers(self, training: EmbeddingTraining) -> tuple[HeadLayer, ...]:
        """Return the trained embedding as layers for raw rows; the scaler is folded in."""
        self._variable_swap.swap_in(training)
        dense_layers = []
        for layer in self._dense_layers:
            weights, bias = (np.array(array, np.float32) for array in layer.get_weights())
            dense_layers.append(Dense(weights, bias, layer.activation.__name__))
        return (dense_layers[0].absorb_scaler(training.mean, training.scale), *dense_layers[1:], L2Normalize())


def embed(layers: tuple[HeadLayer, ...], features: FeatureMatrix, rows: np.ndarray) -> np.ndarray:
    """Compute the embeddings (m, e) of some rows (m,) of the features."""
    embedded_blocks = []
    for _, block in features.iter_blocks(rows):
        values = block
        for layer in layers:
            values = layer.apply(values)
        embedded_blocks.append(values)
    return np.concatenate(embedded_blocks)
