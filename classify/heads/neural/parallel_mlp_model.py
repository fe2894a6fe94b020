"""Several MLP heads of one shape as one Keras model. Importing this loads Keras."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras
from .training_memory import parse_widths

keras = load_keras()
ops = keras.ops


class ParallelMLPModel(keras.Model):  # type: ignore[misc, name-defined]
    """A Keras model from rows (n, d) to probabilities (n, heads, classes); in training, to logits.

    Parameters
    ----------
    n_columns, n_classes
        Number of inputs and outputs of each head.
    hyperparameter_sets
        Those of each head; all have the same shape.
    seed
        Seed of the initial weights.
    """

    def __init__(self, n_columns: int, n_classes: int, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> None:
        super().__init__(name="heads")
        first = hyperparameter_sets[0]
        sizes = [n_columns, *parse_widths(first["hidden"]), n_classes]
        self._n_heads, self._n_columns = len(hyperparameter_sets), n_columns
        self._activation = keras.activations.get(first["activation"])
        self.dropout = _collect_values(hyperparameter_sets, "dropout")
        self.smoothing = _collect_values(hyperparameter_sets, "label_smoothing")
        self.uses_mixing = any(
            hyperparameters["mixup"] or hyperparameters["cutmix"] for hyperparameters in hyperparameter_sets
        )
        self.norm = keras.layers.BatchNormalization(center=False, scale=False) if first["batch_norm"] else None
        if self.norm is not None:
            self.norm.build((None, n_columns))
        self.kernels, self.biases = [], []
        for layer_index, (n_inputs, n_outputs) in enumerate(itertools.pairwise(sizes)):
            last = layer_index == len(sizes) - 2
            initializer = keras.initializers.GlorotUniform if last else keras.initializers.HeNormal
            init_seed = np.random.default_rng([seed, layer_index]).integers(2**31)
            values = np.array(ops.convert_to_numpy(initializer(seed=int(init_seed))((n_inputs, n_outputs))))
            values = np.repeat(
                values[:, None] if layer_index == 0 else values[None], self._n_heads, axis=1 if layer_index == 0 else 0
            )
            self.kernels.append(self.add_weight(shape=values.shape, initializer="zeros", name=f"heads_kernel{layer_index}"))
            self.biases.append(
                self.add_weight(shape=(self._n_heads, n_outputs), initializer="zeros", name=f"heads_bias{layer_index}")
            )
            self.kernels[-1].assign(values)
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        """Return probabilities for ``inputs["rows"]``, or logits in training."""
        values = inputs["rows"]
        if self.norm is not None:
            values = self.norm(values, training=training)
        products = ops.matmul(values, ops.reshape(self.kernels[0], (self._n_columns, -1)))
        values = ops.reshape(products, (-1, *self.kernels[0].shape[1:])) + self.biases[0]
        if training and self.uses_mixing:  # mixing commutes with a linear layer, so mixed rows are never computed
            share = ops.reshape(inputs["share"], (1, -1, 1))
            values = share * values + (1 - share) * ops.flip(values, axis=0)
        for layer_index in range(1, len(self.kernels)):
            values = self._activation(values)
            if training and self.dropout.any():
                keep_mask = ops.cast(
                    ops.expand_dims(inputs["noise"][layer_index - 1], 1) >= self.dropout[:, None], values.dtype
                )
                values = values * keep_mask / (1 - self.dropout[:, None])
            values = ops.einsum("bhi,hio->bho", values, self.kernels[layer_index]) + self.biases[layer_index]
        return values if training else ops.softmax(values)

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:  # noqa: ARG002
        """Return the cross-entropy averaged over the batch and summed over heads, which keeps their gradients separate."""
        negative_log_probabilities = -ops.log_softmax(y_pred)
        one_hot = ops.one_hot(y, negative_log_probabilities.shape[-1])[:, None]
        loss = ops.sum(one_hot * negative_log_probabilities, axis=-1)
        if self.uses_mixing:
            loss = x["label_share"] * loss + (1 - x["label_share"]) * ops.sum(
                ops.flip(one_hot, axis=0) * negative_log_probabilities, axis=-1
            )
        if self.smoothing.any():
            loss = (1 - self.smoothing) * loss + self.smoothing * ops.mean(negative_log_probabilities, axis=-1)
        return ops.sum(ops.mean(loss, axis=0))


def _collect_values(hyperparameter_sets: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([hyperparameters[name] for hyperparameters in hyperparameter_sets], np.float32)


def find_head_axis(variable: Any) -> int | None:
    """Return the axis of the heads in a variable of the model or the optimizer; None if it has none."""
    if "heads_kernel0" in variable.path:
        return 1
    return 0 if "heads_" in variable.path else None
