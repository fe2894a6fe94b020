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
from ....extract.pixels.read_file import cores
from .bias_correction import corrected
from .format import PRECISIONS, Answer, Format, decoded, encoded, one_line
from .frozen_graph import freeze, in_float32
from .onnx_metadata import metadata
from .onnx_weights import eighths, halves, integers
from .quantization import LEAST, agreeing, head_kernels
from .quiet_output import silence

OPSET = 18
INPUT, OUTPUT = "image", "probabilities"
DESCRIPTION, CLASSES = "humeris", "classes"  # keys of the metadata

_ANSWER = """
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
        with silence(), in_float32(model):
            proto, more = _converted(model, precision, calibration)
        del proto.metadata_props[:]
        kept = {DESCRIPTION: encoded({**description, **more}), CLASSES: json.dumps(list(description["classes"]))}
        onnx.helper.set_model_props(proto, kept)
        onnx.checker.check_model(proto)
        file = proto.SerializeToString()
    except Exception as error:  # tf2onnx raises anything
        raise ModelError(f"{path}: cannot be written as ONNX in {precision}: {one_line(error)}") from error
    path.write_bytes(file)


def _converted(model: Any, precision: str, images: np.ndarray | None) -> tuple[Any, dict[str, str]]:
    """The model, and what is to be said of it."""
    if precision == "float32":
        return _convert(model), {}
    if precision == "float16":
        return halves(_convert(model)), {}
    assert images is not None
    return _in_fewer_bits(model, images)


def _in_fewer_bits(model: Any, images: np.ndarray) -> tuple[Any, dict[str, str]]:
    import onnx

    spared = head_kernels(model)

    def whole() -> bytes:
        with corrected(model, images):
            proto = _convert(model)
        return bytes(integers(proto, images, spared).SerializeToString())

    def weights() -> bytes:
        with corrected(model, images, LEAST):
            proto = _convert(model)
        return bytes(eighths(proto, spared).SerializeToString())

    file, activations = agreeing(model, images, whole, weights, _answer)
    return onnx.load_model_from_string(file), {"activations": activations}


def describe(path: Path) -> dict[str, Any] | None:
    """The description inside."""
    return decoded(metadata(path).get(DESCRIPTION, ""))


def load(path: Path) -> Answer:
    """The model's function, on all cores; raises `ModelError`. Weights outside the file are not looked for."""
    try:
        return _answer(path)
    except Exception as error:
        raise ModelError(f"{path}: cannot be loaded: {one_line(error)}") from error


def _answer(file: Path | bytes) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = cores(), 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # images are decoded on the same cores
    with tempfile.TemporaryDirectory() as empty:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


def _convert(model: Any) -> Any:
    """The model in ONNX; operations that it has no equal for are left in, which `onnx.checker` finds."""
    import tf2onnx

    function = freeze(model)
    ends = {function.inputs[0].name: INPUT, function.outputs[0].name: OUTPUT}
    proto, _ = tf2onnx.convert.from_graph_def(
        function.graph.as_graph_def(),
        name="humeris",
        input_names=[function.inputs[0].name],
        output_names=[function.outputs[0].name],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
        tensors_to_rename=ends,
    )
    if [each.name for each in proto.graph.input] != [INPUT]:
        raise ValueError(f"expected one input, found {len(proto.graph.input)}")
    for end in (proto.graph.input[0], proto.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def _erfc(graph: Any, node: Any, _name: str, _arguments: Any) -> None:
    """One minus the error function, which is what ONNX has."""
    from tf2onnx.utils import make_name

    given, (result,) = node.input[0], node.output
    shapes, types = [graph.get_shape(result)], [graph.get_dtype(result)]
    graph.remove_node(node.name)
    one = graph.make_const(make_name("one"), np.ones((), np.float32)).output[0]
    error = graph.make_node("Erf", [given], shapes=shapes, dtypes=types).output[0]
    graph.make_node("Sub", [one, error], outputs=[result], shapes=shapes, dtypes=types, name=node.name)


FORMAT = Format(
    "onnx", ".onnx", PRECISIONS, ("onnxruntime",), "onnx", write, describe, load, _ANSWER, False, "ONNX Runtime",
    writers=("tf2onnx", "onnx"),
)  # fmt: skip
