"""The door: a format that is written here, and what every registered format must do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_models import CLASSES, METADATA, build_model, make_images, predict_with_keras

import humeris as package
from humeris.cache.errors import ModelError, ParityError
from humeris.cache.store import Store
from humeris.classify.export import parity
from humeris.classify.export.export import export
from humeris.classify.export.formats.format import Format, PredictFn, explain_load_errors, parse_metadata
from humeris.classify.export.formats.registry import FORMATS, describe_formats, detect_format, register_format
from humeris.classify.export.formats.weight_precision import PRECISIONS
from humeris.classify.export.model_metadata import ModelMetadata, encode_metadata
from humeris.classify.export.predict import Predictor
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.pixels.decode import decode


class NpzFormat(Format):
    """The configuration of the Keras model as JSON, and its weights as arrays, in one `.npz`."""

    name, suffix, modules, runtime, runs_code = "npz", ".npz", ("keras",), "Keras", False
    predict_code = """
import json, keras
with numpy.load(sys.argv[1], allow_pickle=False) as arrays:
    model = keras.models.model_from_json(str(arrays["model"]))
    model.set_weights([arrays[f"weights{number}"] for number in range(len(model.weights))])
predict = model.predict_on_batch
"""

    def write(self, model: Any, path: Path, metadata: ModelMetadata, *_: Any) -> None:
        weights = {f"weights{number}": weight for number, weight in enumerate(model.get_weights())}
        np.savez(path, allow_pickle=False, model=model.to_json(), metadata=encode_metadata(metadata), **weights)

    def read_metadata(self, path: Path) -> ModelMetadata | None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return parse_metadata(path, str(arrays["metadata"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def load(self, path: Path) -> PredictFn:
        with explain_load_errors(path), np.load(path, allow_pickle=False) as arrays:
            model = load_keras().models.model_from_json(str(arrays["model"]))
            model.set_weights([arrays[f"weights{number}"] for number in range(len(model.weights))])
        return lambda images: np.asarray(model.predict_on_batch(images))


@pytest.fixture(autouse=True)
def _restored_registry() -> Iterator[None]:
    """The registry as it was, after every test."""
    before = dict(FORMATS)
    yield
    FORMATS.clear()
    FORMATS.update(before)


@pytest.fixture
def npz() -> NpzFormat:
    """The format, registered during one test."""
    model_format = NpzFormat()
    register_format(model_format)
    return model_format


def read_test_images(finished: Any) -> np.ndarray:
    records = [record for record in finished.run.load_image_records() if record.split == "test"]
    return np.stack([decode((finished.photos / record.name).read_bytes(), (64, 64)) for record in records])


def test_a_format_from_outside_is_exported_checked_and_asked(
    npz: NpzFormat, finished: Any, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    """The check runs in a process of its own, which knows nothing of the class above."""
    result = export(finished.run, Store(finished.cache), tmp_path / "flowers.npz")
    assert (result.format, result.parity.images, result.parity.top1_agree) == (npz, 18, 18)
    assert result.parity.max_difference <= 1e-4
    assert result.milliseconds > 0
    assert "exported in npz format with float32 weights" in result.card.read_text()
    assert "The model was loaded by Keras in a fresh process and compared" in result.card.read_text()
    predictor = Predictor(tmp_path / "flowers.npz")
    assert predictor.classes == ["blob", "noise", "stripes"]
    assert predictor.metadata.trial == finished.run.find_trial()[0]
    difference = predictor.predict_proba(read_test_images(finished)) - finished.run.load_probabilities()
    assert np.abs(difference).max() <= 1e-4
    answer = humeris("predict", tmp_path / "flowers.npz", finished.photos / "test/noise", "--json")
    assert [each["predicted"] for each in answer.json["predictions"]].count("noise") >= 5


def test_a_format_from_outside_that_answers_otherwise_leaves_no_file(
    npz: NpzFormat, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reverse = "\nforward = predict\npredict = lambda images: forward(images)[:, ::-1]\n"
    monkeypatch.setattr(NpzFormat, "predict_code", NpzFormat.predict_code + reverse)
    with pytest.raises(ParityError, match="disagrees with the cached features"):
        export(finished.run, Store(finished.cache), tmp_path / "flowers.npz")
    assert not list(tmp_path.glob("*flowers*"))


def test_messages_name_a_format_from_outside(npz: NpzFormat, finished: Any, tmp_path: Path) -> None:
    assert describe_formats().endswith("litert (NAME.tflite), npz (NAME.npz)")
    with pytest.raises(ModelError, match=r"or give -f: keras \(NAME.keras\), .*npz \(NAME.npz\)"):
        export(finished.run, Store(finished.cache), tmp_path / "m.h5")
    with pytest.raises(ModelError, match=r"format npz does not support precision int8; choose float32"):
        export(finished.run, Store(finished.cache), tmp_path / "m.npz", precision="int8")
    with pytest.raises(
        ModelError, match=r"not an exported model; give one that `humeris export` wrote: .*npz \(NAME.npz\)$"
    ):
        detect_format(Path(__file__))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "onnx"}, "format 'onnx': the name is already registered"),
        ({"suffix": ".onnx"}, "suffix .onnx belongs to onnx; use another one"),
        ({"precisions": ("float32", "int4")}, r"invalid precisions .*int4.*; use some of float32, float16, int8"),
        ({"precisions": ()}, r"invalid precisions \(\); use some of float32, float16, int8"),
    ],
)
def test_a_format_that_clashes_is_not_registered(changes: dict[str, Any], message: str) -> None:
    before = dict(FORMATS)
    with pytest.raises(ValueError, match=message):
        register_format(type("Clashing", (NpzFormat,), changes)())
    assert before == FORMATS


def test_a_second_folder_format_is_told_by_its_metadata(tmp_path: Path) -> None:
    class FolderFormat(NpzFormat):
        name, suffix = "folder", ""

        def read_metadata(self, path: Path) -> ModelMetadata | None:
            return super().read_metadata(path / "model.npz")

    register_format(FolderFormat())
    assert detect_format(tmp_path).name == "savedmodel"
    np.savez(tmp_path / "model.npz", metadata=encode_metadata(METADATA))
    assert detect_format(tmp_path).name == "folder"


def test_the_door_is_public() -> None:
    assert package.Format is Format
    assert package.register_format is register_format
    assert package.ModelMetadata is ModelMetadata


def test_a_format_without_its_methods_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (Format,), {"name": "empty"})()


def test_the_command_names_every_format_and_precision(humeris: Callable[..., Any]) -> None:
    text = " ".join(humeris("export", "--help").out.split())
    assert all(name in text for name in [*FORMATS, *PRECISIONS])


@pytest.fixture(scope="module", params=FORMATS)
def model_format(request: pytest.FixtureRequest) -> Format:
    registered = FORMATS[request.param]
    for module in registered.modules + registered.writer_modules:
        pytest.importorskip(module)
    return registered


@pytest.fixture(scope="module")
def path(model_format: Format, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in float32."""
    path = tmp_path_factory.mktemp("conformance") / f"model{model_format.suffix}"
    model_format.write(build_model(), path, METADATA, "float32", None)
    return path


