"""Build a frozen network: its flat graph, and the spec that is the key of its features."""

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
    """A frozen network whose layers can all be tapped.

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
    """Build a backbone with its weights; imports Keras.

    Parameters
    ----------
    backbone_spec : BackboneSpec
        The requested backbone.
    fold_batch_norm : bool
        Whether to fold batch normalizations into convolutions; use False for a network that is to be trained.
    finetuned_weights : mapping or None
        Layer name -> weights in the order of `get_weights`, which replace those of the layer. The `spec` of the result is
        that of the network without them.

    Returns
    -------
    Backbone
        The network, which is not trainable.

    Raises
    ------
    BackboneError, WeightsError
        If the network cannot be built as requested, or its weights are missing or do not fit.
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
                f"backbone {backbone_spec.name}: cannot be built for images of {image_size[0]}x{image_size[1]} pixels: "
                f"{format_error(error)}"
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
            f"backbone {backbone_spec.name}: images of {height}x{width} pixels are too small; "
            f"give an --image-size of at least {min_size} pixels"
        )


def _check_weights_name(backbone_spec: BackboneSpec) -> None:
    """Raise `WeightsError` for the name of another backbone's weights, which would be mistaken for the path of a file."""
    names = {info.pretrained_weights for info in list_backbones()}
    if backbone_spec.weights_file is not None and backbone_spec.weights in names:
        raise WeightsError(
            f"backbone {backbone_spec.name}: has no weights {backbone_spec.weights!r}; "
            f"choose {backbone_spec.info.pretrained_weights}, random or a weights file"
        )


def _check_input(model: Any, backbone_spec: BackboneSpec) -> None:
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise BackboneError(
            f"backbone {backbone_spec.info.address}: not a network of RGB images (inputs: {shapes or 'none'}); "
            "give one with a single input (batch, height, width, 3)"
        )


def _choose_image_size(backbone_spec: BackboneSpec, model: Any) -> tuple[int, int]:
    """Return the requested or default (height, width), or that of the network's input; raises `BackboneError`."""
    height, width, _ = backbone_spec.input_shape
    if height is None or width is None:
        height, width = model.inputs[0].shape[1:3]
    if height is None or width is None:
        raise BackboneError(
            f"backbone {backbone_spec.info.address}: its input has no fixed size, {(height, width)}; give --image-size"
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
                f"backbone {backbone_spec.title}: fine-tuned weights of another network do not fit layer {name}: "
                f"{format_error(error)}"
            ) from error
