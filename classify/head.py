"""A trained head: dense layers from a row of features to class probabilities, in plain arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.errors import RunError


@dataclass(frozen=True)
class Dense:
    """`activation(x @ weights + bias)`; weights (d, k) and bias (k,) are float32."""

    weights: np.ndarray
    bias: np.ndarray
    activation: str = "linear"

    def scaled(self, mean: np.ndarray, deviation: np.ndarray) -> Dense:
        """The layer that takes raw rows where this one takes `(x - mean) / deviation`, computed in float64."""
        weights = self.weights.astype(np.float64) / deviation.astype(np.float64)[:, None]
        bias = self.bias.astype(np.float64) - mean.astype(np.float64) @ weights
        return Dense(weights.astype(np.float32), bias.astype(np.float32), self.activation)


@dataclass(frozen=True)
class Head:
    """Dense layers, the last one a softmax over `classes`."""

    layers: tuple[Dense, ...]
    classes: tuple[str, ...]

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) float32 of rows (n, ...); maps are flattened in row-major order."""
        values = features.reshape(len(features), -1).astype(np.float32)
        for layer in self.layers:
            values = _activate(values @ layer.weights + layer.bias, layer.activation)
        return values

    def arrays(self) -> bytes:
        """The weights as the bytes of an `.npz` file, without pickle."""
        buffer = io.BytesIO()
        named = {f"weights{i}": layer.weights for i, layer in enumerate(self.layers)}
        named |= {f"bias{i}": layer.bias for i, layer in enumerate(self.layers)}
        np.savez(buffer, allow_pickle=False, **named)
        return buffer.getvalue()

    def description(self) -> dict[str, Any]:
        """What the arrays do not say, as JSON values."""
        return {"classes": list(self.classes), "activations": [layer.activation for layer in self.layers]}

    @classmethod
    def load(cls, arrays: Path, description: Mapping[str, Any]) -> Head:
        """The head of an `.npz` file and its description; raises `RunError`."""
        try:
            with arrays.open("rb") as file, np.load(file, allow_pickle=False) as named:
                layers = [
                    Dense(named[f"weights{i}"], named[f"bias{i}"], activation)
                    for i, activation in enumerate(description["activations"])
                ]
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"{arrays}: expected a head written by `humeris sweep`, found: {error}") from error
        return cls(tuple(layers), tuple(description["classes"]))


def softmax_of(weights: np.ndarray, bias: np.ndarray) -> Dense:
    """A softmax layer equal to a linear classifier's probabilities; weights (k, d), bias (k,).

    One row means two classes and a logistic function: `softmax([-z/2, z/2])` is `[1 - s(z), s(z)]`.
    """
    if len(bias) == 1:
        weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    return Dense(weights.T.astype(np.float32), bias.astype(np.float32), "softmax")


def _activate(values: np.ndarray, activation: str) -> np.ndarray:
    if activation == "relu":
        return np.asarray(np.maximum(values, 0))
    if activation == "leaky_relu":
        return np.asarray(np.maximum(values, np.float32(0.2) * values))
    if activation in {"silu", "mish", "gelu"}:
        from scipy.special import erf, expit

        if activation == "silu":
            return np.asarray(values * expit(values))
        if activation == "gelu":
            return np.asarray(values * (1 + erf(values * np.float32(0.5**0.5))) / 2)
        return np.asarray(values * np.tanh(np.logaddexp(values, np.float32(0))))
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return values
