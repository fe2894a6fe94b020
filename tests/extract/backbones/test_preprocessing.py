"""Preprocessing equals that of Keras, and consists of layers that can be saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from humeris.extract.backbones import preprocessing
from humeris.extract.backbones.keras_runtime import load_keras

PICTURE = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)


def applied(mode: str) -> np.ndarray:
    keras = load_keras()
    image = keras.Input((5, 6, 3), dtype="uint8")
    return np.asarray(keras.Model(image, preprocessing.apply(image, mode)).predict_on_batch(PICTURE))


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_a_mode_equals_that_of_keras(mode: str) -> None:
    load_keras()
    from keras.src.applications.imagenet_utils import preprocess_input

    expected = preprocess_input(PICTURE.astype(np.float32), mode=mode)
    np.testing.assert_allclose(applied(mode), expected, rtol=1e-5, atol=2e-5)


def test_unit_and_none() -> None:
    np.testing.assert_allclose(applied("unit"), PICTURE / 255, rtol=1e-6)
    np.testing.assert_array_equal(applied("none"), PICTURE.astype(np.float32))


@pytest.mark.parametrize("mode", preprocessing.MODES)
def test_a_mode_survives_being_saved(mode: str, tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input((5, 6, 3), dtype="uint8")
    model = keras.Model(image, preprocessing.apply(image, mode))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again.predict_on_batch(PICTURE), model.predict_on_batch(PICTURE))


def test_modes_differ() -> None:
    results = [applied(mode) for mode in preprocessing.MODES]
    assert all(not np.allclose(first, second) for i, first in enumerate(results) for second in results[:i])
