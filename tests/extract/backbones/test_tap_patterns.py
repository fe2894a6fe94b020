"""Patterns of taps: any common spelling finds a layer, and an unknown layer is an error that lists the closest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from humeris.cache.errors import LayerError
from humeris.extract.backbones.graph import Layer
from humeris.extract.backbones.tap_patterns import is_match, resolve_taps
from humeris.extract.backbones.taps import Tap, choose_default_pool


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
    with pytest.raises(LayerError, match="matches several layers: a_b, ab; give"):
        found("a-b")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("mixed_11", "closest: mixed0, mixed5, mixed10"),
        ("block3_conv2", "block3_conv1"),
        ("qqqq", "layer 'qqqq': matches none of the network's 10 layers"),
        ("zz*", "matches none"),
        ("", "matches none"),
        ("mixed5:mean", "unknown pool 'mean'; choose one of avg, max, gridN, map, cls"),
        ("mixed5:grid0", "unknown pool 'grid0'"),
        ("mixed5:grid100", "unknown pool 'grid100'"),
        ("mixed5:", "unknown pool ''"),
        ("mixed5:grid9", "8x8"),
        ("block3_conv1:grid5", "4x6"),
        ("mixed5:cls", "a map of shape .*; use avg, max, gridN or map"),
        ("tokens:grid2", "tokens of shape .*; use avg, max, cls or map"),
        ("predictions:avg", "a vector of shape .*; use map"),
    ],
)
def test_a_tap_that_is_not_there_says_what_is(pattern: str, said: str) -> None:
    with pytest.raises(LayerError, match=said) as caught:
        found(pattern)
    assert "\n" not in str(caught.value)


def test_a_pool_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LayerError, match="unknown pool 'mean'; choose one of avg, max"):
        found("mixed5", pools=["mean"])


def test_a_pattern_names_a_stored_tap() -> None:
    tap = Tap("mixed5", "avg")
    assert all(is_match(pattern, tap) for pattern in ("mixed5", "mixed_5", "mixed*", "mixed_5:avg", "*:avg", "*"))
    assert not any(is_match(pattern, tap) for pattern in ("mixed", "mixed5:max", "*:max", "conv*"))
