"""A frozen network, built as asked: its flat graph and the spec that keys its features."""

from __future__ import annotations

import hashlib
import inspect
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import BackboneError, WeightsError
from ...cache.spec import ExtractionSpec
from ..pixels import decode
from . import batch_norm_folding, precision, weights
from .backbone_spec import BackboneSpec
from .graph import Graph, collect_operations
from .keras_runtime import load_keras, reset_layer_names, seed_initializers
from .nano import WEIGHTS as NANO_WEIGHTS
from .nano import build_nano


@dataclass(frozen=True)
class Backbone:
    """A network that can be cut at any of its layers; `graph` shares the weights of the loaded model."""

    spec: ExtractionSpec
    graph: Graph


def build(
    backbone_spec: BackboneSpec,
    *,
    fold_batch_norm: bool = True,
    finetuned_weights: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> Backbone:
    """The backbone that `backbone_spec` describes, with its weights; imports Keras.

    finetuned_weights: other weights for some of the layers, as their `get_weights` gave them, by name; `spec` is of the
    network without them. Without `fold_batch_norm` normalisations stay as they are, to be trained. Raises `BackboneError` or
    `WeightsError`.
    """
    with reset_layer_names(), seed_initializers(backbone_spec.seed):
        if backbone_spec.file is not None:
            model, architecture = _load(backbone_spec), _compute_file_architecture(backbone_spec.file)
        else:
            model, architecture = _construct(backbone_spec), _format_architecture(backbone_spec)
        model.trainable = False
        digest = weights.compute_digest(model)
        _set_finetuned_weights(model, finetuned_weights or {}, backbone_spec)
        compute_precision = precision.choose(backbone_spec.precision)
        precision.apply(model, compute_precision)
        image_size = _choose_image_size(backbone_spec, model)
        mode = backbone_spec.preprocessing or _choose_preprocessing(backbone_spec)
        try:
            graph = Graph(model, image_size, mode, fold_batch_norm=fold_batch_norm)
        except (ValueError, TypeError) as error:
            raise BackboneError(
                f"backbone {backbone_spec.name} at {image_size[0]}x{image_size[1]} pixels: {_format_error(error)}"
            ) from error
    spec = ExtractionSpec(
        **get_descriptive_fields(backbone_spec),
        architecture=architecture,
        weights_sha256=digest,
        image_size=image_size,
        preprocessing=mode,
        pixels=decode.get_version(),
        precision=compute_precision,
        forward=batch_norm_folding.VERSION,
    )
    return Backbone(spec, graph)


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
                f"{_format_error(error)}; they belong to another network"
            ) from error


def _construct(backbone_spec: BackboneSpec) -> Any:
    assert backbone_spec.application is not None
    application = backbone_spec.application
    height, width = backbone_spec.image_size or (application.size, application.size)
    if min(height, width) < application.minimum:
        raise BackboneError(
            f"backbone {backbone_spec.name}: expected images of at least {application.minimum} pixels a side, "
            f"found {height}x{width}; give a larger --image-size"
        )
    if application.constructor == "nano":
        if backbone_spec.arguments:
            raise BackboneError(f"backbone nano: it has no arguments, found {', '.join(backbone_spec.arguments)}")
        model = build_nano((height, width, 3))
    else:
        model = _build_keras_application(backbone_spec, (height, width, 3))
    path = {"imagenet": None, "random": None, "synthetic": NANO_WEIGHTS}.get(
        backbone_spec.weights, Path(backbone_spec.weights)
    )
    if backbone_spec.weights in {"imagenet", "synthetic"} and backbone_spec.weights != application.pretrained:
        raise WeightsError(
            f"backbone {backbone_spec.name}: expected weights {application.pretrained}, random or a file, "
            f"found {backbone_spec.weights!r}"
        )
    if path is not None:
        weights.load(model, path)
    return model


