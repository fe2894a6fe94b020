"""The backbones that come by name: all of `keras.applications`, and nano. A table, so that listing them imports nothing."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ...cache.errors import BackboneError


@dataclass(frozen=True)
class Application:
    """A named backbone.

    constructor: name in `keras.applications`, or "nano"
    size, minimum: default and least image side, in pixels
    preprocessing: mode of `preprocessing.apply`
    pretrained: what its own weights are called
    """

    name: str
    constructor: str
    size: int
    preprocessing: str
    minimum: int = 32
    pretrained: str = "imagenet"


def _list_variants(prefix: str, constructor: str, sizes: dict[str, int], preprocessing: str) -> list[Application]:
    return [
        Application(prefix + suffix.lower(), constructor + suffix, size, preprocessing) for suffix, size in sizes.items()
    ]


_EFFICIENTNET_SIZES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "B4": 380, "B5": 456, "B6": 528, "B7": 600}
_EFFICIENTNET_V2_SIZES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "S": 384, "M": 480, "L": 480}
_CONVNEXT_SIZES = {"Tiny": 224, "Small": 224, "Base": 224, "Large": 224, "XLarge": 224}

APPLICATIONS = (
    Application("nano", "nano", 64, "tf", 32, "synthetic"),
    *_list_variants("convnext_", "ConvNeXt", _CONVNEXT_SIZES, "none"),
    *_list_variants("densenet", "DenseNet", {"121": 224, "169": 224, "201": 224}, "torch"),
    *_list_variants("efficientnet_", "EfficientNet", _EFFICIENTNET_SIZES, "none"),
    *_list_variants("efficientnet_v2_", "EfficientNetV2", _EFFICIENTNET_V2_SIZES, "none"),
    Application("inception_resnet_v2", "InceptionResNetV2", 299, "tf", 75),
    Application("inception_v3", "InceptionV3", 299, "tf", 75),
    Application("mobilenet", "MobileNet", 224, "tf"),
    Application("mobilenet_v2", "MobileNetV2", 224, "tf"),
    *_list_variants("mobilenet_v3_", "MobileNetV3", {"Large": 224, "Small": 224}, "none"),
    *_list_variants("nasnet_", "NASNet", {"Large": 331, "Mobile": 224}, "tf"),
    *_list_variants("resnet", "ResNet", {"50": 224, "101": 224, "152": 224}, "caffe"),
    Application("resnet50_v2", "ResNet50V2", 224, "tf"),
    Application("resnet101_v2", "ResNet101V2", 224, "tf"),
    Application("resnet152_v2", "ResNet152V2", 224, "tf"),
    *_list_variants("vgg", "VGG", {"16": 224, "19": 224}, "caffe"),
    Application("xception", "Xception", 299, "tf", 71),
)


def normalize_name(name: str) -> str:
    """`name` as it is compared: lower case, without separators, so that `mixed_5` finds `mixed5`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_application(name: str) -> Application:
    """The backbone called `name`, in any common spelling (`ResNet50`, `resnet_50`); raises `BackboneError`."""
    by_name = {normalize_name(item.name): item for item in APPLICATIONS} | {
        normalize_name(item.constructor): item for item in APPLICATIONS
    }
    if (application := by_name.get(normalize_name(name))) is not None:
        return application
    close_names = difflib.get_close_matches(normalize_name(name), by_name, n=4, cutoff=0.5)
    names = ", ".join(dict.fromkeys(by_name[item].name for item in close_names)) or "(none is close)"
    raise BackboneError(
        f"backbone {name!r}: expected a name in `humeris backbones` or a .keras file, found neither; closest: {names}"
    )
