"""Taps: rows equal the output of Keras pooled with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from humeris.extract.backbones import taps
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import (
    Tap,
    compute_row_bytes,
    compute_row_shape,
)


@pytest.mark.parametrize(
    ("pool", "shape", "row", "size"),
    [
        ("avg", (4, 6, 8), (8,), 32),
        ("max", (4, 6, 8), (8,), 32),
        ("grid1", (4, 6, 8), (8,), 32),
        ("grid4", (4, 6, 8), (128,), 512),
        ("map", (4, 6, 8), (4, 6, 8), 384),
        ("map", (10,), (10,), 20),
        ("cls", (17, 6), (6,), 24),
        ("avg", (17, 6), (6,), 24),
        ("map", (17, 6), (17, 6), 204),
    ],
)
def test_the_shape_and_size_of_a_row(pool: str, shape: tuple[int, ...], row: tuple[int, ...], size: int) -> None:
    assert compute_row_shape(Tap("x", pool), shape) == row
    assert compute_row_bytes(Tap("x", pool), shape) == size


def applied(values: np.ndarray, pool: str) -> np.ndarray:
    keras = load_keras()
    tensor = keras.Input(values.shape[1:])
    return np.asarray(keras.Model(tensor, taps.apply(tensor, Tap("x", pool))).predict_on_batch(values))


def grid(values: np.ndarray, cells: int) -> np.ndarray:
    """Mean over each cell [floor(i H / N), ceil((i + 1) H / N)), the usual definition of adaptive pooling, cell by cell."""
    height, width = values.shape[1:3]
    rows = []
    for i in range(cells):
        for j in range(cells):
            part = values[
                :,
                i * height // cells : -(-(i + 1) * height // cells),
                j * width // cells : -(-(j + 1) * width // cells),
            ]
            rows.append(part.mean(axis=(1, 2)))
    return np.concatenate(rows, axis=1)


MAP = np.random.default_rng(0).normal(size=(3, 7, 10, 4)).astype(np.float32)
TOKENS = np.random.default_rng(0).normal(size=(3, 17, 6)).astype(np.float32)


def test_pools_of_a_map_are_what_numpy_makes_of_it() -> None:
    np.testing.assert_allclose(applied(MAP, "avg"), MAP.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(applied(MAP, "max"), MAP.max(axis=(1, 2)))
    np.testing.assert_array_equal(applied(MAP, "map"), MAP)


@pytest.mark.parametrize("cells", [1, 2, 3, 4, 7])
def test_a_grid_is_what_numpy_makes_of_it(cells: int) -> None:
    found_ = applied(MAP, f"grid{cells}")
    assert found_.shape == (3, cells * cells * 4)
    np.testing.assert_allclose(found_, grid(MAP, cells), rtol=1e-5, atol=1e-6)


def test_a_grid_as_large_as_the_map_is_the_map() -> None:
    square = MAP[:, :, :7]
    np.testing.assert_allclose(applied(square, "grid7"), square.reshape(3, -1), rtol=1e-6)


def test_pools_of_tokens_are_what_numpy_makes_of_them() -> None:
    np.testing.assert_allclose(applied(TOKENS, "avg"), TOKENS.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(applied(TOKENS, "max"), TOKENS.max(axis=1))
    np.testing.assert_array_equal(applied(TOKENS, "cls"), TOKENS[:, 0])
    np.testing.assert_array_equal(applied(TOKENS, "map"), TOKENS)
