"""Models in ONNX, asked in ONNX Runtime: they answer as Keras does, say what they are, and leave nothing when broken."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from format_models import CLASSES, HEADS, METADATA, build_model, build_unsupported_model, make_images, predict_with_keras

from humeris.cache.errors import ModelError
from humeris.classify.export import parity
from humeris.classify.export.formats import onnx_format, quantization
from humeris.classify.export.formats.onnx_format import FORMAT
from humeris.classify.export.formats.onnx_metadata import read_metadata

onnxruntime = pytest.importorskip("onnxruntime")
proto_of = pytest.importorskip("onnx").load_model

PRECISIONS = ["float32", "float16", "int8"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small network in each precision."""
    found = {name: tmp_path_factory.mktemp("onnx") / f"{name}.onnx" for name in PRECISIONS}
    for name, path in found.items():
        FORMAT.write(build_model(), path, METADATA, name, make_images(32, seed=1))
    return found


def kinds(path: Path) -> set[str]:
    return {node.op_type for node in proto_of(path).graph.node}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_answers_as_in_keras(head: str, tmp_path: Path) -> None:
    path, asked = tmp_path / "model.onnx", make_images(40)
    FORMAT.write(build_model(head), path, METADATA, "float32", None)
    assert np.abs(FORMAT.load(path)(asked) - predict_with_keras(head, asked)).max() <= 1e-5


