"""Stack a head on its backbone, as one flat Keras model from RGB pixels to class probabilities."""

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
from ..heads.layers import Dense, HeadLayer, L2Normalize, SelectColumns, Standardize
from ..heads.neighbor_votes import MIN_COSINE_DISTANCE, NeighborVotes

OUTPUT = "probabilities"


def stack_model(backbone: Backbone | Sequence[Backbone], selected_taps: Sequence[Tap], head: Head) -> Any:
    """Build one model of a head and its backbones, whose weights it shares.

    Parameters
    ----------
    backbone : Backbone or sequence of Backbone
        One for all taps, or one for each tap.
    selected_taps : sequence of Tap
        The taps that the head was trained on, in this order. Layers above the deepest tap of a backbone are left out.
    head : Head
        The head.

    Returns
    -------
    keras.Model
        Maps ``image``, uint8 (batch, height, width, 3), to ``probabilities``, float32 (batch, classes); preprocessing
        is part of the model.

    Raises
    ------
    ModelError
        If the image sizes of the backbones differ.
    """
    keras = load_keras()
    image, values = build_features(backbone, selected_taps)
    return keras.Model(image, apply_layers(head.layers, values), name="humeris")


def build_features(backbone: Backbone | Sequence[Backbone], selected_taps: Sequence[Tap]) -> tuple[Any, Any]:
    """Return the symbolic image and the concatenated features (batch, d) of its taps; see `stack_model`."""
    keras = load_keras()
    backbones = [backbone] * len(selected_taps) if isinstance(backbone, Backbone) else list(backbone)
    image, rows = _build_tap_outputs(backbones, selected_taps)
    for index, row in enumerate(rows):
        if len(row.shape) > 2:
            rows[index] = keras.layers.Flatten(name=f"humeris_flat{index}")(row)
    return image, rows[0] if len(rows) == 1 else keras.layers.Concatenate(name="humeris_features")(rows)


def _build_tap_outputs(backbones: Sequence[Backbone], selected_taps: Sequence[Tap]) -> tuple[Any, list[Any]]:
    """Return the symbolic image and the rows of each of its taps.

    Networks after the first are called again on the image of the first one, since the model has one input, and operations
    whose names are taken are renamed, since Keras requires unique names.
    """
    keras = load_keras()
    image, rows, used_names = backbones[0].graph.image, [None] * len(selected_taps), set[str]()
    for number, backbone in enumerate({id(other): other for other in backbones}.values()):
        indices = [index for index, other in enumerate(backbones) if other is backbone]
        tap_outputs = [
            taps.apply(backbone.graph.outputs[selected_taps[index].layer], selected_taps[index]) for index in indices
        ]
        if number:
            if backbone.graph.image.shape != image.shape:
                raise ModelError(
                    f"backbones {backbones[0].spec.title} and {backbone.spec.title}: image sizes differ "
                    f"({tuple(image.shape[1:3])} and {tuple(backbone.graph.image.shape[1:3])}), but a model has one input; "
                    "extract both with the same --image-size"
                )
            submodel = keras.Model(backbone.graph.image, tap_outputs)
            for operation in submodel.operations:
                if operation.name in used_names:
                    operation.name = f"humeris_{number}_{operation.name}"
            tap_outputs = submodel._run_through_graph(
                image, call_fn=lambda operation, *args, **kwargs: operation(*args, **kwargs)
            )
            tap_outputs = tap_outputs if isinstance(tap_outputs, list) else [tap_outputs]
            used_names |= {operation.name for operation in submodel.operations}
        elif len(set(map(id, backbones))) > 1:
            used_names |= {operation.name for operation in keras.Model(image, tap_outputs).operations}
        for index, row in zip(indices, tap_outputs, strict=True):
            rows[index] = row
    return image, rows


def apply_layers(layers: Sequence[HeadLayer], values: Any) -> Any:
    """Apply the layers of a head as Keras layers and operations.

    Parameters
    ----------
    layers : sequence of HeadLayer
        The layers; the last one is named ``probabilities``.
    values : KerasTensor
        (batch, d).

    Returns
    -------
    KerasTensor
        (batch, classes).
    """
    for name, layer in zip(list_layer_names(layers), layers, strict=True):
        values = _build_keras_layer(layer, values, name)
    return values


def list_layer_names(layers: Sequence[HeadLayer]) -> list[str]:
    """Return the names that `apply_layers` gives to the Keras layers."""
    return [OUTPUT if index == len(layers) - 1 else f"humeris_{layer.kind}{index}" for index, layer in enumerate(layers)]


def _build_keras_layer(layer: HeadLayer, values: Any, name: str) -> Any:
    keras = load_keras()
    match layer:
        case Dense():
            dense = keras.layers.Dense(layer.weights.shape[1], activation=layer.activation, dtype="float32", name=name)
            return _apply_with_weights(dense, values, layer.weights, layer.bias)
        case Standardize():
            scale = keras.layers.BatchNormalization(center=False, epsilon=0.0, trainable=False, dtype="float32", name=name)
            return _apply_with_weights(scale, values, layer.factor, layer.mean, np.ones_like(layer.mean))
        case L2Normalize():
            return keras.layers.UnitNormalization(dtype="float32", name=name)(values)
        case SelectColumns():
            return keras.ops.take(values, layer.indices.astype(np.int32), axis=1)
        case NeighborVotes():
            return _build_vote(layer, values, name)
    raise TypeError(f"no Keras layer for {layer.kind}")


def _build_vote(layer: NeighborVotes, values: Any, name: str) -> Any:
    """Return the votes (batch, classes) of the nearest neighbors; an embedding of one-hot rows looks up their labels."""
    keras = load_keras()
    n_neighbors, similarity_layer = (
        layer.n_neighbors,
        keras.layers.Dense(len(layer.rows), use_bias=False, dtype="float32", name=f"{name}_near"),
    )
    cosines, neighbor_indices = keras.ops.top_k(
        _apply_with_weights(similarity_layer, values, np.ascontiguousarray(layer.rows.T)), n_neighbors
    )
    label_table = keras.layers.Embedding(len(layer.rows), layer.n_classes, dtype="float32", name=f"{name}_labels")
    votes = _apply_with_weights(label_table, neighbor_indices, np.eye(layer.n_classes, dtype=np.float32)[layer.labels])
    if layer.weights == "distance":
        vote_weights = 1.0 / keras.ops.maximum(1.0 - cosines, MIN_COSINE_DISTANCE)
        vote_weights = vote_weights / keras.ops.sum(vote_weights, axis=1, keepdims=True)
        votes = keras.layers.Dot(axes=1, dtype="float32", name=f"{name}_votes")([vote_weights, votes])
    else:
        votes = keras.layers.GlobalAveragePooling1D(dtype="float32", name=f"{name}_votes")(votes)
    smoothing = keras.layers.Rescaling(
        n_neighbors / (n_neighbors + 1), 1 / (layer.n_classes * (n_neighbors + 1)), dtype="float32", name=name
    )
    return smoothing(votes)


def _apply_with_weights(layer: Any, values: Any, *weights: np.ndarray) -> Any:
    output = layer(values)
    layer.set_weights(list(weights))
    return output
