"""A folded convolution equals the convolution and its batch normalization, and only suitable layers are folded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from humeris.extract.backbones import batch_norm_folding
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.graph import Graph
from humeris.extract.backbones.keras_runtime import load_keras

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def trained(model: Any) -> Any:
    """The model with trained batch normalizations: their means are not 0, their variances not 1."""
    random = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 2, value.shape) for value in layer.get_weights()])
    return model


def network(*layers: Any) -> Any:
    keras = load_keras()
    return trained(keras.Sequential([keras.Input((32, 32, 3)), *layers]))


def outputs(model: Any, *, folded: bool) -> tuple[Any, dict[str, np.ndarray]]:
    keras = load_keras()
    graph = Graph(model, (32, 32), "tf", fold_batch_norm=folded)
    whole = keras.Model(graph.image, list(graph.outputs.values()))
    return graph, dict(zip(graph.outputs, whole.predict_on_batch(PICTURES), strict=True))


def normalisations_left(graph: Any, layer: str) -> int:
    keras = load_keras()
    return sum(type(each).__name__ == "BatchNormalization" for each in keras.Model(graph.image, graph.outputs[layer]).layers)


@pytest.mark.parametrize("options", [
    {}, {"use_bias": False}, {"strides": 2, "padding": "same"}, {"groups": 2, "filters": 8}, {"dilation_rate": 2},
])  # fmt: skip
@pytest.mark.parametrize("normalisation", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}])
def test_a_convolution_takes_its_normalisation_over(options: dict[str, Any], normalisation: dict[str, Any]) -> None:
    layers = load_keras().layers
    model = network(
        layers.Conv2D(6, 3, name="first"),
        layers.Conv2D(**{"filters": 8, "kernel_size": 3, "bias_initializer": "glorot_uniform", **options}, name="conv"),
        layers.BatchNormalization(name="norm", **normalisation),
        layers.ReLU(name="out"),
    )
    graph, found = outputs(model, folded=True)
    plain, expected = outputs(model, folded=False)
    assert (normalisations_left(graph, "out"), normalisations_left(plain, "out")) == (0, 1)
    assert graph.layers == plain.layers
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_a_depthwise_convolution_too(multiplier: int) -> None:
    layers = load_keras().layers
    model = network(
        layers.DepthwiseConv2D(3, depth_multiplier=multiplier, use_bias=False, name="conv"),
        layers.BatchNormalization(name="norm"),
    )
    graph, found = outputs(model, folded=True)
    assert normalisations_left(graph, "norm") == 0
    np.testing.assert_allclose(found["norm"], outputs(model, folded=False)[1]["norm"], rtol=1e-4, atol=2e-5)


def test_a_convolution_with_an_activation_or_with_another_user_is_left_alone() -> None:
    keras = load_keras()
    layers = keras.layers
    active = network(layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(name="norm"))
    assert normalisations_left(outputs(active, folded=True)[0], "norm") == 1
    image = keras.Input((32, 32, 3))
    conv = layers.Conv2D(4, 3, name="conv")(image)
    both = layers.Add(name="sum")([conv, layers.BatchNormalization(name="norm")(conv)])
    used_twice = trained(keras.Model(image, both))
    graph, found = outputs(used_twice, folded=True)
    assert normalisations_left(graph, "sum") == 1
    np.testing.assert_array_equal(found["sum"], outputs(used_twice, folded=False)[1]["sum"])
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    twice = trained(keras.Model(image, layers.BatchNormalization(name="norm")(shared(shared(image)))))
    assert normalisations_left(outputs(twice, folded=True)[0], "norm") == 1


def test_a_nested_network_is_folded_and_names_stay_apart() -> None:
    keras = load_keras()
    layers = keras.layers

    def branch(name: str) -> Any:
        return keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.Conv2D(3, 3, padding="same", name="conv"),
                layers.BatchNormalization(name="norm"),
            ],
            name=name,
        )

    image = keras.Input((32, 32, 3))
    model = trained(keras.Model(image, layers.Add(name="sum")([branch("left")(image), branch("right")(image)])))
    graph, found = outputs(model, folded=True)
    assert normalisations_left(graph, "sum") == 0
    np.testing.assert_allclose(found["sum"], outputs(model, folded=False)[1]["sum"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "most"), [("mobilenet_v2", 0), ("resnet50", 0), ("efficientnetb0", 0), ("densenet121", 63)]
)
def test_the_networks_people_use_are_folded(name: str, most: int) -> None:
    graph = build(BackboneSpec.parse(f"{name},weights=random,image_size=32")).graph
    assert normalisations_left(graph, graph.layers[-1].name) <= most


def test_the_folding_is_part_of_the_key() -> None:
    assert build(BackboneSpec.parse("nano")).spec.forward == batch_norm_folding.VERSION
