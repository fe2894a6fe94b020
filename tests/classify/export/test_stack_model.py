"""Every head on every kind of tap of every kind of backbone: one flat Keras model that answers as the cache did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.store import Store
from humeris.classify.data import select_features
from humeris.classify.export.stack_model import stack_model
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels.decode import decode

POOLS = ["avg", "max", "grid2", "map"]
TAPPED = {"nano": "block3_out", "plain": "join", "nested": "body/squeeze", "sequential": "second"}
KEYS = [f"{name}-{pool}-logreg" for name in TAPPED for pool in POOLS]
KEYS += ["nano-avg-mlp", "plain-max-mlp", "nested-grid2-mlp", "nested-map-mlp", "sequential-map-mlp"]
KEYS += ["nano-avg-ridge", "plain-map-lda", "nested-max-centroid", "sequential-map-cosine", "plain-avg-knn"]
SETTINGS = {
    "ridge": {"alpha": 10.0},
    "lda": {"shrinkage": "auto"},
    "centroid": {"metric": "euclidean"},
    "cosine": {"metric": "cosine"},
    "knn": {"n_neighbors": 3, "weights": "distance"},
    "logreg": {"C": 0.1},
    "mlp": get_head_family("mlp").expand_grid({"hidden": 8, "learning_rate": 0.01, "batch_size": 8, "epochs": 6})[0],
}
# Rows of `map` taps are kept in float16: half a unit in its eleventh bit, over some thousand columns.
BOUND = {"map": 1e-3}

# What stands in for a user's own script: Keras and NumPy alone.
ASK = """
import json, sys
import keras, numpy
images = numpy.load("images.npy")
found = {}
for name in json.load(open("models.json")):
    model = keras.saving.load_model(name + ".keras")
    kinds = [type(layer).__name__ for layer in model.layers]
    found[name] = {
        "answers": model.predict_on_batch(images).tolist(),
        "kinds": kinds, "layers": [layer.name for layer in model.layers],
        "inputs": [[tensor.name, str(tensor.dtype), list(tensor.shape)] for tensor in model.inputs],
        "outputs": model.output_names, "last": [model.layers[-1].name, model.layers[-1].get_config().get("activation", "")],
    }
found["modules"] = sorted(name for name in sys.modules if name.partition(".")[0] == "humeris")
json.dump(found, open("found.json", "w"))
"""


def write_backbones(folder: Path) -> dict[str, BackboneSpec]:
    """The backbones: nano, and three files of a user's own, with weights that tell images apart."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(2)

    image = keras.Input((32, 32, 3), name="pixels")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="first")(image)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, padding="same", name="side")(x))
    x = layers.Activation("relu", name="join")(layers.Add(name="add")([x, y]))
    x = layers.Conv2D(16, 3, activation="relu", name="above")(x)
    plain = keras.Model(image, layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x)))

    inside = keras.Input((16, 16, 8))
    squeeze = layers.Conv2D(6, 3, strides=2, activation="relu", name="squeeze")(inside)
    body = keras.Model(inside, layers.Conv2D(4, 1, name="after")(squeeze), name="body")
    stem = keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")], name="stem"
    )
    image = keras.Input((32, 32, 3))
    nested = keras.Model(image, layers.Dense(4)(layers.Flatten()(body(stem(image)))))

    sequential = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(6, 3, strides=2, activation="relu", name="first"),
            layers.Conv2D(8, 3, strides=2, activation="relu", name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="top"),
        ]
    )
    requests = {"nano": BackboneSpec.parse("nano,image_size=32")}
    for name, model in (("plain", plain), ("nested", nested), ("sequential", sequential)):
        model.save(folder / f"{name}.keras")
        requests[name] = BackboneSpec.parse(f"{folder / name}.keras,preprocessing=unit")
    return requests


