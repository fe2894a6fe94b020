"""ONNX, written by tf2onnx from a frozen graph and run by ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ....cache.errors import ModelError
from ....extract.pixels.read_file import count_cores
from .bias_correction import correct_biases
from .format import PRECISIONS, Format, PredictFn, decode_description, encode_description, to_one_line
from .frozen_graph import compute_in_float32, freeze
from .onnx_metadata import read_metadata
from .onnx_weights import to_float16, to_int8_full, to_int8_weights
from .quantization import MIN_KERNEL_SIZE, choose_quantization, count_head_kernels
from .quiet_output import silence

OPSET = 18
INPUT, OUTPUT = "image", "probabilities"
DESCRIPTION_KEY, CLASSES_KEY = "humeris", "classes"  # keys of the metadata

_PREDICT_CODE = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
def answer(images):
    return session.run(["probabilities"], {"image": images})[0]
"""


def write(model: Any, path: Path, description: Mapping[str, Any], precision: str, calibration: np.ndarray | None) -> None:
    """Write the model; see `format.Write`. The description is in the metadata, as are the classes' names.

    float16: large constants are stored so, and computed with in float32: a processor is slower in float16, and the error is
    many times as large where small constants are in it too. int8: see `fewer_bits.agreeing`; the description then says under
    `activations` what they are computed in.
    """
    replace(FORMAT, modules=("tf2onnx", "onnx")).check_installed()
    import onnx

    try:
        with silence(), compute_in_float32(model):
            proto, extra_description = _convert_to_precision(model, precision, calibration)
        del proto.metadata_props[:]
        properties = {
            DESCRIPTION_KEY: encode_description({**description, **extra_description}),
            CLASSES_KEY: json.dumps(list(description["classes"])),
        }
        onnx.helper.set_model_props(proto, properties)
        onnx.checker.check_model(proto)
        model_bytes = proto.SerializeToString()
    except Exception as error:  # tf2onnx raises anything
        raise ModelError(f"{path}: cannot be written as ONNX in {precision}: {to_one_line(error)}") from error
    path.write_bytes(model_bytes)


def _convert_to_precision(model: Any, precision: str, images: np.ndarray | None) -> tuple[Any, dict[str, str]]:
    """The model, and what is to be said of it."""
    if precision == "float32":
        return _convert(model), {}
    if precision == "float16":
        return to_float16(_convert(model)), {}
    assert images is not None
    return _convert_to_int8(model, images)


def _convert_to_int8(model: Any, images: np.ndarray) -> tuple[Any, dict[str, str]]:
    import onnx

    n_exact_kernels = count_head_kernels(model)

    def quantize_all() -> bytes:
        with correct_biases(model, images):
            proto = _convert(model)
        return bytes(to_int8_full(proto, images, n_exact_kernels).SerializeToString())

    def quantize_weights() -> bytes:
        with correct_biases(model, images, MIN_KERNEL_SIZE):
            proto = _convert(model)
        return bytes(to_int8_weights(proto, n_exact_kernels).SerializeToString())

    model_bytes, activations = choose_quantization(model, images, quantize_all, quantize_weights, _build_predict_fn)
    return onnx.load_model_from_string(model_bytes), {"activations": activations}


def describe(path: Path) -> dict[str, Any] | None:
    """The description inside."""
    return decode_description(read_metadata(path).get(DESCRIPTION_KEY, ""))


def load(path: Path) -> PredictFn:
    """The model's function, on all cores; raises `ModelError`. Weights outside the file are not looked for."""
    try:
        return _build_predict_fn(path)
    except Exception as error:
        raise ModelError(f"{path}: cannot be loaded: {to_one_line(error)}") from error


def _build_predict_fn(file: Path | bytes) -> PredictFn:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = count_cores(), 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # images are decoded on the same cores
    with tempfile.TemporaryDirectory() as empty:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


def _convert(model: Any) -> Any:
    """The model in ONNX; operations that it has no equal for are left in, which `onnx.checker` finds."""
    import tf2onnx

    function = freeze(model)
    tensor_names = {function.inputs[0].name: INPUT, function.outputs[0].name: OUTPUT}
    proto, _ = tf2onnx.convert.from_graph_def(
        function.graph.as_graph_def(),
        name="humeris",
        input_names=[function.inputs[0].name],
        output_names=[function.outputs[0].name],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_convert_erfc, [])},
        tensors_to_rename=tensor_names,
    )
    if [graph_input.name for graph_input in proto.graph.input] != [INPUT]:
        raise ValueError(f"expected one input, found {len(proto.graph.input)}")
    for value_info in (proto.graph.input[0], proto.graph.output[0]):
        value_info.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def _convert_erfc(graph: Any, node: Any, _name: str, _arguments: Any) -> None:
    """One minus the error function, which is what ONNX has."""
    from tf2onnx.utils import make_name

    input_name, (output_name,) = node.input[0], node.output
    shapes, types = [graph.get_shape(output_name)], [graph.get_dtype(output_name)]
    graph.remove_node(node.name)
    one = graph.make_const(make_name("one"), np.ones((), np.float32)).output[0]
    error = graph.make_node("Erf", [input_name], shapes=shapes, dtypes=types).output[0]
    graph.make_node("Sub", [one, error], outputs=[output_name], shapes=shapes, dtypes=types, name=node.name)


FORMAT = Format(
    "onnx", ".onnx", PRECISIONS, ("onnxruntime",), "onnx", write, describe, load, _PREDICT_CODE, False, "ONNX Runtime",
    writer_modules=("tf2onnx", "onnx"),
)  # fmt: skip
