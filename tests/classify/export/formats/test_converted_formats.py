"""ONNX and LiteRT models in their own runtimes: they answer as Keras does, and leave nothing when they cannot."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from format_models import (
    HEADS,
    METADATA,
    build_model,
    build_unsupported_model,
    make_images,
    predict_with_keras,
    write_in_precisions,
)

from humeris.cache.errors import ModelError
from humeris.classify.export import parity
from humeris.classify.export.formats import converted_format, quantization
from humeris.classify.export.formats.converted_format import ConvertedFormat
from humeris.classify.export.formats.registry import FORMATS
from humeris.classify.export.model_metadata import encode_metadata

PRECISIONS = ["float32", "float16", "int8"]
CONVERTED = [model_format for model_format in FORMATS.values() if isinstance(model_format, ConvertedFormat)]


def get_name(model_format: ConvertedFormat) -> str:
    return model_format.name


@pytest.fixture(scope="module", params=CONVERTED, ids=get_name)
def model_format(request: pytest.FixtureRequest) -> ConvertedFormat:
    converted: ConvertedFormat = request.param
    for module in converted.modules + converted.writer_modules:
        pytest.importorskip(module)
    return converted


@pytest.fixture(scope="module")
def files(model_format: ConvertedFormat, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small network in each precision."""
    return write_in_precisions(model_format, tmp_path_factory.mktemp(model_format.name))


@pytest.fixture
def path(model_format: ConvertedFormat, tmp_path: Path) -> Path:
    """Where a test writes a model."""
    return tmp_path / f"model{model_format.suffix}"


def test_the_two_formats_with_smaller_weights_are_converted() -> None:
    assert [model_format.name for model_format in CONVERTED] == ["onnx", "litert"]
    assert all(model_format.precisions == tuple(PRECISIONS) for model_format in CONVERTED)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_answers_as_in_keras(head: str, model_format: ConvertedFormat, path: Path) -> None:
    images = make_images(40)
    model_format.write(build_model(head), path, METADATA, "float32", None)
    assert np.abs(model_format.load(path)(images) - predict_with_keras(head, images)).max() <= 1e-5


@pytest.mark.parametrize("count", [1, 7, 16])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_number_of_images_is_answered(
    precision: str, count: int, model_format: ConvertedFormat, files: dict[str, Path]
) -> None:
    tolerance = {"float32": 1e-5, "float16": 1e-3, "int8": 0.1}[precision]
    probabilities = model_format.load(files[precision])(make_images(count))
    assert probabilities.shape == (count, 5)
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities - predict_with_keras("scale", make_images(count))).max() <= tolerance


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_metadata_come_back(precision: str, model_format: ConvertedFormat, files: dict[str, Path]) -> None:
    metadata = model_format.read_metadata(files[precision])
    assert metadata is not None
    assert bool(metadata.activations) == (precision == "int8")
    assert metadata.to_dict() | {"activations": ""} == METADATA.to_dict() | {"activations": ""}


def test_a_fresh_process_with_the_runtime_alone_answers(model_format: ConvertedFormat, files: dict[str, Path]) -> None:
    images = make_images(20)
    probabilities, milliseconds = parity.predict_in_subprocess(model_format, files["float32"], images)
    assert np.abs(probabilities - predict_with_keras("scale", images)).max() <= 1e-5
    assert milliseconds > 0


def test_weights_in_fewer_bits_make_the_file_smaller(files: dict[str, Path]) -> None:
    sizes = {name: path.stat().st_size - len(encode_metadata(METADATA)) for name, path in files.items()}
    assert sizes["float16"] < 0.62 * sizes["float32"]
    assert sizes["int8"] < 0.55 * sizes["float32"]


