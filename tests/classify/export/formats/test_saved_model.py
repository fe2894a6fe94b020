"""A SavedModel that plain TensorFlow runs: it answers as the Keras model does, from pixels and from encoded images."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from humeris.cache.errors import ModelError
from humeris.classify.export.formats.registry import FORMATS
from humeris.classify.export.formats.saved_model import SavedModelFormat
from humeris.classify.export.model_metadata import ModelMetadata
from humeris.classify.export.stack_model import stack_model
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData
from humeris.extract.backbones import taps
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.taps import Tap
from humeris.extract.pixels import decode

logreg = get_head_family("logreg")

CLASSES = ["ants", "<b>bees</b>", "Käfer,\nZeile zwei"]
SIZE = (32, 32)
METADATA = ModelMetadata(tuple(CLASSES), SIZE, decode.get_version())
FORMAT = SavedModelFormat()
BATCHES = [1, 5, 17, 2, 40]

# What stands in for a user's own script, where there are neither Keras nor Pillow nor humeris.
ASK = """
import glob, json, sys
sys.modules.update(dict.fromkeys(["humeris", "keras", "tf_keras", "PIL"]))
import numpy, tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
images = numpy.load("images.npy")
files = [open(name, "rb").read() for name in sorted(glob.glob("files/*"))]
serve, serve_bytes = model.signatures["serving_default"], model.signatures["serve_bytes"]
found = {"images": [], "bytes": []}
for count in json.loads(sys.argv[2]):
    found["images"].append(serve(image=tensorflow.constant(images[:count]))["probabilities"].numpy().tolist())
    some = tensorflow.constant(files[:count], tensorflow.string)
    found["bytes"].append(serve_bytes(encoded=some)["probabilities"].numpy().tolist())
try:
    serve_bytes(encoded=tensorflow.constant([files[0], b"II*\\0"]))
except tensorflow.errors.InvalidArgumentError as error:
    found["refused"] = str(error)
found["signatures"] = {name: [str(each.structured_input_signature[1]), str(each.structured_outputs)]
                       for name, each in model.signatures.items()}
