"""Small Keras models and images that the tests of file formats write and ask; their own answers are what is expected."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from humeris.classify.export.formats.format import Format
from humeris.classify.export.model_metadata import ModelMetadata
from humeris.classify.export.stack_model import apply_layers
from humeris.classify.heads.layers import ACTIVATIONS, Dense, HeadLayer, L2Normalize, SelectColumns, Standardize
from humeris.classify.heads.neighbor_votes import VOTE_WEIGHTS, NeighborVotes
from humeris.extract.backbones.keras_runtime import load_keras

CLASSES = ["ant", "bee's", "“fly”", "gnat,\nbig", "µ"]
METADATA = ModelMetadata(tuple(CLASSES), (16, 16), "1", precision="as asked")
SIDE, WIDTH = 16, 48


def make_images(count: int, seed: int = 0) -> np.ndarray:
    """Images (count, 16, 16, 3) uint8 that differ in colour, contrast and direction."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    angle, phase, frequency = (random.uniform(0, limit, (count, 1, 1)) for limit in (np.pi, 6, 12))
    wave = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)[..., None]
    color, contrast = random.uniform(0, 255, (count, 1, 1, 3)), random.uniform(0, 120, (count, 1, 1, 1))
    return np.clip(color + contrast * wave, 0, 255).astype(np.uint8)


@cache
def build_network() -> tuple[Any, Any]:
    """A small network's image, and its features (batch, 48); with depthwise and grouped convolutions and an addition."""
    keras = load_keras()
    layers = keras.layers
    keras.utils.set_random_seed(1)
    image = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu6")(x)
    y = layers.Conv2D(128, 1, activation="relu6", bias_initializer="random_normal")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(y)
    y = layers.Conv2D(32, 1)(y)
    x = layers.Add()([x, y])
    x = layers.Conv2D(64, 3, groups=4, padding="same", activation="silu")(x)
    x = layers.Conv2D(WIDTH, 3, activation="relu", bias_initializer="random_normal")(x)
    return image, layers.GlobalAveragePooling2D()(x)


@cache
def compute_features() -> np.ndarray:
    """The features (64, 48) of some images."""
    keras = load_keras()
    return np.asarray(keras.Model(*build_network()).predict_on_batch(make_images(64, seed=5)))


def draw_numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def build_heads() -> dict[str, tuple[HeadLayer, ...]]:
    """A head with each kind of layer, and each activation, on standardised features."""
    mean, deviation = compute_features().mean(axis=0), np.maximum(compute_features().std(axis=0), 1e-3)
    scale = Standardize(mean, 1 / deviation)
    last = Dense(draw_numbers(16, 5) * 0.4, draw_numbers(5), "softmax")
    rows = (compute_features()[:30] - mean) / deviation
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.arange(30) * 7 % 5
    layers_by_name: dict[str, tuple[HeadLayer, ...]] = {
        name: (scale, Dense(draw_numbers(WIDTH, 16) * 0.2, draw_numbers(16), name), last) for name in ACTIVATIONS
    }
    layers_by_name["scale"] = (scale, Dense(draw_numbers(WIDTH, 5) * 0.15, draw_numbers(5), "softmax"))
    layers_by_name["unit"] = (scale, L2Normalize(), Dense(draw_numbers(WIDTH, 5) * 2, draw_numbers(5), "softmax"))
    layers_by_name["columns"] = (
        scale,
        SelectColumns(np.arange(WIDTH)[::-3].copy()),
        Dense(draw_numbers(16, 5), draw_numbers(5), "softmax"),
    )
    return layers_by_name | {name: (scale, L2Normalize(), NeighborVotes(rows, labels, 4, name, 5)) for name in VOTE_WEIGHTS}


HEADS = [*ACTIVATIONS, "scale", "unit", "columns", *VOTE_WEIGHTS]


@cache
def build_model(head: str = "scale") -> Any:
    """The network with one of the heads."""
    keras = load_keras()
    image, values = build_network()
    return keras.Model(image, apply_layers(build_heads()[head], values), name="humeris")


def predict_with_keras(head: str, inputs: np.ndarray) -> np.ndarray:
    """What Keras answers, which varies."""
    probabilities = np.asarray(build_model(head)(inputs))
    assert len(inputs) < 8 or np.ptp(probabilities, axis=0).max() > 0.1
    return probabilities


def write_in_precisions(model_format: Format, folder: Path) -> dict[str, Path]:
    """The paths of the network, written in each precision that the format has."""
    paths = {precision: folder / f"{precision}{model_format.suffix}" for precision in model_format.precisions}
    for precision, path in paths.items():
        model_format.write(build_model(), path, METADATA, precision, make_images(32, seed=1))
    return paths


@cache
def build_unsupported_model() -> Any:
    """A model with an operation that neither format has."""
    keras = load_keras()
    image = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    values = keras.ops.erfinv(keras.layers.Flatten()(keras.layers.Rescaling(1 / 256)(image)))
    return keras.Model(image, keras.layers.Dense(5, activation="softmax", name="probabilities")(values))
