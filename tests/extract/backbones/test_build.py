"""Building of frozen networks from a name or a file, and the errors of those that cannot be built."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import BackboneError, WeightsError
from humeris.cache.key_value_store import KeyValueStore
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import Backbone, build
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.metadata import BackboneMetadata, get_or_build
from humeris.extract.backbones.nano_network import WEIGHTS, build_nano

PICTURE = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)


def made(text: str, **options: Any) -> Backbone:
    return build(BackboneSpec.parse(text, **options))


def own_model() -> Any:
    keras = load_keras()
    image = keras.Input((32, 32, 3), name="pixels")
    inner = keras.Sequential([keras.layers.Conv2D(4, 3, activation="relu", name="conv")], name="inner")
    rows = keras.layers.GlobalAveragePooling2D(name="rows")(inner(image))
    return keras.Model(image, keras.layers.Dense(3, name="dense")(rows), name="own")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    own_model().save(tmp_path / "own.keras")
    return tmp_path / "own.keras"


def output(backbone: Backbone, name: str, picture: np.ndarray = PICTURE) -> np.ndarray:
    return np.asarray(load_keras().Model(backbone.graph.image, backbone.graph.outputs[name]).predict_on_batch(picture))


# --- by name


def test_nano_has_its_trained_weights_and_its_own_size() -> None:
    spec = made("nano").spec
    assert (spec.backbone, spec.weights, spec.image_size, spec.preprocessing) == ("nano", "synthetic", (64, 64), "tf")
    assert spec.weights_sha256 != made("nano,weights=random").spec.weights_sha256


def test_the_same_request_makes_the_same_spec_and_other_requests_others() -> None:
    texts = ["nano", "nano,image_size=32", "nano,image_size=32x64", "nano,weights=random", "nano,weights=random,seed=1",
             "nano,preprocessing=unit"]  # fmt: skip
    digests = [made(text).spec.digest for text in texts]
    assert len(set(digests)) == len(texts)
    assert [made(text).spec.digest for text in texts] == digests


def test_random_weights_depend_on_the_seed_and_on_nothing_else() -> None:
    keras = load_keras()
    first = made("mobilenet_v2,alpha=0.35,image_size=32", weights="random", seed=3).spec
    keras.layers.Dense(3).build((None, 2))
    keras.utils.set_random_seed(99)
    second = made("mobilenet_v2,alpha=0.35,image_size=32", weights="random", seed=3).spec
    assert first == second
    assert first.weights == "random, seed 3"
    assert dict(first.arguments) == {"alpha": 0.35}


def test_arguments_of_the_constructor_are_part_of_the_identity() -> None:
    one = made("mobilenet,alpha=0.25,image_size=32,weights=random").spec
    other = made("mobilenet,alpha=0.5,image_size=32,weights=random").spec
    assert one.architecture != other.architecture
    assert one.digest != other.digest


@pytest.mark.parametrize(
    "text", ["nano", "nano,weights=random,seed=4,image_size=32x48", "mobilenet,alpha=0.25,image_size=32,weights=random"]
)
def test_a_spec_says_enough_to_build_the_backbone_again(text: str) -> None:
    spec = made(text).spec
    assert build(BackboneSpec.from_spec(spec)).spec == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nano,alpha=1", "no arguments, got alpha"),
        ("nano,image_size=16", "at least 32 pixels"),
        ("inception_v3,image_size=64,weights=random", "at least 75 pixels"),
        ("mobilenet_v2,alhpa=1,weights=random", r"MobileNetV2 has no argument 'alhpa' \(arguments: .*alpha.*\)"),
        ("mobilenet_v2,alpha=big,weights=random,image_size=32", "cannot be built for images of 32x32 pixels"),
        ("efficientnet_b0,include_preprocessing=false,weights=random", "has no argument 'include_preprocessing'"),
        ("efficientnet_v2_b0,include_preprocessing=false,weights=random,image_size=32", "preprocessing=MODE"),
    ],
)
def test_a_backbone_that_cannot_be_built_is_one_line(text: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said) as caught:
        made(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["nano,weights=imagenet", "resnet50,weights=synthetic,image_size=32"])
def test_weights_that_the_backbone_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(WeightsError, match=f"has no weights '{text.split('=')[1].split(',')[0]}'; choose"):
        made(text)


def test_imagenet_weights_without_a_network_name_the_file_and_where_to_put_it(tmp_path: Path) -> None:
    """Run in a process whose proxy is a closed local port, so that nothing can be downloaded."""
    home = tmp_path / "keras_home"
    proxy = "http://127.0.0.1:9"
    environment = {**os.environ, "KERAS_HOME": str(home), "https_proxy": proxy, "http_proxy": proxy, "HTTPS_PROXY": proxy,
                   "no_proxy": "", "NO_PROXY": ""}  # fmt: skip
    code = "from humeris.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "layers", "mobilenet_v2,alpha=0.35,image_size=96"],
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5" in lines[0]
    assert str(home / "models") in lines[0]
    assert "--weights random" in lines[0]


# --- weights files


def test_a_weights_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.weights.h5"
    build_nano((64, 64, 3)).save_weights(path)
    mine = made("nano", weights=str(path)).spec
    assert mine.weights == str(path)
    assert mine.weights_sha256 not in {made("nano").spec.weights_sha256, made("nano,weights=random").spec.weights_sha256}
    assert made("nano", weights=str(WEIGHTS)).spec.weights_sha256 == made("nano").spec.weights_sha256
    assert made("nano", weights=str(WEIGHTS)).spec.digest == made("nano").spec.digest


def _damaged(path: Path, kind: str) -> Path:
    data = WEIGHTS.read_bytes()
    if kind == "other network":
        load_keras()
        own_model().save_weights(path)
    elif kind == "missing":
        pass
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes({"half": data[: len(data) // 2], "empty": b"", "text": b"<html>"}[kind])
    return path


@pytest.mark.parametrize("kind", ["other network", "missing", "folder", "half", "empty", "text"])
def test_a_weights_file_that_does_not_fit_is_one_line(kind: str, tmp_path: Path) -> None:
    path = _damaged(tmp_path / "bad.weights.h5", kind)
    with pytest.raises(WeightsError, match=str(path)) as caught:
        made("nano", weights=str(path))
    assert "\n" not in str(caught.value)


def test_a_weights_file_of_an_unknown_kind_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.read_bytes())
    with pytest.raises(WeightsError):
        made("nano", weights=str(tmp_path / "w.bin"))


# --- the user's own file


def test_a_file_comes_with_its_size_weights_and_nested_layers(file: Path) -> None:
    backbone = made(f"{file},preprocessing=unit")
    assert [layer.name for layer in backbone.graph.layers] == ["inner/conv", "rows", "dense"]
    assert (backbone.spec.backbone, backbone.spec.weights, backbone.spec.image_size) == ("own", "file", (32, 32))
    model = load_keras().saving.load_model(file)
    np.testing.assert_allclose(
        output(backbone, "dense"), np.asarray(model.predict_on_batch(PICTURE / 255.0)), rtol=1e-4, atol=1e-5
    )


def test_a_file_is_the_same_backbone_wherever_it_lies(file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "deeper" / "renamed.keras"
    moved.parent.mkdir()
    digest = made(f"{file},preprocessing=unit").spec.digest
    file.rename(moved)
    assert made(f"{moved},preprocessing=unit").spec.digest == digest
    assert made(f"{moved},preprocessing=tf").spec.digest != digest


def test_another_structure_with_the_same_weights_is_another_backbone(tmp_path: Path) -> None:
    keras = load_keras()

    def model(activation: str) -> Any:
        image = keras.Input((32, 32, 3))
        conv = keras.layers.Conv2D(2, 3, activation=activation, kernel_initializer="ones", name="conv")
        return keras.Model(image, conv(image), name="m")

    for activation in ("relu", "tanh"):
        model(activation).save(tmp_path / f"{activation}.keras")
    first, second = (made(f"{tmp_path}/{name}.keras,preprocessing=unit").spec for name in ("relu", "tanh"))
    assert first.weights_sha256 == second.weights_sha256
    assert first.digest != second.digest


def test_a_file_of_any_size_needs_one(tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input((None, None, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3, name="conv")(image)).save(tmp_path / "any.keras")
    with pytest.raises(BackboneError, match="give --image-size"):
        made(f"{tmp_path}/any.keras,preprocessing=tf")
    assert made(f"{tmp_path}/any.keras,preprocessing=tf", image_size="40x48").spec.image_size == (40, 48)


def test_a_file_at_a_size_it_cannot_take_is_one_line(file: Path) -> None:
    keras = load_keras()
    image = keras.Input((32, 32, 3))
    keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image))).save(file)
    with pytest.raises(BackboneError, match="64x64") as caught:
        made(f"{file},preprocessing=tf", image_size="64")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(32, 32, 1), (10,), (32, 32, 4)])
def test_a_file_that_does_not_take_rgb_images_is_one_line(shape: tuple[int, ...], tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input(shape)
    keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / "other.keras")
    with pytest.raises(
        BackboneError, match=r"not a network of RGB images \(inputs: .* single input \(batch, height, width, 3\)"
    ):
        made(f"{tmp_path}/other.keras,preprocessing=tf")


def test_a_file_with_two_inputs_is_one_line(tmp_path: Path) -> None:
    keras = load_keras()
    images = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    keras.Model(images, keras.layers.Add()(images)).save(tmp_path / "two.keras")
    with pytest.raises(BackboneError, match="not a network of RGB images"):
        made(f"{tmp_path}/two.keras,preprocessing=tf")


def test_a_file_whose_nested_models_share_layer_names_can_be_used(tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input((32, 32, 3))
    left = keras.Sequential([keras.layers.Conv2D(4, 3, activation="relu", name="conv")], name="left")
    right = keras.Sequential([keras.layers.Conv2D(4, 3, activation="relu", name="conv")], name="right")
    model = keras.Model(image, right(left(image)))
    model.save(tmp_path / "twins.keras")
    backbone = made(f"{tmp_path}/twins.keras,preprocessing=unit")
    assert [layer.name for layer in backbone.graph.layers] == ["left/conv", "right/conv"]
    np.testing.assert_allclose(
        output(backbone, "right/conv"), np.asarray(model.predict_on_batch(PICTURE / 255.0)), rtol=1e-4, atol=1e-5
    )


def test_a_file_with_code_inside_is_refused_and_not_run(tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Lambda(lambda x: (Path("ran").touch(), x)[1], output_shape=(8, 8, 3))(image))
    model.save(tmp_path / "lambda.keras")
    Path("ran").unlink(missing_ok=True)
    with pytest.raises(BackboneError, match="cannot be loaded") as caught:
        made(f"{tmp_path}/lambda.keras,preprocessing=tf")
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def _rewritten(file: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "text": lambda file: file.write_text("<html>"),
    "an empty archive": lambda file: _rewritten(file, lambda *_: None),
    "no config": lambda file: _rewritten(file, lambda name, data: None if name == "config.json" else data),
    "no weights": lambda file: _rewritten(file, lambda name, data: None if name.endswith(".h5") else data),
    "garbled config": lambda file: _rewritten(file, lambda name, data: b"{" if name == "config.json" else data),
    "config of nothing": lambda file: _rewritten(file, lambda name, data: b"{}" if name == "config.json" else data),
    "config as a list": lambda file: _rewritten(file, lambda name, data: b"[]" if name == "config.json" else data),
    "config that names a function": lambda file: _rewritten(
        file, lambda name, data: data.replace(b'"Dense"', b'"print"') if name == "config.json" else data
    ),
    "garbled weights": lambda file: _rewritten(
        file, lambda name, data: data[:100] + bytes(2000) + data[2100:] if name.endswith(".h5") else data
    ),
    "half the weights": lambda file: _rewritten(file, lambda name, data: data[:3000] if name.endswith(".h5") else data),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line(damage: str, file: Path) -> None:
    DAMAGES[damage](file)
    with pytest.raises(BackboneError) as caught:
        made(f"{file},preprocessing=tf")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_random_weights_for_a_file_are_refused(file: Path) -> None:
    with pytest.raises(WeightsError, match=r"--weights random is not available for a \.keras file"):
        made(f"{file},preprocessing=tf", weights="random")


def test_a_file_takes_a_weights_file(file: Path, tmp_path: Path) -> None:
    before = made(f"{file},preprocessing=tf").spec
    own_model().save_weights(tmp_path / "w.weights.h5")
    after = made(f"{file},preprocessing=tf", weights=str(tmp_path / "w.weights.h5")).spec
    assert after.weights_sha256 != before.weights_sha256
    assert after.architecture == before.architecture


# --- cached metadata


@pytest.fixture
def memo(tmp_path: Path) -> KeyValueStore:
    return KeyValueStore(tmp_path / "index", tmp_path / "tmp", lambda: None)


def test_a_backbone_is_built_once_and_then_remembered(memo: KeyValueStore) -> None:
    card, backbone = get_or_build(BackboneSpec.parse("nano"), memo)
    assert backbone is not None
    again, none = get_or_build(BackboneSpec.parse("nano"), memo)
    assert none is None
    assert again == card
    assert get_or_build(BackboneSpec.parse("nano,image_size=32"), memo)[1] is not None


def test_a_seed_makes_another_network_only_of_random_weights(memo: KeyValueStore) -> None:
    for text, is_other in (("nano", False), ("nano,weights=random", True)):
        get_or_build(BackboneSpec.parse(text), memo)
        backbone = get_or_build(BackboneSpec.parse(f"{text},seed=1"), memo)[1]
        assert (backbone is not None) == is_other


def test_a_card_survives_json(memo: KeyValueStore) -> None:
    import json

    card, _ = get_or_build(BackboneSpec.parse("nano"), memo)
    assert BackboneMetadata.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_a_file_that_changed_under_its_name_is_built_again(memo: KeyValueStore, file: Path) -> None:
    request = BackboneSpec.parse(f"{file},preprocessing=tf")
    first = get_or_build(request, memo)[0]
    assert get_or_build(request, memo)[1] is None
    own_model().save(file)
    second, backbone = get_or_build(request, memo)
    assert backbone is not None
    assert second.spec.weights_sha256 != first.spec.weights_sha256