@pytest.mark.parametrize("count", [1, 7, 16])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_number_of_images_is_answered(precision: str, count: int, files: dict[str, Path]) -> None:
    bound = {"float32": 1e-5, "float16": 1e-3, "int8": 0.1}[precision]
    found = FORMAT.load(files[precision])(make_images(count))
    assert found.shape == (count, 5)
    assert found.dtype == np.float32
    assert np.abs(found - predict_with_keras("scale", make_images(count))).max() <= bound


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_go_in_and_probabilities_come_out(precision: str, files: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(files[precision], providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["batch", 16, 16, 3])
    assert (found.name, found.type, found.shape) == ("probabilities", "tensor(float)", ["batch", 5])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_description_and_the_classes_are_in_the_metadata(precision: str, files: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(files[precision], providers=["CPUExecutionProvider"])
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == CLASSES
    described = FORMAT.describe(files[precision])
    assert described == json.loads(kept["humeris"])
    assert described is not None
    assert {name: described[name] for name in METADATA} == METADATA
    assert ("activations" in described) == (precision == "int8")
    assert read_metadata(files[precision]) == {each.key: each.value for each in proto_of(files[precision]).metadata_props}


def test_a_fresh_process_with_the_runtime_alone_answers(files: dict[str, Path]) -> None:
    asked = make_images(20)
    found, milliseconds = parity.predict_in_subprocess(FORMAT, files["float32"], asked)
    assert np.abs(found - predict_with_keras("scale", asked)).max() <= 1e-5
    assert milliseconds > 0


def test_weights_in_fewer_bits_make_the_file_smaller(files: dict[str, Path]) -> None:
    sizes = {name: path.stat().st_size - len(json.dumps(METADATA)) for name, path in files.items()}
    assert sizes["float16"] < 0.62 * sizes["float32"]
    assert sizes["int8"] < 0.55 * sizes["float32"]


def test_float16_computes_in_float32(files: dict[str, Path]) -> None:
    proto = proto_of(files["float16"])
    halves = [each.name for each in proto.graph.initializer if each.data_type == 10]
    assert len(halves) >= 3
    assert {name for node in proto.graph.node if node.op_type == "Cast" for name in node.input} >= set(halves)
    assert {each.data_type for each in proto.graph.initializer if each.name not in halves} <= {1, 7}


@pytest.mark.parametrize(("enough", "activations"), [(0.0, "int8"), (1.1, "float32")])
def test_activations_follow_the_weights_where_answers_stay(
    enough: float, activations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_CLASS_AGREEMENT", enough)
    monkeypatch.setattr(quantization, "MAX_MEAN_DIFFERENCE", 1.0)
    path, asked = tmp_path / "model.onnx", make_images(80)
    FORMAT.write(build_model(), path, METADATA, "int8", make_images(32, seed=1))
    described = FORMAT.describe(path)
    assert described is not None
    assert described["activations"] == activations
    assert ("QuantizeLinear" in kinds(path)) == (activations == "int8")
    shapes = {each.name: list(each.dims) for each in proto_of(path).graph.initializer}
    factors = {name: shape for name, shape in shapes.items() if name.endswith("_factors")}
    assert bool(factors) == (activations == "float32")
    assert all(shape == [shapes[name.replace("_factors", "_stored")][0], 1, 1, 1] for name, shape in factors.items())
    assert np.abs(FORMAT.load(path)(asked) - predict_with_keras("scale", asked)).mean() <= (
        0.05 if activations == "int8" else 0.002
    )


def test_a_quantiser_that_fails_leaves_the_activations_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such graph")

    monkeypatch.setattr(onnx_format, "to_int8_full", fail)
    FORMAT.write(build_model(), tmp_path / "model.onnx", METADATA, "int8", make_images(32, seed=1))
    assert (FORMAT.describe(tmp_path / "model.onnx") or {})["activations"] == "float32"


def test_biases_take_back_what_rounding_shifts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "MIN_CLASS_AGREEMENT", 1.1)
    asked, learnt, off = make_images(80), make_images(32, seed=1), {}
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(onnx_format, "correct_biases", lambda *_: contextlib.nullcontext())
        FORMAT.write(build_model(), tmp_path / f"{name}.onnx", METADATA, "int8", learnt)
        found = FORMAT.load(tmp_path / f"{name}.onnx")(asked)
        off[name] = np.abs((found - predict_with_keras("scale", asked)).mean(axis=0)).sum()
    assert off["with"] < 0.7 * off["without"]


def test_the_model_is_as_it_was_before(files: dict[str, Path]) -> None:
    """The biases are another's; `files` has been written by now."""
    before = [np.array(value) for value in build_model().get_weights()]
    FORMAT.write(build_model(), files["int8"].with_name("again.onnx"), METADATA, "int8", make_images(32, seed=2))
    assert all((old == new).all() for old, new in zip(before, build_model().get_weights(), strict=True))
    assert FORMAT.load(files["float32"])(make_images(3)) == pytest.approx(
        predict_with_keras("scale", make_images(3)), abs=1e-5
    )


def test_an_operation_that_onnx_has_not_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx: cannot be written as ONNX in float32: .*Erfinv") as caught:
        FORMAT.write(build_unsupported_model(), tmp_path / "model.onnx", METADATA, "float32", None)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("anything")

    monkeypatch.setattr(onnx_format, "freeze", fail)
    for precision in PRECISIONS:
        with pytest.raises(ModelError, match="cannot be written"):
            FORMAT.write(build_model(), tmp_path / "model.onnx", METADATA, precision, make_images(16))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for precision in PRECISIONS:
        FORMAT.write(build_model("mish"), tmp_path / "model.onnx", METADATA, precision, make_images(20))
        FORMAT.load(tmp_path / "model.onnx")(make_images(3))
    with pytest.raises(ModelError):
        FORMAT.write(build_unsupported_model(), tmp_path / "model.onnx", METADATA, "float32", None)
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ModelError, match=r"tf2onnx.*pip install 'humeris\[onnx\]'"):
        FORMAT.write(build_model(), tmp_path / "model.onnx", METADATA, "float32", None)


def test_weights_outside_the_file_are_not_read(tmp_path: Path, files: dict[str, Path]) -> None:
    import onnx as package

    package.save_model(
        proto_of(files["float32"]), tmp_path / "open.onnx", save_as_external_data=True, location="w", size_threshold=64
    )
    onnxruntime.InferenceSession(tmp_path / "open.onnx", providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"open\.onnx: cannot be loaded"):
        FORMAT.load(tmp_path / "open.onnx")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "zeros", "noise"])
def test_another_file_has_no_description_and_is_not_loaded(damage: str, tmp_path: Path, files: dict[str, Path]) -> None:
    whole = files["float32"].read_bytes()
    path = tmp_path / "other.onnx"
    path.write_bytes(
        {
            "empty": b"",
            "text": b"no model at all",
            "cut": whole[: len(whole) // 2],
            "zeros": bytes(2000),
            "noise": np.random.default_rng(0).bytes(5000),
        }[damage]
    )
    assert FORMAT.describe(path) is None
    with pytest.raises(ModelError, match=r"other\.onnx: cannot be loaded"):
        FORMAT.load(path)


def test_no_file_has_no_description(tmp_path: Path) -> None:
    assert FORMAT.describe(tmp_path / "none.onnx") is None
    assert FORMAT.describe(tmp_path) is None
