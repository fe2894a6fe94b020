"""What is LiteRT's own; what it shares with ONNX is in `test_converted_formats`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_models import CLASSES, METADATA, build_model, make_images, write_in_precisions

from humeris.classify.export.formats import quantization
from humeris.classify.export.formats.litert_format import LiteRtFormat

interpreters = pytest.importorskip("ai_edge_litert.interpreter")

FORMAT = LiteRtFormat()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small network in each precision."""
    return write_in_precisions(FORMAT, tmp_path_factory.mktemp("litert"))


def read_tensors(path: Path) -> tuple[list[dict[str, Any]], Any]:
    """The tensors in a file, and its interpreter."""
    interpreter = interpreters.Interpreter(str(path))
    return interpreter.get_tensor_details(), interpreter


@pytest.mark.parametrize("precision", FORMAT.precisions)
def test_bytes_go_in_and_probabilities_come_out(precision: str, files: dict[str, Path]) -> None:
    _, interpreter = read_tensors(files[precision])
    (given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["dtype"], given["shape_signature"].tolist()) == (np.uint8, [-1, 16, 16, 3])
    assert (returned["dtype"], returned["shape_signature"].tolist()) == (np.float32, [-1, 5])


@pytest.mark.parametrize("precision", FORMAT.precisions)
def test_the_metadata_and_the_classes_are_files_inside(precision: str, files: dict[str, Path]) -> None:
    with zipfile.ZipFile(files[precision]) as archive:
        assert archive.namelist() == ["humeris.json", "labels.txt"]
        written, labels = json.loads(archive.read("humeris.json")), archive.read("labels.txt").decode()
    assert labels == "ant\nbee's\n“fly”\ngnat, big\nµ\n"
    assert written["classes"] == CLASSES
    metadata = FORMAT.read_metadata(files[precision])
    assert metadata is not None
    assert metadata.to_dict() == written
    assert {name: written[name] for name in METADATA.to_dict()} == METADATA.to_dict()
    assert ("activations" in written) == (precision == "int8")


def test_float16_computes_in_float32(files: dict[str, Path]) -> None:
    tensors, _ = read_tensors(files["float16"])
    assert sum(each["dtype"] == np.float16 for each in tensors) >= 3
    assert {each["dtype"] for each in tensors} <= {np.float16, np.float32, np.int32, np.uint8}


@pytest.mark.parametrize(("enough", "activations"), [(0.0, "int8"), (1.1, "float32")])
def test_maps_are_in_eight_bits_where_activations_follow(
    enough: float, activations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_CLASS_AGREEMENT", enough)
    monkeypatch.setattr(quantization, "MAX_MEAN_DIFFERENCE", 1.0)
    path = tmp_path / "model.tflite"
    FORMAT.write(build_model(), path, METADATA, "int8", make_images(32, seed=1))
    tensors, _ = read_tensors(path)
    maps = [each for each in tensors if each["dtype"] == np.int8 and each["shape_signature"].tolist()[:1] == [-1]]
    assert bool(maps) == (activations == "int8")
