"""A head on its backbone, as one flat Keras model from RGB bytes to class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..extract import taps
from ..extract.backbone import Backbone
from ..extract.runtime import load_keras
from ..extract.taps import Tap
from .head import Head
from .layers import NEAREST, Columns, Dense, Layer, Neighbours, Scale, Unit

OUTPUT = "probabilities"


def stack(backbone: Backbone, wanted: Sequence[Tap], head: Head) -> Any:
    """The Keras model: `image` uint8 (batch, height, width, 3) -> `probabilities` (batch, classes).

    The network is cut above the deepest tap and its preprocessing is inside. The model shares the backbone's weights.
    """
    keras = load_keras()
    graph = backbone.graph
    rows = [taps.apply(graph.outputs[tap.layer], tap) for tap in wanted]
    for number, row in enumerate(rows):
        if len(row.shape) > 2:
            rows[number] = keras.layers.Flatten(name=f"humeris_flat{number}")(row)
    values = rows[0] if len(rows) == 1 else keras.layers.Concatenate(name="humeris_features")(rows)
    return keras.Model(graph.image, apply(head.layers, values), name="humeris")


def apply(layers: Sequence[Layer], values: Any) -> Any:
    """Keras's tensor (batch, classes) of the layers on a tensor (batch, d), of Keras's own layers and operations alone.

    The last Keras layer is called `probabilities`.
    """
    for number, layer in enumerate(layers):
        name = OUTPUT if number == len(layers) - 1 else f"humeris_{layer.kind}{number}"
        values = _keras(layer, values, name)
    return values


def _keras(layer: Layer, values: Any, name: str) -> Any:
    keras = load_keras()
    match layer:
        case Dense():
            dense = keras.layers.Dense(layer.weights.shape[1], activation=layer.activation, dtype="float32", name=name)
            return _with(dense, values, layer.weights, layer.bias)
        case Scale():
            scale = keras.layers.BatchNormalization(center=False, epsilon=0.0, trainable=False, dtype="float32", name=name)
            return _with(scale, values, layer.factor, layer.mean, np.ones_like(layer.mean))
        case Unit():
            return keras.layers.UnitNormalization(dtype="float32", name=name)(values)
        case Columns():
            return keras.ops.take(values, layer.indices.astype(np.int32), axis=1)
        case Neighbours():
            return _vote(layer, values, name)
    raise TypeError(f"no Keras layer for {layer.kind}")


def _vote(layer: Neighbours, values: Any, name: str) -> Any:
    """The neighbours' votes (batch, classes): labels are looked up in an embedding of one-hot rows."""
    keras = load_keras()
    count, near = (
        layer.n_neighbors,
        keras.layers.Dense(len(layer.rows), use_bias=False, dtype="float32", name=f"{name}_near"),
    )
    cosines, nearest = keras.ops.top_k(_with(near, values, np.ascontiguousarray(layer.rows.T)), count)
    table = keras.layers.Embedding(len(layer.rows), layer.classes, dtype="float32", name=f"{name}_labels")
    found = _with(table, nearest, np.eye(layer.classes, dtype=np.float32)[layer.labels])
    if layer.weights == "distance":
        shares = 1.0 / keras.ops.maximum(1.0 - cosines, NEAREST)
        shares = shares / keras.ops.sum(shares, axis=1, keepdims=True)
        found = keras.layers.Dot(axes=1, dtype="float32", name=f"{name}_votes")([shares, found])
    else:
        found = keras.layers.GlobalAveragePooling1D(dtype="float32", name=f"{name}_votes")(found)
    smooth = keras.layers.Rescaling(count / (count + 1), 1 / (layer.classes * (count + 1)), dtype="float32", name=name)
    return smooth(found)


def _with(layer: Any, values: Any, *weights: np.ndarray) -> Any:
    out = layer(values)
    layer.set_weights(list(weights))
    return out