def _build_keras_application(backbone_spec: BackboneSpec, shape: tuple[int, int, int]) -> Any:
    assert backbone_spec.application is not None
    constructor = getattr(load_keras().applications, backbone_spec.application.constructor)
    accepted = inspect.signature(constructor).parameters
    for name in backbone_spec.arguments:
        if name not in accepted:
            raise BackboneError(
                f"backbone {backbone_spec.name}: expected an argument of keras.applications."
                f"{backbone_spec.application.constructor} ({', '.join(accepted)}), found {name!r}"
            )
    arguments = {"include_top": False, **backbone_spec.arguments}
    pretrained = "imagenet" if backbone_spec.weights == "imagenet" else None
    try:
        with weights.explain_download_errors(backbone_spec.name):
            return constructor(weights=pretrained, input_shape=shape, **arguments)
    except WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise BackboneError(
            f"backbone {backbone_spec.title} at {shape[0]}x{shape[1]} pixels: {_format_error(error)}"
        ) from error


def _load(backbone_spec: BackboneSpec) -> Any:
    path, keras = backbone_spec.file, load_keras()
    assert path is not None
    try:
        with weights.forbid_skipped_layers():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a file of the user's: Keras raises almost anything on a damaged or hostile one
        raise BackboneError(f"backbone {path}: cannot be loaded as a .keras file: {_format_error(error)}") from error
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise BackboneError(f"backbone {path}: expected one input (batch, height, width, 3), found {shapes or 'none'}")
    if backbone_spec.weights == "random":
        raise WeightsError(f"backbone {path}: a file comes with its weights, found --weights random; leave it out")
    if backbone_spec.weights != "file":
        weights.load(model, Path(backbone_spec.weights))
    return model


def get_descriptive_fields(backbone_spec: BackboneSpec) -> dict[str, Any]:
    """The fields of a spec that only name things, as `backbone_spec` names them."""
    weights_file = Path(backbone_spec.weights)
    if backbone_spec.weights == "random":
        weights_label = f"random, seed {backbone_spec.seed}"
    else:
        weights_label = str(weights_file.absolute()) if weights_file.is_file() else backbone_spec.weights
    return {
        "backbone": backbone_spec.name,
        "arguments": dict(backbone_spec.arguments),
        "weights": weights_label,
        "file": str(backbone_spec.file.absolute()) if backbone_spec.file else "",
    }


def _format_architecture(backbone_spec: BackboneSpec) -> str:
    assert backbone_spec.application is not None
    arguments = ", ".join(f"{key}={value!r}" for key, value in sorted(backbone_spec.arguments.items()))
    package = "humeris" if backbone_spec.application.constructor == "nano" else "keras.applications"
    return f"{package}.{backbone_spec.application.constructor}({arguments})"


def _compute_file_architecture(path: Path) -> str:
    """The digest of the file's own configuration: the same weights in another structure give other features.

    Raises `BackboneError`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = dict(json.loads(archive.read("config.json")))
    except (OSError, KeyError, ValueError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise BackboneError(f"backbone {path}: expected a .keras file, found another one: {_format_error(error)}") from error
    config.pop("compile_config", None)
    return f"sha256:{hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()}"


def _choose_image_size(backbone_spec: BackboneSpec, model: Any) -> tuple[int, int]:
    if backbone_spec.image_size is not None:
        return backbone_spec.image_size
    if backbone_spec.application is not None:
        return backbone_spec.application.size, backbone_spec.application.size
    height, width = model.inputs[0].shape[1:3]
    if height is None or width is None:
        raise BackboneError(
            f"backbone {backbone_spec.file}: its input has no fixed size, found {(height, width)}; give --image-size"
        )
    return int(height), int(width)


def _choose_preprocessing(backbone_spec: BackboneSpec) -> str:
    assert backbone_spec.application is not None
    if backbone_spec.arguments.get("include_preprocessing") is False:
        raise BackboneError(
            f"backbone {backbone_spec.name}: with include_preprocessing=false its pixels must be scaled outside; "
            f"write {backbone_spec.name},include_preprocessing=false,preprocessing=MODE"
        )
    return backbone_spec.application.preprocessing


def _format_error(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
