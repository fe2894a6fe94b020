"""Several MLP heads of one shape as one Keras model. Importing this loads Keras."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras
from .training_memory import widths_of

keras = load_keras()
ops = keras.ops


class Network(keras.Model):  # type: ignore[misc, name-defined]
    """Rows (n, d) -> probabilities (n, heads, classes); in training, logits of mixed and thinned rows."""

    def __init__(self, columns: int, classes: int, settings: Sequence[Mapping[str, Any]], seed: int) -> None:
        super().__init__(name="heads")
        first = settings[0]
        sizes = [columns, *widths_of(first["hidden"]), classes]
        self._heads, self._columns = len(settings), columns
        self._activation = keras.activations.get(first["activation"])
        self.dropout = _column(settings, "dropout")
        self.smoothing = _column(settings, "label_smoothing")
        self.mixes = any(setting["mixup"] or setting["cutmix"] for setting in settings)
        self.norm = keras.layers.BatchNormalization(center=False, scale=False) if first["batch_norm"] else None
        if self.norm is not None:
            self.norm.build((None, columns))
        self.kernels, self.biases = [], []
        for number, (inward, outward) in enumerate(itertools.pairwise(sizes)):
            last = number == len(sizes) - 2
            initializer = keras.initializers.GlorotUniform if last else keras.initializers.HeNormal
            draws = np.random.default_rng([seed, number]).integers(2**31)
            values = np.array(ops.convert_to_numpy(initializer(seed=int(draws))((inward, outward))))
            values = np.repeat(values[:, None] if number == 0 else values[None], self._heads, axis=1 if number == 0 else 0)
            self.kernels.append(self.add_weight(shape=values.shape, initializer="zeros", name=f"heads_kernel{number}"))
            self.biases.append(
                self.add_weight(shape=(self._heads, outward), initializer="zeros", name=f"heads_bias{number}")
            )
            self.kernels[-1].assign(values)
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        """Keras's own method."""
        values = inputs["rows"]
        if self.norm is not None:
            values = self.norm(values, training=training)
        wide = ops.matmul(values, ops.reshape(self.kernels[0], (self._columns, -1)))
        values = ops.reshape(wide, (-1, *self.kernels[0].shape[1:])) + self.biases[0]
        if training and self.mixes:  # mixing goes through a linear layer: mixed rows are never made
            share = ops.reshape(inputs["share"], (1, -1, 1))
            values = share * values + (1 - share) * ops.flip(values, axis=0)
        for number in range(1, len(self.kernels)):
            values = self._activation(values)
            if training and self.dropout.any():
                kept = ops.cast(ops.expand_dims(inputs["noise"][number - 1], 1) >= self.dropout[:, None], values.dtype)
                values = values * kept / (1 - self.dropout[:, None])
            values = ops.einsum("bhi,hio->bho", values, self.kernels[number]) + self.biases[number]
        return values if training else ops.softmax(values)

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:  # noqa: ARG002
        """Cross-entropy of each head, mean over the batch, summed over heads, which leaves each its own gradient."""
        surprise = -ops.log_softmax(y_pred)
        true = ops.one_hot(y, surprise.shape[-1])[:, None]
        loss = ops.sum(true * surprise, axis=-1)
        if self.mixes:
            loss = x["label_share"] * loss + (1 - x["label_share"]) * ops.sum(ops.flip(true, axis=0) * surprise, axis=-1)
        if self.smoothing.any():
            loss = (1 - self.smoothing) * loss + self.smoothing * ops.mean(surprise, axis=-1)
        return ops.sum(ops.mean(loss, axis=0))


def _column(settings: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([setting[name] for setting in settings], np.float32)


def head_axis(variable: Any) -> int | None:
    """The axis of a variable, the model's or the optimizer's, that counts the heads."""
    if "heads_kernel0" in variable.path:
        return 1
    return 0 if "heads_" in variable.path else None
