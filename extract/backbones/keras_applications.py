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


def _family(prefix: str, constructor: str, sizes: dict[str, int], preprocessing: str) -> list[Application]:
    return [
        Application(prefix + suffix.lower(), constructor + suffix, size, preprocessing) for suffix, size in sizes.items()
    ]


_B = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "B4": 380, "B5": 456, "B6": 528, "B7": 600}
_V2 = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "S": 384, "M": 480, "L": 480}
_CONVNEXT = {"Tiny": 224, "Small": 224, "Base": 224, "Large": 224, "XLarge": 224}

APPLICATIONS = (
    Application("nano", "nano", 64, "tf", 32, "drawings"),
    *_family("convnext_", "ConvNeXt", _CONVNEXT, "none"),
    *_family("densenet", "DenseNet", {"121": 224, "169": 224, "201": 224}, "torch"),
    *_family("efficientnet_", "EfficientNet", _B, "none"),
    *_family("efficientnet_v2_", "EfficientNetV2", _V2, "none"),
    Application("inception_resnet_v2", "InceptionResNetV2", 299, "tf", 75),
    Application("inception_v3", "InceptionV3", 299, "tf", 75),
    Application("mobilenet", "MobileNet", 224, "tf"),
    Application("mobilenet_v2", "MobileNetV2", 224, "tf"),
    *_family("mobilenet_v3_", "MobileNetV3", {"Large": 224, "Small": 224}, "none"),
    *_family("nasnet_", "NASNet", {"Large": 331, "Mobile": 224}, "tf"),
    *_family("resnet", "ResNet", {"50": 224, "101": 224, "152": 224}, "caffe"),
    Application("resnet50_v2", "ResNet50V2", 224, "tf"),
    Application("resnet101_v2", "ResNet101V2", 224, "tf"),
    Application("resnet152_v2", "ResNet152V2", 224, "tf"),
    *_family("vgg", "VGG", {"16": 224, "19": 224}, "caffe"),
    Application("xception", "Xception", 299, "tf", 71),
)


def plain(name: str) -> str:
    """`name` as it is compared: lower case, without separators, so that `mixed_5` finds `mixed5`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find(name: str) -> Application:
    """The backbone called `name`, in any common spelling (`ResNet50`, `resnet_50`); raises `BackboneError`."""
    by_name = {plain(item.name): item for item in APPLICATIONS} | {plain(item.constructor): item for item in APPLICATIONS}
    if (found := by_name.get(plain(name))) is not None:
        return found
    close = difflib.get_close_matches(plain(name), by_name, n=4, cutoff=0.5)
    names = ", ".join(dict.fromkeys(by_name[item].name for item in close)) or "(none is close)"
    raise BackboneError(
        f"backbone {name!r}: expected a name in `humeris backbones` or a .keras file, found neither; closest: {names}"
    )
