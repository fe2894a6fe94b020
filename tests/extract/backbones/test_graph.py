"""Flat graphs of networks: names, costs, cuts and default taps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from humeris.extract.backbones.graph import Graph, Layer, choose_default_layers
from humeris.extract.backbones.keras_runtime import load_keras, reset_layer_names, seed_initializers

PICTURE = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


def by_name(graph: Graph) -> dict[str, Layer]:
    return {layer.name: layer for layer in graph.layers}


def values(graph: Graph, name: str) -> np.ndarray:
    keras = load_keras()
    return np.asarray(keras.Model(graph.image, graph.outputs[name]).predict_on_batch(PICTURE))


def residual() -> Any:
    """stem → a → b → add(stem, b) → relu → pool → dense, with known sizes."""
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    stem = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    a = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(stem)
    b = keras.layers.Conv2D(8, 1, name="b")(a)
    norm = keras.layers.BatchNormalization(name="norm")(b)
    total = keras.layers.Add(name="add")([stem, norm])
    out = keras.layers.ReLU(name="out")(total)
    depthwise = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise")(out)
    rows = keras.layers.GlobalAveragePooling2D(name="rows")(depthwise)
    return keras.Model(image, keras.layers.Dense(5, name="dense")(rows), name="residual")


def test_a_layer_can_be_cut_where_nothing_goes_around_it() -> None:
    layers = by_name(Graph(residual(), (16, 16), "tf"))
    assert {name: layer.is_cut_point for name, layer in layers.items()} == {
        "stem": True,
        "a": False,
        "b": False,
        "norm": False,
        "add": True,
        "out": True,
        "depthwise": True,
        "rows": True,
        "dense": True,
    }


def test_nothing_can_be_cut_while_the_image_itself_is_still_needed() -> None:
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(image)
    second = keras.layers.Conv2D(4, 3, padding="same", name="second")(first)
    both = keras.layers.Concatenate(name="both")([image, second])
    model = keras.Model(image, keras.layers.Conv2D(2, 1, name="last")(both))
    layers = by_name(Graph(model, (16, 16), "tf"))
    assert {name: layer.is_cut_point for name, layer in layers.items()} == {
        "first": False,
        "second": False,
        "both": True,
        "last": True,
    }


def test_costs_are_multiply_adds_up_to_the_layer() -> None:
    layers = by_name(Graph(residual(), (16, 16), "tf"))
    stem, a, b = 8 * 8 * 3 * 3 * 3 * 8, 8 * 8 * 3 * 3 * 8 * 8, 8 * 8 * 8 * 8
    depthwise, dense = 4 * 4 * 3 * 3 * 8, 8 * 5
    assert {name: layer.cost for name, layer in layers.items()} == {
        "stem": stem,
        "a": stem + a,
        "b": stem + a + b,
        "norm": stem + a + b,
        "add": stem + a + b,
        "out": stem + a + b,
        "depthwise": stem + a + b + depthwise,
        "rows": stem + a + b + depthwise,
        "dense": stem + a + b + depthwise + dense,
    }


def test_values_written_are_counted_up_to_the_layer() -> None:
    layers = by_name(Graph(residual(), (16, 16), "tf"))
    side8, side4 = 8 * 8 * 8, 4 * 4 * 8
    assert layers["stem"].elements == side8
    assert layers["out"].elements == 6 * side8
    assert layers["dense"].elements == 6 * side8 + side4 + 8 + 5


def test_parameters_are_those_that_keras_counts_in_the_network_up_to_the_layer() -> None:
    keras = load_keras()
    model = residual()
    layers = by_name(Graph(model, (16, 16), "tf"))
    expected = {name: keras.Model(model.input, model.get_layer(name).output).count_params() for name in layers}
    assert {name: layer.parameters for name, layer in layers.items()} == expected
    assert expected["dense"] == model.count_params()


def test_parameters_that_are_used_twice_count_once() -> None:
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    twice = shared(shared(image))
    model = keras.Model(image, keras.layers.Flatten(name="out")(twice))
    assert by_name(Graph(model, (16, 16), "tf"))["out"].parameters == model.count_params() == 3 * 3 * 3 * 3 + 3


def test_the_cost_of_a_branch_does_not_count_the_other() -> None:
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    left = keras.layers.Conv2D(4, 1, name="left")(image)
    right = keras.layers.Conv2D(4, 1, name="right")(image)
    both = keras.layers.Concatenate(name="both")([left, right])
    layers = by_name(Graph(keras.Model(image, both), (16, 16), "tf"))
    one = 16 * 16 * 3 * 4
    assert [layers[name].cost for name in ("left", "right", "both")] == [one, one, 2 * one]


def test_what_ends_a_step_is_told_from_what_does_not() -> None:
    layers = by_name(Graph(residual(), (16, 16), "tf"))
    assert {name for name, layer in layers.items() if not layer.is_block_end} == {"b", "norm", "depthwise", "dense"}


def test_shapes_are_without_the_batch() -> None:
    layers = by_name(Graph(residual(), (16, 16), "tf"))
    assert layers["stem"].shape == (8, 8, 8)
    assert layers["rows"].shape == (8,)


def nested() -> Any:
    keras = load_keras()
    layers = [keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.ReLU(name="relu")]
    inner = keras.Sequential(layers, name="inner")
    image = keras.Input((16, 16, 3))
    middle_in = keras.Input((16, 16, 3))
    middle = keras.Model(middle_in, inner(keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(middle_in)),
                         name="middle")  # fmt: skip
    outer = keras.layers.Flatten(name="flat")(middle(image))
    return keras.Model(image, keras.layers.Dense(3, name="dense")(outer), name="outer")


def test_nested_models_come_out_flat_with_prefixed_names() -> None:
    graph = Graph(nested(), (16, 16), "tf")
    assert [layer.name for layer in graph.layers] == [
        "middle/conv",
        "middle/inner/conv",
        "middle/inner/relu",
        "flat",
        "dense",
    ]


@pytest.mark.parametrize("build", [residual, nested])
def test_every_flat_output_equals_that_of_the_model(build: Any) -> None:
    keras = load_keras()
    model = build()
    graph = Graph(model, (16, 16), "tf")
    expected = np.asarray(model.predict_on_batch(PICTURE / 127.5 - 1))
    np.testing.assert_allclose(values(graph, graph.layers[-1].name), expected, rtol=1e-4, atol=1e-5)
    for layer in model.layers:
        if layer.name in graph.outputs:
            oracle = keras.Model(model.inputs, layer.output)
            np.testing.assert_allclose(
                values(graph, layer.name), np.asarray(oracle.predict_on_batch(PICTURE / 127.5 - 1)), rtol=1e-4, atol=1e-5
            )


def test_a_sequential_model_is_laid_flat() -> None:
    keras = load_keras()
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, name="one"), keras.layers.ReLU(name="two")]
    )
    graph = Graph(model, (16, 16), "none")
    assert [layer.name for layer in graph.layers] == ["one", "two"]
    np.testing.assert_allclose(
        values(graph, "two"), np.asarray(model.predict_on_batch(PICTURE.astype(np.float32))), rtol=1e-4, atol=1e-3
    )


def test_a_layer_used_twice_gives_its_last_output() -> None:
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    model = keras.Model(image, shared(shared(image)))
    graph = Graph(model, (16, 16), "none")
    assert [layer.name for layer in graph.layers] == ["shared"]
    np.testing.assert_allclose(
        values(graph, "shared"), np.asarray(model.predict_on_batch(PICTURE.astype(np.float32))), rtol=1e-4, atol=1e-2
    )


# --- names and seeds


def test_unnamed_layers_are_numbered_from_the_start_whatever_was_built_before() -> None:
    keras = load_keras()

    def names() -> list[str]:
        return [keras.layers.Conv2D(1, 1).name for _ in range(2)]

    with reset_layer_names():
        assert names() == ["conv2d", "conv2d_1"]
    outside = names()
    with reset_layer_names():
        assert names() == ["conv2d", "conv2d_1"]
    following = keras.layers.Conv2D(1, 1).name
    assert int(following.rpartition("_")[2]) == int(outside[1].rpartition("_")[2]) + 1


def test_random_weights_are_repeatable_and_the_generator_is_put_back() -> None:
    import random

    keras = load_keras()

    def weights(seed: int) -> np.ndarray:
        with seed_initializers(seed):
            layer = keras.layers.Dense(4)
            layer.build((None, 3))
        return np.asarray(layer.kernel)

    state = random.getstate()
    assert np.array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))
    assert random.getstate() == state


# --- default taps


def layer(name: str, side: int, cost: int, is_cut_point: bool = True, is_block_end: bool = True) -> Layer:
    return Layer(name, "Conv2D", (side, side, 4), cost, 0, is_cut_point, is_block_end, 0)


def test_the_last_layer_at_each_resolution_is_tapped() -> None:
    layers = [layer("a", 8, 1), layer("b", 8, 2), layer("c", 4, 3), layer("d", 4, 4), layer("e", 2, 5)]
    assert choose_default_layers(layers, max_layers=3) == ["b", "d", "e"]


def test_the_widest_gap_in_cost_is_filled_first() -> None:
    layers = [layer("a", 8, 0)] + [layer(f"m{number}", 4, number * 10) for number in range(1, 11)]
    assert choose_default_layers(layers, max_layers=3) == ["a", "m5", "m10"]


def test_layers_that_something_bypasses_are_not_tapped() -> None:
    layers = [layer("a", 8, 1), layer("b", 4, 2, is_cut_point=False), layer("c", 4, 3, is_block_end=False), layer("d", 4, 4)]
    assert choose_default_layers(layers) == ["a", "d"]


def test_a_network_without_a_proper_layer_is_tapped_at_its_end() -> None:
    assert choose_default_layers([layer("a", 8, 1, is_cut_point=False), layer("b", 8, 2, is_cut_point=False)]) == ["b"]


def test_nano_is_tapped_at_its_blocks() -> None:
    from humeris.extract.backbones.nano_network import build_nano

    graph = Graph(build_nano((64, 64, 3)), (64, 64), "tf")
    chosen = choose_default_layers(graph.layers)
    assert {"block1_out", "block2_out", "block3_out", "block5_out"} <= set(chosen)
    assert len(chosen) <= 8


@pytest.mark.parametrize(
    ("constructor", "size", "expected"),
    [
        ("MobileNetV2", 96, {"out_relu"}),
        ("ResNet50", 64, {"conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"}),
        ("InceptionV3", 96, {"mixed2", "mixed7", "mixed10"}),
    ],
)
def test_default_taps_are_the_ends_of_the_stages(constructor: str, size: int, expected: set[str]) -> None:
    keras = load_keras()
    with reset_layer_names():
        model = getattr(keras.applications, constructor)(weights=None, include_top=False, input_shape=(size, size, 3))
    layers = Graph(model, (size, size), "none").layers
    chosen = choose_default_layers(layers)
    assert expected <= set(chosen), chosen
    assert chosen[-1] == layers[-1].name
    assert 5 <= len(chosen) <= 8
    assert chosen == [each.name for each in layers if each.name in chosen]
    assert all(each.is_cut_point for each in layers if each.name in chosen)
