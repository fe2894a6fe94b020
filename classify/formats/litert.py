"""LiteRT (TensorFlow Lite), written by TensorFlow's converter and run by `ai-edge-litert`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import ModelError
from ...extract.source import cores
from .format import MEMBER, Answer, Format, decoded, encoded
from .frozen import freeze
from .quiet import silence

LABELS = "labels.txt"

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
    """Write the model; see `format.Write`. The description and the labels are files at the end, as LiteRT keeps them."""
    try:
        with silence():
            flat = _convert(model)
        path.write_bytes(flat)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MEMBER, encoded(description))
            archive.writestr(LABELS, "".join(f"{name}\n" for name in map(_line, description["classes"])))
    except Exception as error:  # the converter raises anything
        path.unlink(missing_ok=True)
        raise ModelError(f"{path}: cannot be written as LiteRT: {_line(error)}") from error


def describe(path: Path) -> dict[str, Any] | None:
    """The description inside."""
    try:
        with zipfile.ZipFile(path) as archive:
            return decoded(archive.read(MEMBER))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def load(path: Path) -> Answer:
    """The model's function, on all cores; raises `ModelError`."""
    with silence():
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(str(path), num_threads=cores())
            interpreter.allocate_tensors()
            (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
        except Exception as error:
            raise ModelError(f"{path}: cannot be loaded: {_line(error)}") from error

    def answer(images: np.ndarray) -> np.ndarray:
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(given["index"], images.shape)
            with silence():  # it tells, in C++, what it computes with
                interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(found["index"]))

    return answer


def _convert(model: Any) -> bytes:
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([freeze(model)])
    return bytes(converter.convert())


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]


FORMAT = Format(
    "litert", ".tflite", ("float32",), ("ai_edge_litert",), "litert", write, describe, load, _ANSWER, True, "LiteRT"
)  # fmt: skip
