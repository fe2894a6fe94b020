"""LiteRT (TensorFlow Lite), written by TensorFlow's converter and run by `ai-edge-litert`."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ....extract.pixels.read_file import count_cores
from ..model_metadata import ModelMetadata, encode_metadata
from . import litert_weights
from .converted_format import ConvertedFormat
from .format import LABELS_FILE, METADATA_FILE, PredictFn, encode_labels, read_zip_metadata
from .quiet_output import silence


class LiteRtFormat(ConvertedFormat):
    """LiteRT. The metadata and the labels are files of a zip archive at the end, where LiteRT's own tools look for them."""

    name = "litert"
    title = "LiteRT"
    suffix = ".tflite"
    modules = ("ai_edge_litert",)
    writer_modules = ("tensorflow",)
    extra = "litert"
    runtime = "LiteRT"
    runs_code = True
    predict_code = """
import os
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=os.cpu_count())
interpreter.allocate_tensors()
def predict(images):
    (input_details,), (output_details,) = interpreter.get_input_details(), interpreter.get_output_details()
    if tuple(input_details["shape"]) != images.shape:
        interpreter.resize_tensor_input(input_details["index"], images.shape)
        interpreter.allocate_tensors()
    interpreter.set_tensor(input_details["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(output_details["index"])
"""

    def read_metadata(self, path: Path) -> ModelMetadata | None:
        """See `Format.read_metadata`."""
        return read_zip_metadata(path)

    def convert(self, graph: Any) -> bytes:
        """See `ConvertedFormat.convert`."""
        return bytes(_build_converter(graph).convert())

    def to_float16(self, data: bytes) -> bytes:
        """See `ConvertedFormat.to_float16`."""
        return litert_weights.to_float16(data)

    def to_int8_weights(self, data: bytes, n_exact_kernels: int) -> bytes:
        """See `ConvertedFormat.to_int8_weights`."""
        return litert_weights.to_int8_weights(data, n_exact_kernels)

    def to_int8_full(self, graph: Any, images: np.ndarray, n_exact_kernels: int) -> bytes:
        """See `ConvertedFormat.to_int8_full`; where LiteRT has an operation in eight bits, the head included."""
        import tensorflow

        op_sets, converter = tensorflow.lite.OpsSet, _build_converter(graph)
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [op_sets.TFLITE_BUILTINS_INT8, op_sets.TFLITE_BUILTINS]
        return bytes(converter.convert())

    def embed_metadata(self, data: bytes, metadata: ModelMetadata) -> bytes:
        """See `ConvertedFormat.embed_metadata`."""
        buffer = io.BytesIO(data)
        with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(METADATA_FILE, encode_metadata(metadata))
            archive.writestr(LABELS_FILE, encode_labels(metadata))
        return buffer.getvalue()

    def build_predict_fn(self, source: Path | bytes) -> PredictFn:
        """See `ConvertedFormat.build_predict_fn`."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        with silence():  # it says, in C++, what it computes with
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(model_content=data, num_threads=count_cores())
            interpreter.allocate_tensors()
            (input_details,), (output_details,) = interpreter.get_input_details(), interpreter.get_output_details()

        image_shape = tuple(input_details["shape"][1:])

        def predict(images: np.ndarray) -> np.ndarray:
            if images.shape[1:] != image_shape:  # the interpreter would take any
                raise ValueError(f"images must have the shape {image_shape}, not {images.shape[1:]}")
            if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
                interpreter.resize_tensor_input(input_details["index"], images.shape)
                with silence():
                    interpreter.allocate_tensors()
            interpreter.set_tensor(input_details["index"], images)
            interpreter.invoke()
            return np.asarray(interpreter.get_tensor(output_details["index"]))

        return predict


def _build_converter(graph: Any) -> Any:
    import tensorflow

    return tensorflow.lite.TFLiteConverter.from_concrete_functions([graph])
