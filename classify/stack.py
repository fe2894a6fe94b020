"""A head on its backbone, as one flat Keras model from RGB bytes to class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..extract import taps
from ..extract.backbone import Backbone
from ..extract.runtime import load_keras
from ..extract.taps import Tap
from .head import Head


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
    layers = []
    for number, dense in enumerate(head.layers):
        last = number == len(head.layers) - 1
        layer = keras.layers.Dense(
            dense.weights.shape[1],
            activation=dense.activation,
            dtype="float32",
            name="probabilities" if last else f"humeris_dense{number}",
        )
        values = layer(values)
        layers.append((layer, dense))
    model = keras.Model(graph.image, values, name="humeris")
    for layer, dense in layers:
        layer.set_weights([dense.weights, dense.bias])
    return model