@dataclass(frozen=True)
class Matrix:
    """For each model: what the cache answers on all test images, and what a fresh Keras found in the file."""

    cached: dict[str, np.ndarray]
    found: dict[str, Any]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, draw_image: Callable[..., Path]) -> Matrix:
    folder = tmp_path_factory.mktemp("matrix")
    for kind, name in enumerate(("stripes", "blob", "noise")):
        for seed in range(12):
            draw_image(folder / "photos" / ("train" if seed < 8 else "test") / name / f"{seed}.png", kind, seed)
    store = Store(folder / "cache", write=True)
    images = load_images(folder / "photos", store, jobs=1)
    classes = images.dataset.classes
    held_out = np.array([image.item.split == "test" for image in images.used])
    labels = np.array([classes.index(label) for label in images.labels])
    test = [image for image in images.used if image.item.split == "test"]
    cached = {}
    for name, request in write_backbones(folder).items():
        done = extract_features(
            images, store, ExtractConfig(request, layers=[f"{TAPPED[name]}:{pool}" for pool in POOLS], jobs=1)
        )[0]
        backbone = build(request)
        for key in KEYS:
            of, pool, family = key.split("-")
            if of == name:
                features = select_features.build_matrix(
                    [store.get_extraction(done.metadata.spec).get_features(TAPPED[name], pool)], images.keys
                ).to_array()
                detail = {"epochs": 6, "temperature": 1.0}
                head = get_head_family("centroid" if family == "cosine" else family).fit(
                    TrainingData.from_arrays(features[~held_out], labels[~held_out], []),
                    SETTINGS[family],
                    detail,
                    0,
                )
                stack_model(backbone, [Tap(TAPPED[name], pool)], head).save(folder / f"{key}.keras")
                cached[key] = head.predict_proba(features[held_out])
    pixels = np.stack([decode(Path(image.item.location).read_bytes(), (32, 32)) for image in test])
    np.save(folder / "images.npy", pixels)
    (folder / "models.json").write_text(json.dumps(list(cached)))
    subprocess.run([sys.executable, "-c", ASK], cwd=folder, check=True, capture_output=True)
    return Matrix(cached, json.loads((folder / "found.json").read_text()))


@pytest.mark.parametrize("key", KEYS)
def test_the_model_in_a_fresh_process_answers_as_the_cache_on_every_test_image(matrix: Matrix, key: str) -> None:
    cached, answers = matrix.cached[key], np.array(matrix.found[key]["answers"])
    assert cached.shape == answers.shape == (12, 3)
    assert np.ptp(cached, axis=0).max() > 0.01
    assert (cached.argmax(axis=1) == answers.argmax(axis=1)).all()
    assert np.abs(cached - answers).max() <= BOUND.get(key.split("-")[1], 1e-4)
    assert answers.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("key", KEYS)
def test_the_model_is_flat(matrix: Matrix, key: str) -> None:
    assert not {"Functional", "Sequential", "Model", "Lambda"} & set(matrix.found[key]["kinds"])


@pytest.mark.parametrize("key", KEYS)
def test_bytes_go_in_and_probabilities_come_out(matrix: Matrix, key: str) -> None:
    found = matrix.found[key]
    assert found["inputs"] == [["image", "uint8", [None, 32, 32, 3]]]
    assert found["outputs"] == ["probabilities"]
    assert found["last"] == ["probabilities", "" if key.endswith("knn") else "softmax"]


@pytest.mark.parametrize(
    ("name", "above"), [("plain", {"above", "pool", "logits"}), ("sequential", {"flat", "top"}), ("nested", {"after"})]
)
def test_nothing_above_the_tap_is_in_the_model(matrix: Matrix, name: str, above: set[str]) -> None:
    for pool in POOLS:
        layers = matrix.found[f"{name}-{pool}-logreg"]["layers"]
        assert not above & {layer.rpartition("/")[2] for layer in layers}
        assert any("first" in layer or "conv2d" in layer for layer in layers)


def test_nano_is_cut_above_the_tapped_block(matrix: Matrix) -> None:
    layers = matrix.found["nano-avg-logreg"]["layers"]
    assert "block3_out" in layers
    assert not any(layer.startswith(("block4", "block5")) for layer in layers)


def test_nothing_of_ours_is_needed_to_load_a_model(matrix: Matrix) -> None:
    assert matrix.found["modules"] == []


def test_several_taps_are_set_side_by_side_in_the_order_of_the_sources(finished: Any) -> None:
    store = Store(finished.cache)
    images: Images = load_images(finished.photos, store, jobs=1)
    chosen = [finished.run.find_trial(trial.id)[0].tap_refs[0] for trial in finished.run.load_trials()]
    by_layer = {source.layer: source for source in chosen}
    wanted = [by_layer["block5_out"], by_layer["block4_out"]]
    features = select_features.load_matrix(store, wanted, images.keys).to_array()
    labels = np.array([images.dataset.classes.index(label) for label in images.labels])
    head = get_head_family("logreg").fit(TrainingData.from_arrays(features, labels, []), {"C": 0.1}, {}, 0)
    model = stack_model(build(BackboneSpec.parse("nano")), [Tap(source.layer, source.pool) for source in wanted], head)
    pixels = np.stack([decode(Path(image.item.location).read_bytes(), (64, 64)) for image in images.used])
    assert np.abs(model.predict_on_batch(pixels) - head.predict_proba(features)).max() <= 1e-4