json.dump(found, open("found.json", "w"))
"""


@dataclass(frozen=True)
class Written:
    """A model, the folder it was written to, what it is shown, and what a fresh TensorFlow answered."""

    model: Any
    path: Path
    images: np.ndarray
    found: dict[str, Any]


def drawn(number: int) -> bytes:
    """The bytes of one of many varied images, in every format that both decode."""
    random = np.random.default_rng(number)
    side = int(random.integers(3, 12))
    image = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
    image = image.resize(tuple(random.integers(20, 400, 2).tolist()), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    form = ("JPEG", "PNG", "JPEG", "WEBP", "BMP")[number % 5]
    exif = Image.Exif()
    exif[0x0112] = number % 9
    image.save(buffer, form, **({} if form == "BMP" else {"exif": exif}))
    return buffer.getvalue()


def stacked(images: np.ndarray) -> Any:
    """Nano with a head on it that tells the darker images from the lighter ones."""
    import keras

    backbone, tap = build(BackboneSpec.parse("nano,image_size=32")), Tap("block3_out", "avg")
    rows = keras.Model(backbone.graph.image, taps.apply(backbone.graph.outputs[tap.layer], tap)).predict_on_batch(images)
    light = images.mean(axis=(1, 2, 3))
    labels = np.digitize(light, np.quantile(light, [1 / 3, 2 / 3]))
    return stack_model(backbone, [tap], logreg.fit(TrainingData.from_arrays(rows, labels, []), {"C": 100.0}, {}, 0))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("saved")
    images = np.stack([decode.decode(drawn(number), SIZE) for number in range(max(BATCHES))])
    model = stacked(images)
    (folder / "files").mkdir()
    for number in range(max(BATCHES)):
        (folder / "files" / f"{number:03}").write_bytes(drawn(number))
    np.save(folder / "images.npy", images)
    path = folder / "model"
    FORMAT.write(model, path, METADATA, "float32", None)
    command = [sys.executable, "-c", ASK, str(path), json.dumps(BATCHES)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return Written(model, path, images, json.loads((folder / "found.json").read_text()))


@pytest.mark.parametrize("signature", ["images", "bytes"])
@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_tensorflow_by_itself_answers_as_keras_does_whatever_the_batch(
    written: Written, signature: str, number: int
) -> None:
    answers = np.array(written.found[signature][number]).reshape(-1, len(CLASSES))
    expected = written.model.predict_on_batch(written.images)[: BATCHES[number]]
    assert answers.shape == (BATCHES[number], len(CLASSES))
    assert np.abs(answers - expected).max() <= 1e-6
    if BATCHES[number] > 10:
        assert np.ptp(answers, axis=0).max() > 0.01
        assert len(set(answers.argmax(axis=1))) > 1


def test_the_signatures_are_named_as_promised(written: Written) -> None:
    assert set(written.found["signatures"]) == {"serving_default", "serve_bytes"}
    taken, given = written.found["signatures"]["serving_default"]
    assert "'image': TensorSpec(shape=(None, 32, 32, 3), dtype=tf.uint8" in taken
    assert "'probabilities': TensorSpec(shape=(None, 3), dtype=tf.float32" in given
    taken, given = written.found["signatures"]["serve_bytes"]
    assert "'encoded': TensorSpec(shape=(None,), dtype=tf.string" in taken
    assert "'probabilities': TensorSpec(shape=(None, 3), dtype=tf.float32" in given


def test_an_image_that_would_come_out_otherwise_is_refused_by_its_number(written: Written) -> None:
    assert "image 1: cannot be decoded here to the pixels the model was made for: it is a TIFF" in written.found["refused"]


def test_the_graph_calls_no_python(written: Written) -> None:
    import tensorflow as tf

    model = tf.saved_model.load(str(written.path))
    kinds = set()
    for signature in model.signatures.values():
        graph = signature.graph.as_graph_def()
        kinds |= {node.op for node in graph.node}
        kinds |= {node.op for function in graph.library.function for node in function.node_def}
    assert "DecodeJpeg" in kinds
    assert not [kind for kind in kinds if "Py" in kind]
    assert not {"ReadFile", "WriteFile"} & kinds


def test_the_description_and_the_class_names_are_inside(written: Written) -> None:
    assert FORMAT.read_metadata(written.path) == METADATA
    labels = (written.path / "assets.extra" / "labels.txt").read_text(encoding="utf-8")
    assert labels == "ants\n<b>bees</b>\nKäfer, Zeile zwei\n"


def test_a_description_is_read_without_tensorflow(written: Written) -> None:
    script = (
        "import sys, pathlib\nfrom humeris.classify.export.formats.saved_model import SavedModelFormat\n"
        f"assert SavedModelFormat().read_metadata(pathlib.Path({str(written.path)!r})).image_size == (32, 32)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_folder_that_is_none_of_ours_has_no_description(written: Written, tmp_path: Path) -> None:
    assert FORMAT.read_metadata(tmp_path) is None
    assert FORMAT.read_metadata(tmp_path / "missing") is None
    extra = tmp_path / "model" / "assets.extra"
    shutil.copytree(written.path, tmp_path / "model")
    for text in ("", "{", "[]", "{}", "\0", '{"classes": []}'):
        (extra / "humeris.json").write_text(text)
        assert FORMAT.read_metadata(tmp_path / "model") is None
    (extra / "humeris.json").write_bytes(b"\xff\xfe\xfa")
    assert FORMAT.read_metadata(tmp_path / "model") is None


def test_it_is_one_of_the_formats() -> None:
    form = FORMATS["savedmodel"]
    assert type(form) is SavedModelFormat
    assert (form.suffix, form.runs_code, form.precisions) == ("", True, ("float32",))


def test_a_loaded_model_answers_batches_of_any_size(written: Written) -> None:
    answer = FORMAT.load(written.path)
    expected = written.model.predict_on_batch(written.images)
    for count in BATCHES:
        found = answer(written.images[:count])
        assert found.shape == (count, len(CLASSES))
        assert np.abs(found - expected[:count]).max() <= 1e-6


def test_the_script_of_the_format_answers_with_tensorflow_alone(written: Written) -> None:
    images, answers = written.path.parent / "images.npy", written.path.parent / "answers.npy"
    script = f"import sys, numpy\n{FORMAT.predict_code}\n"
    script += "numpy.save(sys.argv[3], predict(numpy.load(sys.argv[2])))\nassert 'humeris' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, written.path, images, answers], check=True, capture_output=True)
    assert np.abs(np.load(answers) - written.model.predict_on_batch(written.images)).max() <= 1e-6


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def cut(path: Path) -> None:
    graph = path / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:5000])


def without_variables(path: Path) -> None:
    shutil.rmtree(path / "variables")


def of_others(path: Path) -> None:
    import tensorflow as tf

    shutil.rmtree(path)
    tf.saved_model.save(tf.Module(), str(path))


@pytest.mark.parametrize("damage", [shutil.rmtree, emptied, cut, without_variables, of_others])
def test_what_cannot_be_loaded_is_one_line(written: Written, tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "model"
    shutil.copytree(written.path, path)
    damage(path)
    with pytest.raises(ModelError) as caught:
        FORMAT.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be loaded: ")
    assert "\n" not in text
    assert len(text) < 500


def test_signatures_that_do_not_agree_are_not_written(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from humeris.classify.export.formats.tf_decode import decode

    plain = decode.resize
    monkeypatch.setattr(decode, "resize", lambda image, size: plain(image, size)[:, ::-1])
    with pytest.raises(ModelError, match="probabilities from pixels and from encoded images differ by"):
        FORMAT.write(written.model, tmp_path / "model", METADATA, "float32", None)
