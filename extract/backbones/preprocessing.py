"""Scale pixels from 0..255 to the range that a network was trained on, with Keras layers, which all formats can export."""

from __future__ import annotations

from typing import Any

from .keras_runtime import load_keras

# tf, torch and caffe are the modes of keras.applications.imagenet_utils.preprocess_input.
MODES = {
    "tf": "[-1, 1]",
    "torch": "[0, 1], minus the ImageNet mean, divided by its standard deviation",
    "caffe": "BGR, minus the ImageNet mean",
    "unit": "[0, 1]",
    "none": "0..255",
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BGR_MEAN = (103.939, 116.779, 123.68)


def apply(image: Any, mode: str) -> Any:
    """Scale pixels for a network.

    Parameters
    ----------
    image : keras.KerasTensor
        RGB (..., 3), values 0 to 255.
    mode : str
        A key of `MODES`.

    Returns
    -------
    keras.KerasTensor
        Float (..., 3).
    """
    rescaling = load_keras().layers.Rescaling
    if mode == "tf":
        return rescaling(1 / 127.5, offset=-1.0, name="humeris_preprocessing")(image)
    if mode == "unit":
        return rescaling(1 / 255, name="humeris_preprocessing")(image)
    if mode == "torch":
        scale = [1 / (255 * std) for std in _STD]
        offset = [-mean / std for mean, std in zip(_MEAN, _STD, strict=True)]
        return rescaling(scale, offset=offset, name="humeris_preprocessing")(image)
    if mode == "caffe":
        return rescaling(1.0, offset=[-mean for mean in _BGR_MEAN], name="humeris_preprocessing")(image[..., ::-1])
    return rescaling(1.0, name="humeris_preprocessing")(image)
