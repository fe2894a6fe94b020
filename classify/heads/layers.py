"""The layers that heads are made of: what each computes, in NumPy, and what is kept of it; `stack` has them in Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ..data.nearest_neighbors import top_k

ACTIVATIONS = ("linear", "relu", "leaky_relu", "silu", "mish", "gelu", "softmax")
VOTE_WEIGHTS = ("uniform", "distance")
_MAX_SIMILARITIES = 1 << 22  # in memory at a time
MIN_COSINE_DISTANCE = (
    1e-3  # cosine distance below which rows count as equally near: float32 knows it to a ten-thousandth there
)


class HeadLayer(Protocol):
    """Rows (n, d) in, rows (n, k) out, in float32.

    kind: its name on disk. numbers, texts: the fields that are arrays and those that are JSON values.
    """

    kind: ClassVar[str]
    array_fields: ClassVar[tuple[str, ...]]
    json_fields: ClassVar[tuple[str, ...]]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Rows (n, k) of rows (n, d)."""

    def compute_output_width(self, width: int | None) -> int | None:
        """Columns that come out where `width` go in, None where that is not known; raises `ValueError` if they cannot."""


@dataclass(frozen=True)
class Dense:
    """`activation(x @ weights + bias)`; weights (d, k) and bias (k,) are float32; Keras's activations, at its defaults."""

    weights: np.ndarray
    bias: np.ndarray
    activation: str = "linear"

    kind: ClassVar[str] = "dense"
    array_fields: ClassVar[tuple[str, ...]] = ("weights", "bias")
    json_fields: ClassVar[tuple[str, ...]] = ("activation",)

    def absorb_scaler(self, mean: np.ndarray, scale: np.ndarray) -> Dense:
        """The layer that takes raw rows where this one takes `(x - mean) / deviation`, computed in float64."""
        weights = self.weights.astype(np.float64) / scale.astype(np.float64)[:, None]
        bias = self.bias.astype(np.float64) - mean.astype(np.float64) @ weights
        return Dense(weights.astype(np.float32), bias.astype(np.float32), self.activation)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Rows (n, k)."""
        return activate(values @ self.weights + self.bias, self.activation)

    def compute_output_width(self, width: int | None) -> int:
        """The columns that come out, k."""
        if self.weights.ndim != 2 or self.bias.shape != self.weights.shape[1:]:
            raise ValueError(f"weights {self.weights.shape} and a bias {self.bias.shape} that do not fit")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"an activation {self.activation!r}")
        return _check_width(width, *self.weights.shape)


@dataclass(frozen=True)
class Standardize:
    """`(x - mean) * factor`, column by column; both (d,) float32."""

    mean: np.ndarray
    factor: np.ndarray

    kind: ClassVar[str] = "scale"
    array_fields: ClassVar[tuple[str, ...]] = ("mean", "factor")
    json_fields: ClassVar[tuple[str, ...]] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Rows (n, d)."""
        return np.asarray((values - self.mean) * self.factor)

    def compute_output_width(self, width: int | None) -> int:
        """The columns that come out, d."""
        if self.mean.ndim != 1 or self.factor.shape != self.mean.shape:
            raise ValueError(f"a mean {self.mean.shape} and a factor {self.factor.shape} that do not fit")
        return _check_width(width, len(self.mean), len(self.mean))


@dataclass(frozen=True)
class L2Normalize:
    """Each row over its Euclidean length; a row of zeros stays one."""

    kind: ClassVar[str] = "unit"
    array_fields: ClassVar[tuple[str, ...]] = ()
    json_fields: ClassVar[tuple[str, ...]] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Rows (n, d)."""
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))

    def compute_output_width(self, width: int | None) -> int | None:
        """The same."""
        return width


@dataclass(frozen=True)
class SelectColumns:
    """Some of the columns: those numbered `indices` (k,), in that order."""

    indices: np.ndarray

    kind: ClassVar[str] = "columns"
    array_fields: ClassVar[tuple[str, ...]] = ("indices",)
    json_fields: ClassVar[tuple[str, ...]] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Rows (n, k)."""
        return np.asarray(values[:, self.indices])

    def compute_output_width(self, width: int | None) -> int:
        """The columns that come out, k."""
        if self.indices.ndim != 1 or self.indices.dtype.kind not in "iu" or not len(self.indices):
            raise ValueError(f"column numbers that are {self.indices.dtype} {self.indices.shape}")
        if self.indices.min() < 0 or (width is not None and self.indices.max() >= width):
            raise ValueError(f"a column numbered {int(self.indices.max())} of {width}")
        return len(self.indices)


