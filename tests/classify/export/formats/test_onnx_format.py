"""What is ONNX's own; what it shares with LiteRT is in `test_converted_formats`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from format_models import CLASSES, METADATA, build_model, make_images, predict_with_keras, write_in_precisions

from humeris.cache.errors import ModelError
from humeris.classify.export.formats import quantization
from humeris.classify.export.formats.onnx_format import OnnxFormat
from humeris.classify.export.formats.onnx_metadata import read_metadata_props

onnxruntime = pytest.importorskip("onnxruntime")
load_proto = pytest.importorskip("onnx").load_model

FORMAT = OnnxFormat()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small network in each precision."""
    return write_in_precisions(FORMAT, tmp_path_factory.mktemp("onnx"))


def list_op_types(path: Path) -> set[str]:
    return {node.op_type for node in load_proto(path).graph.node}


@pytest.mark.parametrize("precision", FORMAT.precisions)
def test_bytes_go_in_and_probabilities_come_out(precision: str, files: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(files[precision], providers=["CPUExecutionProvider"])
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["batch", 16, 16, 3])
    assert (returned.name, returned.type, returned.shape) == ("probabilities", "tensor(float)", ["batch", 5])


@pytest.mark.parametrize("precision", FORMAT.precisions)
def test_the_metadata_and_the_classes_are_properties(precision: str, files: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(files[precision], providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["classes"]) == CLASSES
    metadata = FORMAT.read_metadata(files[precision])
    assert metadata is not None
    written = json.loads(properties["humeris"])
    assert metadata.to_dict() == written
    assert {name: written[name] for name in METADATA.to_dict()} == METADATA.to_dict()
    assert ("activations" in written) == (precision == "int8")
    properties_in_proto = {each.key: each.value for each in load_proto(files[precision]).metadata_props}
    assert read_metadata_props(files[precision]) == properties_in_proto


def test_float16_computes_in_float32(files: dict[str, Path]) -> None:
    proto = load_proto(files["float16"])
    halves = [each.name for each in proto.graph.initializer if each.data_type == 10]
    assert len(halves) >= 3
    assert {name for node in proto.graph.node if node.op_type == "Cast" for name in node.input} >= set(halves)
    assert {each.data_type for each in proto.graph.initializer if each.name not in halves} <= {1, 7}


@pytest.mark.parametrize(("enough", "activations"), [(0.0, "int8"), (1.1, "float32")])
def test_kernels_have_a_factor_for_each_channel_where_activations_stay(
    enough: float, activations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_CLASS_AGREEMENT", enough)
    monkeypatch.setattr(quantization, "MAX_MEAN_DIFFERENCE", 1.0)
    path = tmp_path / "model.onnx"
    FORMAT.write(build_model(), path, METADATA, "int8", make_images(32, seed=1))
    assert ("QuantizeLinear" in list_op_types(path)) == (activations == "int8")
    shapes = {each.name: list(each.dims) for each in load_proto(path).graph.initializer}
    factors = {name: shape for name, shape in shapes.items() if name.endswith("_factors")}
    assert bool(factors) == (activations == "float32")
    assert all(shape == [shapes[name.replace("_factors", "_stored")][0], 1, 1, 1] for name, shape in factors.items())


def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ModelError, match=r"tf2onnx.*pip install 'humeris\[onnx\]'"):
        FORMAT.write(build_model(), tmp_path / "model.onnx", METADATA, "float32", None)


def test_weights_outside_the_file_are_not_read(tmp_path: Path, files: dict[str, Path]) -> None:
    import onnx as package

    package.save_model(
        load_proto(files["float32"]), tmp_path / "open.onnx", save_as_external_data=True, location="w", size_threshold=64
    )
    onnxruntime.InferenceSession(tmp_path / "open.onnx", providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"open\.onnx: cannot be loaded"):
        FORMAT.load(tmp_path / "open.onnx")


def test_a_model_from_bytes_answers_as_the_file(files: dict[str, Path]) -> None:
    images = make_images(3)
    from_bytes = FORMAT.build_predict_fn(files["float32"].read_bytes())(images)
    assert np.abs(from_bytes - predict_with_keras("scale", images)).max() <= 1e-5