@pytest.mark.parametrize(("enough", "activations"), [(0.0, "int8"), (1.1, "float32")])
def test_activations_follow_the_weights_where_answers_stay(
    enough: float, activations: str, model_format: ConvertedFormat, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_CLASS_AGREEMENT", enough)
    monkeypatch.setattr(quantization, "MAX_MEAN_DIFFERENCE", 1.0)
    images = make_images(80)
    model_format.write(build_model(), path, METADATA, "int8", make_images(32, seed=1))
    metadata = model_format.read_metadata(path)
    assert metadata is not None
    assert metadata.activations == activations
    assert np.abs(model_format.load(path)(images) - predict_with_keras("scale", images)).mean() <= (
        0.06 if activations == "int8" else 0.002  # without VNNI instructions, 8-bit products saturate: .051
    )


def test_a_quantizer_that_fails_leaves_the_activations_as_they_are(
    model_format: ConvertedFormat, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such graph")

    monkeypatch.setattr(type(model_format), "to_int8_full", fail)
    model_format.write(build_model(), path, METADATA, "int8", make_images(32, seed=1))
    metadata = model_format.read_metadata(path)
    assert metadata is not None
    assert metadata.activations == "float32"


def test_biases_take_back_what_rounding_shifts(
    model_format: ConvertedFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_CLASS_AGREEMENT", 1.1)
    images, calibration, shifts = make_images(80), make_images(32, seed=1), {}
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(converted_format, "correct_biases", lambda *_: contextlib.nullcontext())
        path = tmp_path / f"{name}{model_format.suffix}"
        model_format.write(build_model(), path, METADATA, "int8", calibration)
        probabilities = model_format.load(path)(images)
        shifts[name] = np.abs((probabilities - predict_with_keras("scale", images)).mean(axis=0)).sum()
    assert shifts["with"] < 0.7 * shifts["without"]


def test_the_model_is_as_it_was_before(model_format: ConvertedFormat, files: dict[str, Path]) -> None:
    """Biases are changed while a model is written; `files` have been written by now."""
    before = [np.array(value) for value in build_model().get_weights()]
    again = files["int8"].with_stem("again")
    model_format.write(build_model(), again, METADATA, "int8", make_images(32, seed=2))
    assert all((old == new).all() for old, new in zip(before, build_model().get_weights(), strict=True))
    assert model_format.load(files["float32"])(make_images(3)) == pytest.approx(
        predict_with_keras("scale", make_images(3)), abs=1e-5
    )


def test_an_operation_that_the_format_lacks_is_named_and_leaves_no_file(model_format: ConvertedFormat, path: Path) -> None:
    message = rf"model\{model_format.suffix}: cannot be written as {model_format.title} in float32: .*Erfinv"
    with pytest.raises(ModelError, match=message) as caught:
        model_format.write(build_unsupported_model(), path, METADATA, "float32", None)
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_converter_that_fails_leaves_no_file(
    model_format: ConvertedFormat, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("anything")

    monkeypatch.setattr(converted_format, "freeze", fail)
    for precision in PRECISIONS:
        with pytest.raises(ModelError, match="cannot be written"):
            model_format.write(build_model(), path, METADATA, precision, make_images(16))
    assert list(path.parent.iterdir()) == []


def test_nothing_is_printed(model_format: ConvertedFormat, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for precision in PRECISIONS:
        model_format.write(build_model("mish"), path, METADATA, precision, make_images(20))
        model_format.load(path)(make_images(3))
    with pytest.raises(ModelError):
        model_format.write(build_unsupported_model(), path, METADATA, "float32", None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "zeros", "noise"])
def test_another_file_has_no_metadata_and_is_not_loaded(
    damage: str, model_format: ConvertedFormat, tmp_path: Path, files: dict[str, Path]
) -> None:
    whole = files["float32"].read_bytes()
    path = tmp_path / f"other{model_format.suffix}"
    path.write_bytes(
        {
            "empty": b"",
            "text": b"no model at all",
            "cut": whole[: len(whole) // 2],
            "zeros": bytes(2000),
            "noise": np.random.default_rng(0).bytes(5000),
        }[damage]
    )
    assert model_format.read_metadata(path) is None
    with pytest.raises(ModelError, match=rf"other\{model_format.suffix}: cannot be loaded"):
        model_format.load(path)


def test_no_file_has_no_metadata(model_format: ConvertedFormat, tmp_path: Path) -> None:
    assert model_format.read_metadata(tmp_path / f"none{model_format.suffix}") is None
    assert model_format.read_metadata(tmp_path) is None
