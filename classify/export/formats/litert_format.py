"""LiteRT (TensorFlow Lite), written by TensorFlow's converter and run by `ai-edge-litert`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....cache.errors import ModelError
from ....extract.pixels.read_file import count_cores
from .bias_correction import correct_biases
from .format import (
    DESCRIPTION_FILE,
    LABELS_FILE,
    PRECISIONS,
    Format,
    PredictFn,
    encode_description,
    format_labels,
    read_zip_description,
    to_one_line,
)
from .frozen_graph import compute_in_float32, freeze
from .litert_weights import to_float16, to_int8_weights
from .quantization import MIN_KERNEL_SIZE, choose_quantization, count_head_kernels
from .quiet_output import silence

_PREDICT_CODE = """
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
        with silence(), compute_in_float32(model):
            flatbuffer, extra_description = _convert_to_precision(model, precision, calibration)
    except Exception as error:  # the converter raises anything
        raise ModelError(f"{path}: cannot be written as LiteRT in {precision}: {to_one_line(error)}") from error
    path.write_bytes(flatbuffer)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(DESCRIPTION_FILE, encode_description({**description, **extra_description}))
        archive.writestr(LABELS_FILE, format_labels(description))


def load(path: Path) -> PredictFn:
    """The model's function, on all cores; raises `ModelError`."""
    try:
        return _build_predict_fn(path.read_bytes())
    except Exception as error:
        raise ModelError(f"{path}: cannot be loaded: {to_one_line(error)}") from error


def _build_predict_fn(flatbuffer: bytes) -> PredictFn:
    with silence():  # it tells, in C++, what it computes with
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=flatbuffer, num_threads=count_cores())
        interpreter.allocate_tensors()
        (input_details,), (output_details,) = interpreter.get_input_details(), interpreter.get_output_details()

    image_shape = tuple(input_details["shape"][1:])

    def predict(images: np.ndarray) -> np.ndarray:
        if images.shape[1:] != image_shape:  # the interpreter would take any
            raise ValueError(f"expected images of {image_shape}, found {images.shape[1:]}")
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(input_details["index"], images.shape)
            with silence():
                interpreter.allocate_tensors()
        interpreter.set_tensor(input_details["index"], images)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output_details["index"]))

    return predict


def _convert_to_precision(model: Any, precision: str, images: np.ndarray | None) -> tuple[bytes, dict[str, str]]:
    """The model, and what is to be said of it."""
    if precision == "float32":
        return _convert(model), {}
    if precision == "float16":
        return to_float16(_convert(model)), {}
    assert images is not None
    return _convert_to_int8(model, images)


def _convert_to_int8(model: Any, images: np.ndarray) -> tuple[bytes, dict[str, str]]:
    def quantize_all() -> bytes:
        with correct_biases(model, images):
            return _convert(model, images)

    def quantize_weights() -> bytes:
        with correct_biases(model, images, MIN_KERNEL_SIZE):
            return to_int8_weights(_convert(model), count_head_kernels(model))

    flatbuffer, activations = choose_quantization(model, images, quantize_all, quantize_weights, _build_predict_fn)
    return flatbuffer, {"activations": activations}


def _convert(model: Any, images: np.ndarray | None = None) -> bytes:
    """The model in float32, or with images in integers, as far as LiteRT has its operations in them."""
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([freeze(model)])
    if images is not None:
        op_sets = tensorflow.lite.OpsSet
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [op_sets.TFLITE_BUILTINS_INT8, op_sets.TFLITE_BUILTINS]
    return bytes(converter.convert())


FORMAT = Format(
    "litert", ".tflite", PRECISIONS, ("ai_edge_litert",), "litert", write, read_zip_description, load, _PREDICT_CODE, True,
    "LiteRT", writer_modules=("tensorflow",),
)  # fmt: skip
