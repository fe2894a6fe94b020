"""LiteRT (TensorFlow Lite), written by TensorFlow's converter and run by `ai-edge-litert`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....cache.errors import ModelError
from ....extract.pixels.read_file import cores
from .bias_correction import corrected
from .format import LABELS, MEMBER, PRECISIONS, Answer, Format, encoded, labels, member, one_line
from .frozen_graph import freeze, in_float32
from .litert_weights import eighths, halves
from .quantization import LEAST, agreeing, head_kernels
from .quiet_output import silence

_ANSWER = """
import os
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=os.cpu_count())
interpreter.allocate_tensors()
def answer(images):
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if tuple(given["shape"]) != images.shape:
        interpreter.resize_tensor_input(given["index"], images.shape)
        interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(found["index"])
"""


def write(model: Any, path: Path, description: Mapping[str, Any], precision: str, calibration: np.ndarray | None) -> None:
    """Write the model; see `format.Write`. The description and the labels are files at the end, as LiteRT keeps them.

    float16 and int8 are as in ONNX; see there.
    """
    try:
        with silence(), in_float32(model):
            flat, more = _converted(model, precision, calibration)
    except Exception as error:  # the converter raises anything
        raise ModelError(f"{path}: cannot be written as LiteRT in {precision}: {one_line(error)}") from error
    path.write_bytes(flat)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, encoded({**description, **more}))
        archive.writestr(LABELS, labels(description))


def load(path: Path) -> Answer:
    """The model's function, on all cores; raises `ModelError`."""
    try:
        return _answer(path.read_bytes())
    except Exception as error:
        raise ModelError(f"{path}: cannot be loaded: {one_line(error)}") from error


def _answer(flat: bytes) -> Answer:
    with silence():  # it tells, in C++, what it computes with
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=flat, num_threads=cores())
        interpreter.allocate_tensors()
        (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()

    sides = tuple(given["shape"][1:])

    def answer(images: np.ndarray) -> np.ndarray:
        if images.shape[1:] != sides:  # the interpreter would take any
            raise ValueError(f"expected images of {sides}, found {images.shape[1:]}")
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(given["index"], images.shape)
            with silence():
                interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(found["index"]))

    return answer


def _converted(model: Any, precision: str, images: np.ndarray | None) -> tuple[bytes, dict[str, str]]:
    """The model, and what is to be said of it."""
    if precision == "float32":
        return _convert(model), {}
    if precision == "float16":
        return halves(_convert(model)), {}
    assert images is not None
    return _in_fewer_bits(model, images)


def _in_fewer_bits(model: Any, images: np.ndarray) -> tuple[bytes, dict[str, str]]:
    def whole() -> bytes:
        with corrected(model, images):
            return _convert(model, images)

    def weights() -> bytes:
        with corrected(model, images, LEAST):
            return eighths(_convert(model), head_kernels(model))

    flat, activations = agreeing(model, images, whole, weights, _answer)
    return flat, {"activations": activations}


def _convert(model: Any, images: np.ndarray | None = None) -> bytes:
    """The model in float32, or with images in integers, as far as LiteRT has its operations in them."""
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([freeze(model)])
    if images is not None:
        sets = tensorflow.lite.OpsSet
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8, sets.TFLITE_BUILTINS]
    return bytes(converter.convert())


FORMAT = Format(
    "litert", ".tflite", PRECISIONS, ("ai_edge_litert",), "litert", write, member, load, _ANSWER, True, "LiteRT",
    writers=("tensorflow",),
)  # fmt: skip
