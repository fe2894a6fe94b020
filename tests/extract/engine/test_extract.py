"""Extraction: activations equal those of Keras, only missing rows are computed, and every image has one outcome."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from humeris.cache.errors import BackboneError, LayerError, RowsMissing
from humeris.cache.store import Store
from humeris.extract.backbones import forward, taps
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract import ExtractResult, extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images
from humeris.extract.pixels import decode

Draw = Callable[..., Path]


@pytest.fixture
def data(tmp_path: Path, draw_image: Draw) -> Path:
    """Two classes with five images each."""
    for number in range(10):
        draw_image(tmp_path / "data" / "ab"[number % 2] / f"{number}.png", number % 3, number)
    return tmp_path / "data"


def extract(
    data: Path, *patterns: str, backbone: str = "nano", pools: tuple[str, ...] = (), batch: int = 4
) -> ExtractResult:
    with Store(write=True) as store:
        images = load_images(data, store, jobs=2)
        return extract_features(
            images, store, ExtractConfig(backbone, layers=patterns, pools=pools, batch_size=batch, jobs=2)
        )[0]


def rows(done: ExtractResult, layer: str, pool: str) -> np.ndarray:
    return Store().get_extraction(done.metadata.spec).get_features(layer, pool).read(done.images.keys)


def rows_by_name(done: ExtractResult, layer: str, pool: str) -> dict[str, bytes]:
    return {image.name: row.tobytes() for image, row in zip(done.images.used, rows(done, layer, pool), strict=True)}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every network that is compiled for a forward pass."""
    made: list[Any] = []
    real = forward.ForwardPass.__init__

    def init(self: Any, *arguments: Any) -> None:
        made.append(self)
        real(self, *arguments)

    monkeypatch.setattr(forward.ForwardPass, "__init__", init)
    return made


# --- values


def oracle(model: Any, layer: str, done: ExtractResult, mode: str) -> np.ndarray:
    """The activations of `layer` from Keras alone, with its preprocessing and `predict`."""
    keras = load_keras()
    from keras.src.applications.imagenet_utils import preprocess_input

    pictures = np.stack(
        [decode.decode(Path(image.item.location).read_bytes(), done.metadata.spec.image_size) for image in done.images.used]
    )
    return np.asarray(
        keras.Model(model.inputs, model.get_layer(layer).output).predict(
            preprocess_input(pictures.astype(np.float32), mode=mode), batch_size=4, verbose=0
        )
    )


