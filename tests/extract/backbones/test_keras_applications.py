"""The networks of keras.applications: the table is complete, and any common spelling finds them."""

from __future__ import annotations

import inspect

import pytest

from humeris.extract.backbones.keras_applications import APPLICATIONS, KerasApplications
from humeris.extract.backbones.preprocessing import MODES


def test_there_are_forty_of_keras() -> None:
    assert len(APPLICATIONS) == 40
    assert len({item.name for item in APPLICATIONS}) == 40


def test_the_constructors_are_those_that_keras_has() -> None:
    from humeris.extract.backbones.keras_runtime import load_keras

    applications = load_keras().applications
    there = {name for name in dir(applications) if name[0].isupper() and inspect.isfunction(getattr(applications, name))}
    assert {item.constructor for item in APPLICATIONS} == there


def test_the_default_sizes_are_those_of_the_papers() -> None:
    sizes = {item.constructor: item.size for item in APPLICATIONS}
    odd = {name: size for name, size in sizes.items() if size != 224}
    assert odd == {
        "EfficientNetB1": 240, "EfficientNetB2": 260, "EfficientNetB3": 300, "EfficientNetB4": 380,
        "EfficientNetB5": 456, "EfficientNetB6": 528, "EfficientNetB7": 600,
        "EfficientNetV2B1": 240, "EfficientNetV2B2": 260, "EfficientNetV2B3": 300,
        "EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480,
        "InceptionResNetV2": 299, "InceptionV3": 299, "Xception": 299, "NASNetLarge": 331,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "mode", "members"),
    [
        ("convnext", "none", "convnext_tiny convnext_small convnext_base convnext_large convnext_xlarge"),
        ("densenet", "torch", "densenet121 densenet169 densenet201"),
        ("efficientnet", "none", " ".join(f"efficientnet_b{number}" for number in range(8))),
        ("efficientnet_v2", "none", " ".join(f"efficientnet_v2_{size}" for size in ["b0", "b1", "b2", "b3", "s", "m", "l"])),
        ("inception_resnet_v2", "tf", "inception_resnet_v2"),
        ("inception_v3", "tf", "inception_v3"),
        ("mobilenet", "tf", "mobilenet"),
        ("mobilenet_v2", "tf", "mobilenet_v2"),
        ("mobilenet_v3", "none", "mobilenet_v3_large mobilenet_v3_small"),
        ("nasnet", "tf", "nasnet_large nasnet_mobile"),
        ("resnet", "caffe", "resnet50 resnet101 resnet152"),
        ("resnet_v2", "tf", "resnet50_v2 resnet101_v2 resnet152_v2"),
        ("vgg16", "caffe", "vgg16"),
        ("vgg19", "caffe", "vgg19"),
        ("xception", "tf", "xception"),
    ],
)
def test_the_preprocessing_is_the_one_of_its_keras_module(module: str, mode: str, members: str) -> None:
    """The oracle is the output of Keras's `preprocess_input` for an image."""
    import numpy as np

    from humeris.extract.backbones import preprocessing
    from humeris.extract.backbones.keras_runtime import load_keras

    keras = load_keras()
    picture = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype(np.float32)
    name = {"resnet_v2": "resnet_v2", "mobilenet_v3": "mobilenet_v3"}.get(module, module)
    expected = getattr(keras.applications, name).preprocess_input(picture.copy())
    image = keras.Input((4, 4, 3))
    found = keras.Model(image, preprocessing.apply(image, mode))(picture)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, rtol=1e-5, atol=2e-5)
    assert {KerasApplications().describe(member).preprocessing for member in members.split()} == {mode}


def test_every_preprocessing_is_a_known_mode() -> None:
    assert {item.preprocessing for item in APPLICATIONS} <= set(MODES)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "MobileNetV2", "mobilenetv2", "MOBILENET-V2", "mobile_net_v2", "mobilenet v2"]
)
def test_a_name_is_found_in_any_common_spelling(name: str) -> None:
    assert KerasApplications().describe(name).constructor == "MobileNetV2"


def test_every_backbone_is_found_by_its_name_and_by_its_constructor() -> None:
    for item in APPLICATIONS:
        assert KerasApplications().describe(item.name) is item
        assert KerasApplications().describe(item.constructor) is item