@dataclass(frozen=True)
class NeighborVotes:
    """Probabilities from the votes of the nearest stored rows, by cosine; rows that come in have length 1, as those have.

    rows (m, d) float32; labels (m,): class numbers; n_neighbors votes count alike (weights "uniform") or by one over the
    cosine distance ("distance"), as in scikit-learn. Of equally near rows the first stored comes first. One vote more is
    shared equally among all classes, so that no probability is 0; it changes no order.
    """

    rows: np.ndarray
    labels: np.ndarray
    n_neighbors: int
    weights: str
    classes: int

    kind: ClassVar[str] = "neighbours"
    array_fields: ClassVar[tuple[str, ...]] = ("rows", "labels")
    json_fields: ClassVar[tuple[str, ...]] = ("n_neighbors", "weights", "classes")

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes)."""
        probabilities, block_size = (
            np.empty((len(values), self.classes), np.float32),
            max(1, _MAX_SIMILARITIES // len(self.rows)),
        )
        for start in range(0, len(values), block_size):
            similarity, nearest = top_k(values[start : start + block_size] @ self.rows.T, self.n_neighbors)
            probabilities[start : start + block_size] = vote(similarity, self.labels[nearest], self.classes, self.weights)
        return probabilities

    def find_ties(self, values: np.ndarray, rounding: float, tolerance: float) -> np.ndarray:
        """Mask (n,) of rows whose probabilities may change by more than `bound` where cosines do by `rounding`.

        Either rows of several classes are equally near on the edge of the neighbours, so that any of them may vote, or (for
        weights "distance", to first order) the neighbours are so near that their weights are uncertain.
        """
        mask, block_size = np.zeros(len(values), bool), max(1, _MAX_SIMILARITIES // len(self.rows))
        for start in range(0, len(values), block_size):
            block = slice(start, start + block_size)
            cosines = values[block] @ self.rows.T
            similarity, nearest = top_k(cosines, self.n_neighbors)
            farthest = similarity[:, -1:]
            on_edge = np.abs(cosines - farthest) <= 2 * rounding
            open_votes = self.n_neighbors - (cosines > farthest + 2 * rounding).sum(axis=1)
            mixed_classes = np.where(on_edge, self.labels, -1).max(axis=1) > np.where(
                on_edge, self.labels, self.classes
            ).min(axis=1)
            mask[block] = mixed_classes & (on_edge.sum(axis=1) > open_votes)
            if self.weights == "distance":
                distance, vote_shares, labels = (
                    1 - similarity,
                    _compute_vote_shares(similarity, self.weights),
                    self.labels[nearest],
                )
                other_shares = 1 - np.take_along_axis(_sum_by_class(labels, vote_shares, self.classes), labels, axis=1)
                slopes = np.where(
                    distance > MIN_COSINE_DISTANCE - rounding,
                    vote_shares * other_shares / np.maximum(distance, MIN_COSINE_DISTANCE),
                    0,
                )
                mask[block] |= slopes.sum(axis=1) * rounding > tolerance
        return mask

    def compute_output_width(self, width: int | None) -> int:
        """The number of classes."""
        if self.rows.ndim != 2 or self.labels.shape != self.rows.shape[:1] or self.labels.dtype.kind not in "iu":
            raise ValueError(f"rows {self.rows.shape} and labels {self.labels.shape} that do not fit")
        if not 1 <= self.n_neighbors <= len(self.rows) or not 0 <= self.labels.min() <= self.labels.max() < self.classes:
            raise ValueError(f"{self.n_neighbors} neighbours of {len(self.rows)} rows in {self.classes} classes")
        if self.weights not in VOTE_WEIGHTS:
            raise ValueError(f"weights {self.weights!r}")
        return _check_width(width, self.rows.shape[1], self.classes)


KINDS: Mapping[str, Any] = {kind.kind: kind for kind in (Dense, Standardize, L2Normalize, SelectColumns, NeighborVotes)}


def describe_layer(layer: HeadLayer) -> dict[str, Any]:
    """What the arrays of a layer do not say, as JSON values."""
    return {"kind": layer.kind, **{name: getattr(layer, name) for name in layer.json_fields}}


def restore_layer(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray], index: int) -> HeadLayer:
    """Layer `number` of a description and arrays; raises `KeyError` where one is missing, `ValueError` for another kind."""
    if metadata["kind"] not in KINDS:
        raise ValueError(f"a layer of kind {metadata['kind']!r}, which this version does not know")
    kind = KINDS[metadata["kind"]]
    values = {name: arrays[f"{name}{index}"] for name in kind.array_fields} | {
        name: metadata[name] for name in kind.json_fields
    }
    layer: HeadLayer = kind(**values)
    return layer


def vote(similarity: np.ndarray, labels: np.ndarray, n_classes: int, weights: str) -> np.ndarray:
    """Probabilities (n, classes) float32 from cosines (n, k) and class numbers (n, k) of k neighbours; see `Neighbours`."""
    n_neighbors = similarity.shape[1]
    class_shares = _sum_by_class(labels, _compute_vote_shares(similarity, weights), n_classes)
    return np.asarray(
        class_shares * np.float32(n_neighbors / (n_neighbors + 1)) + np.float32(1 / (n_classes * (n_neighbors + 1)))
    )


def _compute_vote_shares(similarity: np.ndarray, weights: str) -> np.ndarray:
    """What each neighbour's vote counts, (n, k), 1 in all, from cosines (n, k)."""
    distance = np.float32(1) - similarity if weights == "distance" else np.ones_like(similarity)
    shares = 1 / np.maximum(distance, np.float32(MIN_COSINE_DISTANCE))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _sum_by_class(labels: np.ndarray, shares: np.ndarray, n_classes: int) -> np.ndarray:
    """The shares (n, k) of each class, (n, classes), from class numbers (n, k)."""
    totals = np.zeros((len(labels), n_classes), np.float32)
    np.add.at(totals, (np.arange(len(labels))[:, None], labels), shares)
    return totals


def activate(values: np.ndarray, activation: str) -> np.ndarray:
    """Keras's activations, at its default arguments."""
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


def _check_width(width: int | None, columns: int, out: int) -> int:
    if width is not None and width != columns:
        raise ValueError(f"a layer of {columns} columns after one of {width}")
    return out
