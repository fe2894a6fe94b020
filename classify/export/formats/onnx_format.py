"""ONNX, written by tf2onnx from a frozen graph and run by ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ....extract.pixels.read_file import count_cores
from ..model_metadata import ModelMetadata, encode_metadata
from . import onnx_weights
from .converted_format import ConvertedFormat
from .format import PredictFn, parse_metadata
from .onnx_metadata import read_metadata_props

OPSET = 18
INPUT, OUTPUT = "image", "probabilities"
METADATA_KEY, CLASSES_KEY = "humeris", "classes"  # of the properties of a file


class OnnxFormat(ConvertedFormat):
    """ONNX. The metadata and the class names are properties of the file."""

    name = "onnx"
    title = "ONNX"
    suffix = ".onnx"
    modules = ("onnxruntime",)
    writer_modules = ("tf2onnx", "onnx")
    extra = "onnx"
    runtime = "ONNX Runtime"
    runs_code = False
    predict_code = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
def predict(images):
    return session.run(["probabilities"], {"image": images})[0]
"""

    def read_metadata(self, path: Path) -> ModelMetadata | None:
        """See `Format.read_metadata`."""
        return parse_metadata(path, read_metadata_props(path).get(METADATA_KEY, ""))

    def convert(self, graph: Any) -> bytes:
        """See `ConvertedFormat.convert`."""
        return _serialize(_convert(graph))

    def to_float16(self, data: bytes) -> bytes:
        """See `ConvertedFormat.to_float16`."""
        return _serialize(onnx_weights.to_float16(_parse(data)))

    def to_int8_weights(self, data: bytes, n_exact_kernels: int) -> bytes:
        """See `ConvertedFormat.to_int8_weights`."""
        return _serialize(onnx_weights.to_int8_weights(_parse(data), n_exact_kernels))

    def to_int8_full(self, graph: Any, images: np.ndarray, n_exact_kernels: int) -> bytes:
        """See `ConvertedFormat.to_int8_full`."""
        return _serialize(onnx_weights.to_int8_full(_convert(graph), images, n_exact_kernels))

    def embed_metadata(self, data: bytes, metadata: ModelMetadata) -> bytes:
        """See `ConvertedFormat.embed_metadata`; raises where the file is not valid ONNX."""
        import onnx

        proto = _parse(data)
        del proto.metadata_props[:]
        properties = {METADATA_KEY: encode_metadata(metadata), CLASSES_KEY: json.dumps(list(metadata.classes))}
        onnx.helper.set_model_props(proto, properties)
        onnx.checker.check_model(proto)
        return _serialize(proto)

    def build_predict_fn(self, source: Path | bytes) -> PredictFn:
        """See `ConvertedFormat.build_predict_fn`; weights outside the file are not looked for."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = count_cores(), 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # images are decoded on the same cores
        with tempfile.TemporaryDirectory() as empty:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
            session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


def _parse(data: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(data)


def _serialize(proto: Any) -> bytes:
    return bytes(proto.SerializeToString())


def _convert(graph: Any) -> Any:
    """The ONNX model of a frozen graph; operations that ONNX has no equal for are left in, which its checker finds."""
    import tf2onnx

    tensor_names = {graph.inputs[0].name: INPUT, graph.outputs[0].name: OUTPUT}
    proto, _ = tf2onnx.convert.from_graph_def(
        graph.graph.as_graph_def(),
        name="humeris",
        input_names=[graph.inputs[0].name],
        output_names=[graph.outputs[0].name],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_convert_erfc, [])},
        tensors_to_rename=tensor_names,
    )
    if [graph_input.name for graph_input in proto.graph.input] != [INPUT]:
        raise ValueError(f"the graph has {len(proto.graph.input)} inputs, not one")
    for value_info in (proto.graph.input[0], proto.graph.output[0]):
        value_info.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def _convert_erfc(graph: Any, node: Any, _name: str, _arguments: Any) -> None:
    """Replace Erfc by 1 - Erf, which ONNX has."""
    from tf2onnx.utils import make_name

    input_name, (output_name,) = node.input[0], node.output
    shapes, types = [graph.get_shape(output_name)], [graph.get_dtype(output_name)]
    graph.remove_node(node.name)
    one = graph.make_const(make_name("one"), np.ones((), np.float32)).output[0]
    error = graph.make_node("Erf", [input_name], shapes=shapes, dtypes=types).output[0]
    graph.make_node("Sub", [one, error], outputs=[output_name], shapes=shapes, dtypes=types, name=node.name)