def agree(done: ExtractResult, model: Any, layer: str, mode: str) -> None:
    expected = oracle(model, layer, done, mode)
    scale = np.abs(expected).max() + 1e-6
    np.testing.assert_allclose(rows(done, layer, "avg") / scale, expected.mean(axis=(1, 2)) / scale, atol=1e-5)
    np.testing.assert_allclose(rows(done, layer, "max") / scale, expected.max(axis=(1, 2)) / scale, atol=1e-5)
    np.testing.assert_allclose(rows(done, layer, "map") / scale, expected / scale, atol=1e-3)
    height, width = (side // 2 * 2 for side in expected.shape[1:3])
    if (height, width) == expected.shape[1:3]:
        cells = expected.reshape(len(expected), 2, height // 2, 2, width // 2, -1).mean(axis=(2, 4))
        np.testing.assert_allclose(rows(done, layer, "grid2") / scale, cells.reshape(len(cells), -1) / scale, atol=1e-5)
    assert expected.std() > 0


POOLS = ("avg", "max", "map", "grid2")


def test_features_of_nano_are_those_of_keras(data: Path) -> None:
    from humeris.extract.backbones.nano_network import WEIGHTS, build_nano

    done = extract(data, "block2_out", "block5_out", pools=POOLS)
    model = build_nano((64, 64, 3))
    model.load_weights(WEIGHTS)
    for layer in ("block2_out", "block5_out"):
        agree(done, model, layer, "tf")
    assert done.passes == 3
    assert done.computed == 10


def test_features_of_a_keras_application_are_those_of_keras(data: Path, tmp_path: Path) -> None:
    keras = load_keras()
    model = keras.applications.MobileNetV2(alpha=0.35, weights=None, include_top=False, input_shape=(96, 96, 3))
    model.save_weights(tmp_path / "random.weights.h5")
    text = f"mobilenet_v2,alpha=0.35,image_size=96,weights={tmp_path}/random.weights.h5"
    done = extract(data, "out_relu", backbone=text, batch=10)
    expected = oracle(model, "out_relu", done, "tf")
    scale = np.abs(expected).max()
    np.testing.assert_allclose(rows(done, "out_relu", "avg") / scale, expected.mean(axis=(1, 2)) / scale, atol=1e-5)


@pytest.mark.parametrize("mode", ["caffe", "torch"])
def test_features_of_an_own_file_are_those_of_keras(mode: str, data: Path, tmp_path: Path) -> None:
    """A small network in VGG's manner."""
    keras = load_keras()
    image = keras.Input((32, 24, 3))
    x = image
    for block, channels in enumerate((4, 6), start=1):
        x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{block}_conv1")(x)
        x = keras.layers.MaxPooling2D(name=f"block{block}_pool")(x)
    model = keras.Model(image, x)
    model.save(tmp_path / "vgg.keras")
    done = extract(data, "block1_pool", "block2_conv1", backbone=f"{tmp_path}/vgg.keras,preprocessing={mode}", pools=POOLS)
    for layer in ("block1_pool", "block2_conv1"):
        agree(done, model, layer, mode)


def test_pooled_rows_are_float32_and_maps_float16(data: Path) -> None:
    done = extract(data, "block5_out:avg", "block5_out:map", "block5_out:grid2")
    assert rows(done, "block5_out", "avg").dtype == np.float32
    assert rows(done, "block5_out", "grid2").shape == (10, 4 * 144)
    assert rows(done, "block5_out", "map").dtype == np.float16
    assert rows(done, "block5_out", "map").shape == (10, 4, 4, 144)


def test_one_pass_serves_all_taps_and_stops_above_the_deepest(data: Path, built: list[Any]) -> None:
    done = extract(data, "block1_out", "block3_out:max", "block2_out:map", batch=10)
    assert done.passes == 1
    (only,) = built
    names = {layer.name for layer in only.model.layers}
    assert "block3_out" in names
    assert not any(name.startswith(("block4", "block5")) for name in names)


# --- only what is missing


def test_a_second_run_runs_no_forward_pass(data: Path, built: list[Any]) -> None:
    first = extract(data, "block5_out")
    assert (first.computed, first.passes, first.rows) == (10, 3, {"block5_out:avg": 10})
    built.clear()
    second = extract(data, "block5_out")
    assert (second.computed, second.passes, second.rows, second.bytes) == (0, 0, {}, 0)
    assert built == []
    assert np.array_equal(rows(first, "block5_out", "avg"), rows(second, "block5_out", "avg"))


def test_one_more_image_computes_one_image(data: Path, draw_image: Draw) -> None:
    extract(data, "block5_out")
    draw_image(data / "a" / "new.png", 0, 99)
    done = extract(data, "block5_out")
    assert (done.computed, done.rows) == (1, {"block5_out:avg": 1})


def test_one_more_layer_computes_that_layer_alone(data: Path, built: list[Any]) -> None:
    extract(data, "block5_out")
    done = extract(data, "block2_out", "block5_out")
    assert done.rows == {"block2_out:avg": 10}
    assert [str(tap) for tap in built[-1].taps] == ["block2_out:avg"]
    assert not any(layer.name.startswith("block5") for layer in built[-1].model.layers)


def test_one_more_pool_computes_that_pool_alone(data: Path) -> None:
    extract(data, "block5_out")
    assert extract(data, "block5_out", pools=("avg", "max")).rows == {"block5_out:max": 10}


def test_images_that_lack_different_taps_are_each_given_theirs(data: Path, draw_image: Draw) -> None:
    extract(data, "block4_out")
    draw_image(data / "a" / "new.png", 0, 99)
    extract(data, "block5_out")
    done = extract(data, "block4_out", "block5_out")
    assert done.rows == {"block4_out:avg": 1}


def test_renaming_relabelling_moving_and_splitting_compute_nothing(data: Path) -> None:
    extract(data, "block5_out")
    (data / "a" / "0.png").rename(data / "a" / "renamed.png")
    (data / "a" / "2.png").rename(data / "b" / "2.png")
    (data / "b").rename(data / "c")
    (data / "a" / "4.png").touch()
    assert extract(data, "block5_out").computed == 0
    split = data.with_name("split")
    shutil.copytree(data, split / "train")
    shutil.copytree(data, split / "test")
    (split / "test" / "a" / "renamed.png").unlink()
    assert extract(split, "block5_out").computed == 0


def test_the_same_file_under_another_name_computes_nothing(data: Path, tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3, activation="relu", name="conv")(image)).save(tmp_path / "one.keras")
    assert extract(data, "conv", backbone=f"{tmp_path}/one.keras,preprocessing=tf").computed == 10
    (tmp_path / "one.keras").rename(tmp_path / "two.keras")
    assert extract(data, "conv", backbone=f"{tmp_path}/two.keras,preprocessing=tf").computed == 0


def test_another_size_weights_or_preprocessing_shares_nothing(data: Path) -> None:
    extract(data, "block5_out")
    for text in ("nano,image_size=32", "nano,weights=random", "nano,preprocessing=unit"):
        assert extract(data, "block5_out", backbone=text).computed == 10


def test_a_row_does_not_depend_on_what_shares_its_batch(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A resumed extraction equals an uninterrupted one bit for bit, because the last batch is padded."""
    whole = rows_by_name(extract(data, "block3_out", "block5_out:map"), "block3_out", "avg")
    for number, chosen in enumerate((["a/0.png"], ["a/0.png", "b/1.png", "b/7.png"], ["b/9.png", "a/4.png"])):
        part = tmp_path / f"part{number}"
        for name in chosen:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / name, part / name)
        monkeypatch.setenv("HUMERIS_CACHE", str(tmp_path / f"cache{number}"))
        found = rows_by_name(extract(part, "block3_out", "block5_out:map"), "block3_out", "avg")
        assert found == {name: whole[name] for name in chosen}


def test_a_damaged_shard_is_computed_again_and_equal(data: Path) -> None:
    before = rows_by_name(extract(data, "block5_out"), "block5_out", "avg")
    (path,) = Store().path.glob("features/*/*/*.h5")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    done = extract(data, "block5_out")
    assert done.computed == 10
    assert rows_by_name(done, "block5_out", "avg") == before
    assert extract(data, "block5_out").computed == 0


def test_deleting_what_is_known_computes_nothing_again(data: Path) -> None:
    before = rows_by_name(extract(data, "block5_out"), "block5_out", "avg")
    shutil.rmtree(Store().path / "index")
    done = extract(data, "block5_out")
    assert done.computed == 0
    assert rows_by_name(done, "block5_out", "avg") == before


def test_a_completed_run_again_imports_no_tensorflow(data: Path) -> None:
    extract(data, "block5_out")
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom humeris.cli import app\n"
        "done = CliRunner().invoke(app, sys.argv[1:])\n"
        "print(done.exit_code, *sorted({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, "extract", data, "-b", "nano", "-l", "block5_out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "0\n", done.stdout + done.stderr


# --- rejected images


def test_an_image_that_cannot_be_decoded_is_refused_and_the_rest_is_done(data: Path) -> None:
    (data / "a" / "bad.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    Picture.new("RGB", (200, 200)).save(data / "b" / "half.png")
    (data / "b" / "half.png").write_bytes((data / "b" / "half.png").read_bytes()[:120])
    done = extract(data, "block5_out")
    assert done.computed == 10
    assert {each.name: each.reason for each in done.images.rejections} == {"a/bad.jpg": "damaged", "b/half.png": "damaged"}
    assert len(done.images.used) == 10
    assert rows(done, "block5_out", "avg").shape == (10, 144)


def test_a_refusal_is_remembered_and_no_network_is_built_for_it(
    data: Path, built: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from humeris.cache.file_stamp import FileStamp

    monkeypatch.setattr(FileStamp, "is_stable", lambda *_: True)
    (data / "a" / "bad.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    first = extract(data, "block5_out")
    built.clear()
    second = extract(data, "block5_out")
    assert built == []
    assert [(each.name, each.reason) for each in second.images.rejections] == [("a/bad.jpg", "damaged")]
    assert second.images.rejections == first.images.rejections


def test_a_mended_image_is_taken(data: Path, draw_image: Draw) -> None:
    (data / "a" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert len(extract(data, "block5_out").images.rejections) == 1
    draw_image(data / "a" / "bad.png", 0, 77)
    done = extract(data, "block5_out")
    assert (done.computed, done.images.rejections) == (1, ())


def meddled(data: Path, meddle: Callable[[], object]) -> ExtractResult:
    """An extraction that calls `meddle` after the images were identified."""
    with Store(write=True) as store:
        images = load_images(data, store, jobs=2)
        meddle()
        return extract_features(images, store, ExtractConfig("nano", layers=["block5_out"], batch_size=4, jobs=2))[0]


def test_a_file_that_changed_since_it_was_identified_is_refused_this_time_and_taken_the_next(
    data: Path, monkeypatch: pytest.MonkeyPatch, draw_image: Draw
) -> None:
    from humeris.cache.file_stamp import FileStamp

    monkeypatch.setattr(FileStamp, "is_stable", lambda *_: True)
    done = meddled(data, lambda: draw_image(data / "a" / "0.png", 0, 1234))
    assert [(each.name, each.reason) for each in done.images.rejections] == [("a/0.png", "changed")]
    assert done.computed == 9
    again = extract(data, "block5_out")
    assert (again.computed, again.images.rejections) == (1, ())


def test_a_file_that_vanished_since_it_was_identified_is_refused_and_the_rest_is_done(data: Path) -> None:
    done = meddled(data, (data / "a" / "0.png").unlink)
    assert [(each.name, each.reason) for each in done.images.rejections] == [("a/0.png", "unreadable")]
    assert done.computed == 9


def test_activations_that_are_not_finite_are_reported_and_not_stored(data: Path, tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(2, 1, activation="relu", name="fine")(image)
    bad = keras.layers.Rescaling(1e38, name="huge")(keras.layers.Rescaling(1e30, name="large")(first))
    keras.Model(image, bad).save(tmp_path / "bad.keras")
    done = extract(data, "fine", "huge", backbone=f"{tmp_path}/bad.keras,preprocessing=none")
    assert done.non_finite_counts == {"huge:avg": 10}
    assert len(done.images.used) == 10  # the network is at fault, not the images
    again = extract(data, "fine", "huge", backbone=f"{tmp_path}/bad.keras,preprocessing=none")
    assert (again.computed, again.non_finite_counts) == (0, {"huge:avg": 10})
    assert done.rows == {"fine:avg": 10, "huge:avg": 0}
    assert np.isfinite(rows(done, "fine", "avg")).all()
    with pytest.raises(RowsMissing):
        rows(done, "huge", "avg")


def test_maps_that_overflow_float16_are_kept_in_float32(data: Path, tmp_path: Path) -> None:
    """The rows of bright images overflow and stay exact; the others are stored in float16."""
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    keras.Model(image, keras.layers.Rescaling(300.0, name="wide")(image)).save(tmp_path / "wide.keras")
    Picture.new("RGB", (16, 16), (10, 10, 10)).save(data / "a" / "dark.png")
    done = extract(data, "wide:map", backbone=f"{tmp_path}/wide.keras,preprocessing=none")
    dtypes = sorted(
        str(item.dtype) for item in Store().get_extraction(done.metadata.spec).get_features("wide", "map").list_shards()
    )
    assert set(dtypes) == {"float16", "float32"}
    found = rows(done, "wide", "map")
    expected = np.stack(
        [decode.decode(Path(image.item.location).read_bytes(), (16, 16)) for image in done.images.used]
    ) * np.float32(300)
    assert np.isfinite(found).all()
    assert expected.max() > 65504
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    bright = expected.reshape(len(expected), -1).max(axis=1) > 65520
    np.testing.assert_array_equal(found[bright], expected[bright])


# --- errors


def test_a_layer_that_is_not_there_computes_nothing(data: Path, built: list[Any]) -> None:
    with pytest.raises(LayerError, match="block5_out"):
        extract(data, "block6_out")
    assert built == []
    assert not list(Store().path.glob("features/*"))


def test_weights_that_changed_behind_the_memory_are_not_mixed_with_the_old(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached metadata has the digest of the weights; a network with other weights must not add rows."""
    from humeris.extract.engine import extract as module

    extract(data, "block4_out")
    other = build(BackboneSpec.parse("nano,weights=random"))
    monkeypatch.setattr(module, "build", lambda _: other)
    with pytest.raises(BackboneError, match="nano: weights_sha256 differs from the cached metadata"):
        extract(data, "block5_out")


def test_random_weights_of_the_command_line_are_the_same_in_every_process(data: Path) -> None:
    """A second process finds the rows of the first one, although it draws the weights itself."""
    done = extract(data, "block5_out", backbone="nano,weights=random,seed=5")
    code = (
        "import sys\nfrom humeris.extract.backbones.build import build\n"
        "from humeris.extract.backbones.backbone_spec import BackboneSpec\n"
        "print(build(BackboneSpec.parse(sys.argv[1])).spec.digest)"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", code, "nano,weights=random,seed=5"]
    other = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert other.stdout.strip() == done.metadata.spec.digest, other.stderr


def test_a_tap_row_shape_is_the_one_that_was_promised(data: Path) -> None:
    done = extract(data, "block4_out", pools=("avg", "grid3", "map"))
    for pool in ("avg", "grid3", "map"):
        promised = taps.compute_row_shape(Tap("block4_out", pool), done.metadata.shapes["block4_out"])
        assert rows(done, "block4_out", pool).shape == (10, *promised)
