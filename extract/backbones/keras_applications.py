"""The networks of `keras.applications`, as a table, so that listing them does not import Keras."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...cache.errors import BackboneError, WeightsError
from ...cache.formatting import format_error
from ...cache.spec import ExtractionSpec
from . import weights
from .backbone_source import BackboneInfo, BackboneSource
from .keras_runtime import load_keras

if TYPE_CHECKING:
    from .backbone_spec import BackboneSpec

# Arguments of the constructors that humeris sets itself.
_RESERVED = {"input_tensor", "input_shape", "pooling", "classes", "name", "classifier_activation"}
_EFFICIENTNET_SIZES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "B4": 380, "B5": 456, "B6": 528, "B7": 600}
_EFFICIENTNET_V2_SIZES = {"B0": 224, "B1": 240, "B2": 260, "B3": 300, "S": 384, "M": 480, "L": 480}
_CONVNEXT_SIZES = {"Tiny": 224, "Small": 224, "Base": 224, "Large": 224, "XLarge": 224}
# By constructor, from Keras's documentation of each application, or for later networks the repositories of their papers.
_LICENSES = {
    r"VGG": "Creative Commons Attribution, by the Visual Geometry Group at Oxford",
    r"ResNet\d+$": "MIT, by Kaiming He",
    r"DenseNet": "BSD 3-clause, by its authors",
    r"Xception": "MIT, by its author",
    r"ConvNeXt": "MIT, by its authors",
    r"(Inception|MobileNet|NASNet|EfficientNet)": "Apache-2.0, by their authors",
}


def _list_variants(prefix: str, constructor: str, sizes: dict[str, int], preprocessing: str) -> list[BackboneInfo]:
    return [
        BackboneInfo(prefix + suffix.lower(), constructor + suffix, size, preprocessing) for suffix, size in sizes.items()
    ]


APPLICATIONS = (
    *_list_variants("convnext_", "ConvNeXt", _CONVNEXT_SIZES, "none"),
    *_list_variants("densenet", "DenseNet", {"121": 224, "169": 224, "201": 224}, "torch"),
    *_list_variants("efficientnet_", "EfficientNet", _EFFICIENTNET_SIZES, "none"),
    *_list_variants("efficientnet_v2_", "EfficientNetV2", _EFFICIENTNET_V2_SIZES, "none"),
    BackboneInfo("inception_resnet_v2", "InceptionResNetV2", 299, "tf", 75),
    BackboneInfo("inception_v3", "InceptionV3", 299, "tf", 75),
    BackboneInfo("mobilenet", "MobileNet", 224, "tf"),
    BackboneInfo("mobilenet_v2", "MobileNetV2", 224, "tf"),
    *_list_variants("mobilenet_v3_", "MobileNetV3", {"Large": 224, "Small": 224}, "none"),
    *_list_variants("nasnet_", "NASNet", {"Large": 331, "Mobile": 224}, "tf"),
    *_list_variants("resnet", "ResNet", {"50": 224, "101": 224, "152": 224}, "caffe"),
    BackboneInfo("resnet50_v2", "ResNet50V2", 224, "tf"),
    BackboneInfo("resnet101_v2", "ResNet101V2", 224, "tf"),
    BackboneInfo("resnet152_v2", "ResNet152V2", 224, "tf"),
    *_list_variants("vgg", "VGG", {"16": 224, "19": 224}, "caffe"),
    BackboneInfo("xception", "Xception", 299, "tf", 71),
)


class KerasApplications(BackboneSource):
    """The networks of `keras.applications` by name, with the arguments of their constructors: `mobilenet_v2,alpha=0.35`."""

    name = "keras.applications"

    def list_backbones(self) -> Sequence[BackboneInfo]:
        """Return the networks of the table."""
        return APPLICATIONS

    def check(self, spec: BackboneSpec) -> None:
        """Raise `BackboneError` for an argument that humeris sets; `build` checks the others, as that needs Keras."""
        if reserved_names := _RESERVED & set(spec.arguments):
            raise BackboneError(f"backbone {spec.name}: {sorted(reserved_names)[0]} is set by humeris; leave it out")

    def build(self, spec: BackboneSpec) -> Any:
        """Build the network without its classifier; Keras downloads the weights unless `KERAS_HOME` has them."""
        constructor = getattr(load_keras().applications, spec.info.constructor)
        _check_arguments(spec, constructor)
        pretrained = "imagenet" if spec.has_pretrained_weights else None
        arguments = {"include_top": False, **spec.arguments}
        try:
            with weights.explain_download_errors(spec.name):
                return constructor(weights=pretrained, input_shape=spec.input_shape, **arguments)
        except WeightsError:
            raise
        except (ValueError, TypeError) as error:
            height, width, _ = spec.input_shape
            raise BackboneError(
                f"backbone {spec.title}: cannot be built for images of {height}x{width} pixels: {format_error(error)}"
            ) from error

    def get_license(self, spec: ExtractionSpec) -> str:
        """Return the license that the authors of the network state."""
        constructor = self.describe(spec.backbone).constructor
        text = next((text for pattern, text in _LICENSES.items() if re.match(pattern, constructor)), "unknown to humeris")
        return (
            f"{text}, through keras.applications (Apache-2.0); trained on ImageNet, whose images are licensed for "
            "non-commercial research: seek legal advice before commercial use"
        )

    def list_key_parts(self, spec: BackboneSpec) -> list[Any]:
        """Return the name, and for pretrained weights the files that Keras has downloaded, in case one is replaced."""
        return [self.name, spec.name, weights.list_downloads() if spec.has_pretrained_weights else []]


def _check_arguments(spec: BackboneSpec, constructor: Any) -> None:
    """Raise `BackboneError` for an argument that the constructor does not have, or one that leaves the scaling undefined."""
    accepted = inspect.signature(constructor).parameters
    for name in spec.arguments:
        if name not in accepted:
            raise BackboneError(
                f"backbone {spec.name}: keras.applications.{spec.info.constructor} has no argument {name!r} "
                f"(arguments: {', '.join(accepted)}); correct the name, or leave it out"
            )
    if spec.arguments.get("include_preprocessing") is False and spec.preprocessing is None:
        raise BackboneError(
            f"backbone {spec.name}: include_preprocessing=false leaves the scaling of pixels undefined; "
            f"write {spec.name},include_preprocessing=false,preprocessing=MODE"
        )
