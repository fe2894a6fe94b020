"""The layers of heads, in NumPy; `stack_model` builds the same layers in Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

ACTIVATIONS = ("linear", "relu", "leaky_relu", "silu", "mish", "gelu", "softmax")


class HeadLayer(Protocol):
    """A layer of a head, from float32 rows (n, d) to float32 rows (n, k).

    Attributes
    ----------
    kind
        Its name in files.
    array_fields, json_fields
        Names of the fields stored as arrays, and of those stored as JSON values.
    """

    kind: ClassVar[str]
    array_fields: ClassVar[tuple[str, ...]]
    json_fields: ClassVar[tuple[str, ...]]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return rows (n, k) for rows (n, d)."""

    def compute_output_width(self, width: int | None) -> int | None:
        """Return the output width for an input width, None if unknown; raises `ValueError` if the layer rejects it."""


@dataclass(frozen=True)
class Dense:
    """A dense layer: `activation(x @ weights + bias)`.

    Parameters
    ----------
    weights : ndarray of shape (d, k), float32
    bias : ndarray of shape (k,), float32
    activation
        One of Keras's activations, with its default arguments.
    """

    weights: np.ndarray
    bias: np.ndarray
    activation: str = "linear"

    kind: ClassVar[str] = "dense"
    array_fields: ClassVar[tuple[str, ...]] = ("weights", "bias")
    json_fields: ClassVar[tuple[str, ...]] = ("activation",)

    def absorb_scaler(self, mean: np.ndarray, scale: np.ndarray) -> Dense:
        """Return the layer for raw rows that equals this one on `(x - mean) / scale`; mean and scale (d,).

        Computed in float64.
        """
        weights = self.weights.astype(np.float64) / scale.astype(np.float64)[:, None]
        bias = self.bias.astype(np.float64) - mean.astype(np.float64) @ weights
        return Dense(weights.astype(np.float32), bias.astype(np.float32), self.activation)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return rows (n, k)."""
        return activate(values @ self.weights + self.bias, self.activation)

    def compute_output_width(self, width: int | None) -> int:
        """Return the output width, k."""
        if self.weights.ndim != 2 or self.bias.shape != self.weights.shape[1:]:
            raise ValueError(f"shapes of weights {self.weights.shape} and bias {self.bias.shape} do not match")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}")
        return check_width(width, *self.weights.shape)


@dataclass(frozen=True)
class Standardize:
    """Standardize columns: `(x - mean) * factor`.

    Parameters
    ----------
    mean, factor : ndarray of shape (d,), float32
    """

    mean: np.ndarray
    factor: np.ndarray

    kind: ClassVar[str] = "standardize"
    array_fields: ClassVar[tuple[str, ...]] = ("mean", "factor")
    json_fields: ClassVar[tuple[str, ...]] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return rows (n, d)."""
        return np.asarray((values - self.mean) * self.factor)

    def compute_output_width(self, width: int | None) -> int:
        """Return the output width, d."""
        if self.mean.ndim != 1 or self.factor.shape != self.mean.shape:
            raise ValueError(f"shapes of mean {self.mean.shape} and factor {self.factor.shape} do not match")
        return check_width(width, len(self.mean), len(self.mean))


@dataclass(frozen=True)
class L2Normalize:
    """Scale each row to unit Euclidean length; rows of zeros stay zero."""

    kind: ClassVar[str] = "l2_normalize"
    array_fields: ClassVar[tuple[str, ...]] = ()
    json_fields: ClassVar[tuple[str, ...]] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return rows (n, d)."""
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))

    def compute_output_width(self, width: int | None) -> int | None:
        """Return the input width."""
        return width


@dataclass(frozen=True)
class SelectColumns:
    """Select columns.

    Parameters
    ----------
    indices : ndarray of shape (k,), integer
        Column numbers, in the order of the output.
    """

    indices: np.ndarray

    kind: ClassVar[str] = "select_columns"
    array_fields: ClassVar[tuple[str, ...]] = ("indices",)
    json_fields: ClassVar[tuple[str, ...]] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return rows (n, k)."""
        return np.asarray(values[:, self.indices])

    def compute_output_width(self, width: int | None) -> int:
        """Return the output width, k."""
        if self.indices.ndim != 1 or self.indices.dtype.kind not in "iu" or not len(self.indices):
            raise ValueError(f"invalid column numbers of dtype {self.indices.dtype} and shape {self.indices.shape}")
        if self.indices.min() < 0 or (width is not None and self.indices.max() >= width):
            raise ValueError(f"column number {int(self.indices.max())} of only {width} columns")
        return len(self.indices)


def activate(values: np.ndarray, activation: str) -> np.ndarray:
    """Apply one of Keras's activations, with its default arguments, to rows (n, d)."""
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


def check_width(width: int | None, columns: int, out: int) -> int:
    """Return the output width `out`; raises `ValueError` if the input width is not `columns`."""
    if width is not None and width != columns:
        raise ValueError(f"a layer takes {columns} columns, but gets {width}")
    return out
