"""Networks with what converters stumble over: pixels normalised inside, grouped convolutions, exact GELU, hard swish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_models import CLASSES, draw_numbers, make_images

from humeris.classify.export.formats import quantization
from humeris.classify.export.formats.registry import FORMATS
from humeris.classify.export.model_metadata import ModelMetadata
from humeris.classify.export.stack_model import stack_model
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import Dense, Standardize
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap

# A network, the layer it is cut at so that it stays small, and the operations of Keras that make it one of these.
FAMILIES = [
    ("efficientnet_b0", "block3a_expand_activation", {"Normalization", "DepthwiseConv2D"}),
    ("convnext_tiny", "convnext_tiny_stage_0_block_1_identity", {"LayerNormalization", "Normalization", "Conv2D"}),
    ("mobilenet_v3_small", "expanded_conv_3_project_bn", {"Rescaling", "ReLU", "Multiply"}),
]
METADATA = ModelMetadata(tuple(CLASSES), (32, 32), "1")


def pictures(count: int, seed: int) -> np.ndarray:
    return make_images(count, seed).repeat(2, axis=1).repeat(2, axis=2)


@pytest.fixture(scope="module", params=FAMILIES, ids=[name for name, *_ in FAMILIES])
def model(request: pytest.FixtureRequest) -> Any:
    """The network with random weights and a head on its standardised features, so that its answers differ."""
    name, layer, kinds = request.param
    keras = load_keras()
    backbone = build(BackboneSpec.parse(f"{name},weights=random,image_size=32"))
    tap = Tap(layer, "avg")
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.graph.outputs[layer])
    rows = np.asarray(keras.Model(backbone.graph.image, pooled)(pictures(40, 1)))
    deviation = np.maximum(rows.std(axis=0), 1e-2 * rows.std(axis=0).max())
    width = rows.shape[1]
    head = Head(
        layers=(
            Standardize(rows.mean(axis=0), 1 / deviation),
            Dense(draw_numbers(width, 5) * 2 / width**0.5, draw_numbers(5), "softmax"),
        ),
        class_names=tuple(CLASSES),
    )
    made = stack_model(backbone, [tap], head)
    assert kinds <= {type(operation).__name__ for operation in made.operations}
    return made


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_a_family_answers_as_in_keras(name: str, model: Any, tmp_path: Path) -> None:
    form, path, asked = FORMATS[name], tmp_path / f"model{FORMATS[name].suffix}", pictures(20, 2)
    form.write(model, path, METADATA, "float32", None)
    expected = np.asarray(model(asked))
    assert np.ptp(expected, axis=0).max() > 0.2
    assert len(set(expected.argmax(axis=1))) > 1
    assert np.abs(form.load(path)(asked) - expected).max() <= 2e-5


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_a_family_keeps_its_answers_with_weights_in_eight_bits(
    name: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "MIN_CLASS_AGREEMENT", 1.1)
    form, path, asked = FORMATS[name], tmp_path / f"model{FORMATS[name].suffix}", pictures(20, 2)
    form.write(model, path, METADATA, "int8", pictures(8, 3))
    assert np.abs(form.load(path)(asked) - np.asarray(model(asked))).max() <= 0.1


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_a_network_that_computes_in_bfloat16_is_written_in_float32(name: str, tmp_path: Path) -> None:
    form, path, asked = FORMATS[name], tmp_path / f"model{FORMATS[name].suffix}", pictures(20, 2)
    made = {}
    for precision in ("float32", "bfloat16"):
        backbone = build(BackboneSpec.parse("nano,image_size=32", precision=precision))
        layer = backbone.graph.layers[-1]
        head = Head(
            layers=(Dense(draw_numbers(layer.shape[-1], 5), draw_numbers(5), "softmax"),), class_names=tuple(CLASSES)
        )
        made[precision] = stack_model(backbone, [Tap(layer.name, "avg")], head)
    form.write(made["bfloat16"], path, METADATA, "float32", None)
    expected, half = (np.asarray(made[precision](asked)) for precision in ("float32", "bfloat16"))
    assert np.abs(form.load(path)(asked) - expected).max() <= 2e-5
    assert np.abs(half - expected).max() > 1e-4
    assert "bfloat16" in {layer.compute_dtype for layer in made["bfloat16"].layers}