def test_every_format_says_what_it_is(model_format: Format) -> None:
    assert FORMATS[model_format.name] is model_format
    assert model_format.precisions[0] == "float32"
    assert set(model_format.precisions) <= set(PRECISIONS)
    assert model_format.suffix == model_format.suffix.lower()
    assert model_format.runtime
    assert 0 < model_format.tolerance <= 1e-3
    model_format.check_installed(write=True)


def test_metadata_come_back_without_a_runtime(model_format: Format, path: Path) -> None:
    assert model_format.read_metadata(path) == METADATA
    script = (
        "import sys, pathlib\nfrom humeris.classify.export.formats.registry import FORMATS\n"
        f"metadata = FORMATS[{model_format.name!r}].read_metadata(pathlib.Path({str(path)!r}))\n"
        f"assert list(metadata.classes) == {CLASSES!r}\n"
        "assert not {'tensorflow', 'keras', 'onnx', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_format_answers_as_keras_here_and_in_a_process_of_its_own(model_format: Format, path: Path) -> None:
    images = make_images(20)
    expected = predict_with_keras("scale", images)
    predict = model_format.load(path)
    for count in (1, 20):
        probabilities = predict(images[:count])
        assert probabilities.shape == (count, len(CLASSES))
        assert np.abs(probabilities - expected[:count]).max() <= 1e-5
    probabilities, milliseconds = parity.predict_in_subprocess(model_format, path, images)
    assert np.abs(probabilities - expected).max() <= 1e-5
    assert milliseconds > 0


def test_what_is_no_model_of_ours_has_no_metadata(model_format: Format, tmp_path: Path) -> None:
    for name, data in (("empty", b""), ("text", b"no model"), ("noise", np.random.default_rng(0).bytes(3000))):
        (tmp_path / name).write_bytes(data)
        assert model_format.read_metadata(tmp_path / name) is None
    assert model_format.read_metadata(tmp_path / "missing") is None
    assert model_format.read_metadata(tmp_path) is None


def test_what_cannot_be_loaded_is_one_line(model_format: Format, path: Path, tmp_path: Path) -> None:
    broken = tmp_path / f"broken{model_format.suffix}"
    if model_format.is_folder:
        shutil.copytree(path, broken)
        for file in broken.glob("*.pb"):
            file.write_bytes(file.read_bytes()[:500])
    else:
        broken.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(ModelError) as caught:
        model_format.load(broken)
    assert str(caught.value).startswith(f"{broken}: cannot be loaded: ")
    assert "\n" not in str(caught.value)


def test_the_metadata_are_what_was_written(tmp_path: Path) -> None:
    """Keys of the JSON are part of the file format."""
    assert json.loads(encode_metadata(METADATA)) == {
        "format": 3, "humeris": package.__version__, "target": "single_label",
        "classes": CLASSES, "image_size": [16, 16], "pixels": "1",
        "precision": "as asked", "specs": {}, "trial": None, "test": None,
    }  # fmt: skip
