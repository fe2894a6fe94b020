"""A head on its backbone, as one flat Keras model from RGB bytes to class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...cache.errors import ModelError
from ...extract.backbones import taps
from ...extract.backbones.build import Backbone
from ...extract.backbones.keras_runtime import load_keras
from ...extract.backbones.taps import Tap
from ..heads.head import Head
from ..heads.layers import NEAREST, Columns, Dense, Layer, Neighbours, Scale, Unit

OUTPUT = "probabilities"


def stack(backbone: Backbone | Sequence[Backbone], wanted: Sequence[Tap], head: Head) -> Any:
    """The Keras model: `image` uint8 (batch, height, width, 3) -> `probabilities` (batch, classes).

    The network is cut above the deepest tap and its preprocessing is inside. With a backbone for each tap, all networks see
    one image, which must have the same size in each (`ModelError`). The model shares the backbones' weights.
    """
    keras = load_keras()
    image, values = features(backbone, wanted)
    return keras.Model(image, apply(head.layers, values), name="humeris")


def features(backbone: Backbone | Sequence[Backbone], wanted: Sequence[Tap]) -> tuple[Any, Any]:
    """The symbolic image, and the rows (batch, d) of the taps of it side by side, as `stack` has them."""
    keras = load_keras()
    backbones = [backbone] * len(wanted) if isinstance(backbone, Backbone) else list(backbone)
    image, rows = _rows(backbones, wanted)
    for number, row in enumerate(rows):
        if len(row.shape) > 2:
            rows[number] = keras.layers.Flatten(name=f"humeris_flat{number}")(row)
    return image, rows[0] if len(rows) == 1 else keras.layers.Concatenate(name="humeris_features")(rows)


def _rows(backbones: Sequence[Backbone], wanted: Sequence[Tap]) -> tuple[Any, list[Any]]:
    """The symbolic image, and the rows of each tap of it.

    Networks after the first are run through again on the first one's image, with other names where names are taken: a Keras
    model has one input here, and refuses two operations of one name.
    """
    keras = load_keras()
    image, rows, taken = backbones[0].graph.image, [None] * len(wanted), set[str]()
    for number, backbone in enumerate({id(each): each for each in backbones}.values()):
        mine = [place for place, each in enumerate(backbones) if each is backbone]
        found = [taps.apply(backbone.graph.outputs[wanted[place].layer], wanted[place]) for place in mine]
        if number:
            if backbone.graph.image.shape != image.shape:
                raise ModelError(
                    f"backbones {backbones[0].spec.title} and {backbone.spec.title}: expected one image size, since a model "
                    f"has one input, found {tuple(image.shape[1:3])} and {tuple(backbone.graph.image.shape[1:3])}; "
                    "extract both with the same --image-size"
                )
            part = keras.Model(backbone.graph.image, found)
            for operation in part.operations:
                if operation.name in taken:
                    operation.name = f"humeris_{number}_{operation.name}"
            found = part._run_through_graph(image, call_fn=lambda operation, *args, **kwargs: operation(*args, **kwargs))
            found = found if isinstance(found, list) else [found]
            taken |= {operation.name for operation in part.operations}
        elif len(set(map(id, backbones))) > 1:
            taken |= {operation.name for operation in keras.Model(image, found).operations}
        for place, row in zip(mine, found, strict=True):
            rows[place] = row
    return image, rows


def apply(layers: Sequence[Layer], values: Any) -> Any:
    """Keras's tensor (batch, classes) of the layers on a tensor (batch, d), of Keras's own layers and operations alone.

    The last Keras layer is called `probabilities`.
    """
    for name, layer in zip(names(layers), layers, strict=True):
        values = _keras(layer, values, name)
    return values


def names(layers: Sequence[Layer]) -> list[str]:
    """What `apply` calls the Keras layers of the layers."""
    return [OUTPUT if number == len(layers) - 1 else f"humeris_{layer.kind}{number}" for number, layer in enumerate(layers)]


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
