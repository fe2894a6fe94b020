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
from ...cache.spec import Spec
from ..pixels import decode
from . import batch_norm_folding as folding
from . import precision, weights
from .backbone_spec import Request
from .graph import Graph, named
from .keras_runtime import fresh_names, load_keras, seeded
from .nano import WEIGHTS as NANO_WEIGHTS
from .nano import nano


@dataclass(frozen=True)
class Backbone:
    """A network that can be cut at any of its layers; `graph` shares the weights of the loaded model."""

    spec: Spec
    graph: Graph


def build(request: Request, *, fold: bool = True, tuned: Mapping[str, Sequence[np.ndarray]] | None = None) -> Backbone:
    """The backbone `request` describes, with its weights; imports Keras. Raises `BackboneError` or `WeightsError`.

    tuned: other weights for some of the layers, as their `get_weights` gave them, by name; `spec` is of the network without
    them. Without `fold` normalisations stay as they are, to be trained.
    """
    with fresh_names(), seeded(request.seed):
        if request.file is not None:
            model, architecture = _load(request), _file_architecture(request.file)
        else:
            model, architecture = _construct(request), _architecture(request)
        model.trainable = False
        digest = weights.digest(model)
        _put(model, tuned or {}, request)
        computing = precision.choose(request.precision)
        precision.apply(model, computing)
        size = _image_size(request, model)
        mode = request.preprocessing or _preprocessing(request)
        try:
            graph = Graph(model, size, mode, fold=fold)
        except (ValueError, TypeError) as error:
            raise BackboneError(f"backbone {request.name} at {size[0]}x{size[1]} pixels: {_line(error)}") from error
    spec = Spec(
        **described(request),
        architecture=architecture,
        weights_sha256=digest,
        image_size=size,
        preprocessing=mode,
        pixels=decode.version(),
        precision=computing,
        forward=folding.VERSION,
    )
    return Backbone(spec, graph)


def _put(model: Any, tuned: Mapping[str, Sequence[np.ndarray]], request: Request) -> None:
    layers = named(model)
    for name, values in tuned.items():
        try:
            layers[name].set_weights(list(values))
        except (KeyError, ValueError, AttributeError) as error:
            raise WeightsError(
                f"backbone {request.title}: expected a layer {name} that the tuned weights fit, found: {_line(error)}; "
                "they belong to another network"
            ) from error


def _construct(request: Request) -> Any:
    assert request.application is not None
    application = request.application
    height, width = request.image_size or (application.size, application.size)
    if min(height, width) < application.minimum:
        raise BackboneError(
            f"backbone {request.name}: expected images of at least {application.minimum} pixels a side, "
            f"found {height}x{width}; give a larger --image-size"
        )
    if application.constructor == "nano":
        if request.arguments:
            raise BackboneError(f"backbone nano: it has no arguments, found {', '.join(request.arguments)}")
        model = nano((height, width, 3))
    else:
        model = _keras_application(request, (height, width, 3))
    path = {"imagenet": None, "random": None, "drawings": NANO_WEIGHTS}.get(request.weights, Path(request.weights))
    if request.weights in {"imagenet", "drawings"} and request.weights != application.pretrained:
        raise WeightsError(
            f"backbone {request.name}: expected weights {application.pretrained}, random or a file, "
            f"found {request.weights!r}"
        )
    if path is not None:
        weights.load(model, path)
    return model


def _keras_application(request: Request, shape: tuple[int, int, int]) -> Any:
    assert request.application is not None
    constructor = getattr(load_keras().applications, request.application.constructor)
    accepted = inspect.signature(constructor).parameters
    for name in request.arguments:
        if name not in accepted:
            raise BackboneError(
                f"backbone {request.name}: expected an argument of keras.applications."
                f"{request.application.constructor} ({', '.join(accepted)}), found {name!r}"
            )
    arguments = {"include_top": False, **request.arguments}
    pretrained = "imagenet" if request.weights == "imagenet" else None
    try:
        with weights.download_errors(request.name):
            return constructor(weights=pretrained, input_shape=shape, **arguments)
    except WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise BackboneError(f"backbone {request.title} at {shape[0]}x{shape[1]} pixels: {_line(error)}") from error


def _load(request: Request) -> Any:
    path, keras = request.file, load_keras()
    assert path is not None
    try:
        with weights.nothing_skipped():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a file of the user's: Keras raises almost anything on a damaged or hostile one
        raise BackboneError(f"backbone {path}: cannot be loaded as a .keras file: {_line(error)}") from error
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise BackboneError(f"backbone {path}: expected one input (batch, height, width, 3), found {shapes or 'none'}")
    if request.weights == "random":
        raise WeightsError(f"backbone {path}: a file comes with its weights, found --weights random; leave it out")
    if request.weights != "file":
        weights.load(model, Path(request.weights))
    return model


def described(request: Request) -> dict[str, Any]:
    """The fields of a spec that only name things, as `request` names them."""
    weights_file = Path(request.weights)
    if request.weights == "random":
        named = f"random, seed {request.seed}"
    else:
        named = str(weights_file.absolute()) if weights_file.is_file() else request.weights
    return {
        "backbone": request.name,
        "arguments": dict(request.arguments),
        "weights": named,
        "file": str(request.file.absolute()) if request.file else "",
    }


def _architecture(request: Request) -> str:
    assert request.application is not None
    arguments = ", ".join(f"{key}={value!r}" for key, value in sorted(request.arguments.items()))
    package = "humeris" if request.application.constructor == "nano" else "keras.applications"
    return f"{package}.{request.application.constructor}({arguments})"


def _file_architecture(path: Path) -> str:
    """The digest of the file's own configuration: the same weights in another structure give other features.

    Raises `BackboneError`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = dict(json.loads(archive.read("config.json")))
    except (OSError, KeyError, ValueError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise BackboneError(f"backbone {path}: expected a .keras file, found another one: {_line(error)}") from error
    config.pop("compile_config", None)
    return f"sha256:{hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()}"


def _image_size(request: Request, model: Any) -> tuple[int, int]:
    if request.image_size is not None:
        return request.image_size
    if request.application is not None:
        return request.application.size, request.application.size
    height, width = model.inputs[0].shape[1:3]
    if height is None or width is None:
        raise BackboneError(
            f"backbone {request.file}: its input has no fixed size, found {(height, width)}; give --image-size"
        )
    return int(height), int(width)


def _preprocessing(request: Request) -> str:
    assert request.application is not None
    if request.arguments.get("include_preprocessing") is False:
        raise BackboneError(
            f"backbone {request.name}: with include_preprocessing=false its pixels must be scaled outside; "
            f"write {request.name},include_preprocessing=false,preprocessing=MODE"
        )
    return request.application.preprocessing


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
