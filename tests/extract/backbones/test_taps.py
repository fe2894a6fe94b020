"""Taps: a layer is found whichever way it is written, and a row is what NumPy makes of Keras's own output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from humeris.cache.errors import LayerError
from humeris.extract.backbones import taps
from humeris.extract.backbones.graph import Layer
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import (
    Tap,
    choose_default_pool,
    compute_row_bytes,
    compute_row_shape,
    is_match,
    resolve_taps,
)


def layer(name: str, shape: Sequence[int] = (8, 8, 4)) -> Layer:
    return Layer(name, "Conv2D", tuple(shape), 1, 1, True, True, 1)


LAYERS = [
    layer("conv2d"),
    layer("mixed0"),
    layer("mixed5"),
    layer("mixed10"),
    layer("block3_conv1", (4, 6, 8)),
    layer("body/block1_out"),
    layer("tokens", (17, 6)),
    layer("predictions", (10,)),
    layer("a_b"),
    layer("ab"),
]


def found(*patterns: str, pools: Sequence[str] = (), defaults: Sequence[str] = ()) -> list[str]:
    return [str(tap) for tap in resolve_taps(patterns, LAYERS, defaults, pools)]


@pytest.mark.parametrize("name", ["mixed5", "mixed_5", "Mixed_5", "MIXED-5", "mixed 5"])
def test_a_layer_is_found_whichever_way_it_is_written(name: str) -> None:
    assert found(name) == ["mixed5:avg"]
    assert found(f"{name}:max") == ["mixed5:max"]


@pytest.mark.parametrize("name", ["body/block1_out", "body_block1_out", "body/block1-out"])
def test_a_nested_layer_is_found_with_its_prefix(name: str) -> None:
    assert found(name) == ["body/block1_out:avg"]


def test_globs() -> None:
    assert found("mixed*") == ["mixed0:avg", "mixed5:avg", "mixed10:avg"]
    assert found("mixed?:max") == ["mixed0:max", "mixed5:max"]
    assert found("Mixed_*") == ["mixed0:avg", "mixed5:avg", "mixed10:avg"]
    assert found("*/block1_out") == ["body/block1_out:avg"]
    assert found("mixed[05]") == ["mixed0:avg", "mixed5:avg"]


def test_taps_come_once_and_in_the_order_of_computation() -> None:
    assert found("mixed10", "mixed*", "conv2d:map", "mixed_0:avg") == [
        "conv2d:map",
        "mixed0:avg",
        "mixed5:avg",
        "mixed10:avg",
    ]


def test_a_pattern_without_a_pool_takes_each_pool_asked_for() -> None:
    assert found("mixed5", "mixed0:map", pools=["avg", "grid2"]) == ["mixed0:map", "mixed5:avg", "mixed5:grid2"]


def test_without_patterns_the_defaults_are_taken() -> None:
    assert found(defaults=["mixed10", "conv2d"]) == ["conv2d:avg", "mixed10:avg"]


def test_the_default_pool_depends_on_the_shape() -> None:
    assert found("tokens", "predictions", "conv2d") == ["conv2d:avg", "tokens:avg", "predictions:map"]
    assert choose_default_pool((2, 3, 4, 5)) == "map"


def test_an_exact_name_wins_over_a_likeness_and_a_likeness_to_two_is_refused() -> None:
    assert found("a_b") == ["a_b:avg"]
    assert found("ab") == ["ab:avg"]
    with pytest.raises(LayerError, match="expected one layer, found a_b, ab"):
        found("a-b")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("mixed_11", "closest: mixed0, mixed5, mixed10"),
        ("block3_conv2", "block3_conv1"),
        ("qqqq", "10 layers, found none"),
        ("zz*", "found none"),
        ("", "found none"),
        ("mixed5:mean", "expected a pool avg, max, gridN, map, cls, found 'mean'"),
        ("mixed5:grid0", "expected a pool"),
        ("mixed5:grid100", "expected a pool"),
        ("mixed5:", "expected a pool"),
        ("mixed5:grid9", "8x8"),
        ("block3_conv1:grid5", "4x6"),
        ("mixed5:cls", "a map of shape"),
        ("tokens:grid2", "tokens of shape"),
        ("predictions:avg", "a row of shape"),
    ],
)
def test_a_tap_that_is_not_there_says_what_is(pattern: str, said: str) -> None:
    with pytest.raises(LayerError, match=said) as caught:
        found(pattern)
    assert "\n" not in str(caught.value)


def test_a_pool_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LayerError, match="expected a pool"):
        found("mixed5", pools=["mean"])


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


def test_a_pattern_names_a_stored_tap() -> None:
    tap = Tap("mixed5", "avg")
    assert all(is_match(pattern, tap) for pattern in ("mixed5", "mixed_5", "mixed*", "mixed_5:avg", "*:avg", "*"))
    assert not any(is_match(pattern, tap) for pattern in ("mixed", "mixed5:max", "*:max", "conv*"))


# --- values


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
