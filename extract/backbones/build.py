"""A frozen network, built as asked: its flat graph and the spec that keys its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.errors import BackboneError, WeightsError
from ...cache.formatting import format_error
from ...cache.spec import ExtractionSpec
from ..pixels import decode
from . import batch_norm_folding, precision, weights
from .backbone_spec import BackboneSpec
from .graph import Graph, collect_operations
from .keras_runtime import reset_layer_names, seed_initializers
from .registry import list_backbones


@dataclass(frozen=True)
class Backbone:
    """A network that can be cut at any of its layers.

    Attributes
    ----------
    spec : ExtractionSpec
        The key of its features.
    graph : Graph
        Its layers, which share the weights of the loaded model.
    """

    spec: ExtractionSpec
    graph: Graph


def build(
    backbone_spec: BackboneSpec,
    *,
    fold_batch_norm: bool = True,
    finetuned_weights: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> Backbone:
    """The backbone that is asked for, with its weights; imports Keras.

    Parameters
    ----------
    backbone_spec : BackboneSpec
        What is asked for.
    fold_batch_norm : bool
        Whether convolutions do the normalisations that follow them; False leaves these as they are, to be trained.
    finetuned_weights : mapping or None
        Other weights for some of the layers, by name, as their `get_weights` gave them. The result's `spec` is of the
        network without them.

    Raises
    ------
    BackboneError, WeightsError
        Where the network cannot be built as asked, or its weights are not there or do not fit.
    """
    source = backbone_spec.source
    _check_minimum_size(backbone_spec)
    _check_weights_name(backbone_spec)
    with reset_layer_names(), seed_initializers(backbone_spec.seed):
        model = source.build(backbone_spec)
        _check_input(model, backbone_spec)
        if backbone_spec.weights_file is not None:
            weights.load(model, backbone_spec.weights_file)
        architecture = source.compute_architecture(backbone_spec)
        model.trainable = False
        digest = weights.compute_digest(model)
        _set_finetuned_weights(model, finetuned_weights or {}, backbone_spec)
        compute_precision = precision.choose(backbone_spec.precision)
        precision.apply(model, compute_precision)
        image_size = _choose_image_size(backbone_spec, model)
        mode = backbone_spec.preprocessing or backbone_spec.info.preprocessing
        try:
            graph = Graph(model, image_size, mode, fold_batch_norm=fold_batch_norm)
        except (ValueError, TypeError) as error:
            raise BackboneError(
                f"backbone {backbone_spec.name} at {image_size[0]}x{image_size[1]} pixels: {format_error(error)}"
            ) from error
    spec = ExtractionSpec(
        **backbone_spec.to_descriptive_fields(),
        architecture=architecture,
        weights_sha256=digest,
        image_size=image_size,
        preprocessing=mode,
        pixels=decode.get_version(),
        precision=compute_precision,
        forward=batch_norm_folding.VERSION,
    )
    return Backbone(spec, graph)


def _check_minimum_size(backbone_spec: BackboneSpec) -> None:
    height, width, _ = backbone_spec.input_shape
    min_size = backbone_spec.info.min_size
    if height is not None and width is not None and min(height, width) < min_size:
        raise BackboneError(
            f"backbone {backbone_spec.name}: expected images of at least {min_size} pixels a side, "
            f"found {height}x{width}; give a larger --image-size"
        )


def _check_weights_name(backbone_spec: BackboneSpec) -> None:
    """Raise `WeightsError` where the name of other backbones' weights would be taken for the path of a file."""
    names = {info.pretrained_weights for info in list_backbones()}
    if backbone_spec.weights_file is not None and backbone_spec.weights in names:
        raise WeightsError(
            f"backbone {backbone_spec.name}: expected weights {backbone_spec.info.pretrained_weights}, random or a file, "
            f"found {backbone_spec.weights!r}"
        )


def _check_input(model: Any, backbone_spec: BackboneSpec) -> None:
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise BackboneError(
            f"backbone {backbone_spec.info.address}: expected one input (batch, height, width, 3), found {shapes or 'none'}"
        )


def _choose_image_size(backbone_spec: BackboneSpec, model: Any) -> tuple[int, int]:
    """(height, width) as asked for, by default, or of the network's input; raises `BackboneError` where none is fixed."""
    height, width, _ = backbone_spec.input_shape
    if height is None or width is None:
        height, width = model.inputs[0].shape[1:3]
    if height is None or width is None:
        raise BackboneError(
            f"backbone {backbone_spec.info.address}: its input has no fixed size, found {(height, width)}; give --image-size"
        )
    return int(height), int(width)


def _set_finetuned_weights(
    model: Any, finetuned_weights: Mapping[str, Sequence[np.ndarray]], backbone_spec: BackboneSpec
) -> None:
    operations = collect_operations(model)
    for name, values in finetuned_weights.items():
        try:
            operations[name].set_weights(list(values))
        except (KeyError, ValueError, AttributeError) as error:
            raise WeightsError(
                f"backbone {backbone_spec.title}: expected a layer {name} that the tuned weights fit, found: "
                f"{format_error(error)}; they belong to another network"
            ) from error
