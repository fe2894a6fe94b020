"""The licenses that the weights of networks were published under, as their publishers say."""

from __future__ import annotations

import re

from ...cache.spec import ExtractionSpec

# As Keras's documentation of each application has it, and for the later ones the repositories of the papers.
_LICENSES = {
    r"VGG": "Creative Commons Attribution, by the Visual Geometry Group at Oxford",
    r"ResNet\d+\(": "MIT, by Kaiming He",
    r"DenseNet": "BSD 3-clause, by its authors",
    r"Xception": "MIT, by its author",
    r"ConvNeXt": "MIT, by its authors",
    r"(Inception|MobileNet|NASNet|EfficientNet)": "Apache-2.0, by their authors",
}


def describe_license(spec: ExtractionSpec) -> str:
    """A sentence on the license of the weights that features were made with."""
    if spec.weights.startswith("random"):
        return "random numbers"
    if spec.file or spec.weights == "file":
        return "your own file: its licence is not known here"
    if spec.architecture.startswith("humeris."):
        return "Apache-2.0, with humeris"
    name = spec.architecture.partition("keras.applications.")[2]
    license_text = next((text for pattern, text in _LICENSES.items() if re.match(pattern, name)), "not known here")
    return (
        f"{license_text}, through keras.applications (Apache-2.0); they learnt from ImageNet, whose images are for "
        "non-commercial research: have this checked before you sell what rests on them"
    )
