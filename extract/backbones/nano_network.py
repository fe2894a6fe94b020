"""The network of nano, the small backbone that comes with humeris, and the path of its weights.

It is a convolutional network of about 110 thousand parameters, trained only on synthetic drawings by examples/train_nano.py.
It is meant for 64x64 images but runs at any size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

WEIGHTS = Path(__file__).with_name("nano.weights.h5")

STEM = 24
PLAIN = ((24, 1, 1), (40, 2, 1))  # (channels, stride, residual layers) of blocks 1 and 2
SEPARABLE = ((80, 2, 2), (112, 2, 1), (144, 1, 1))  # the same for blocks 3, 4 and 5


def build_nano(input_shape: tuple[int | None, int | None, int] = (64, 64, 3)) -> keras.Model:
    """Build the network without a classifier, with random weights.

    Parameters
    ----------
    input_shape : tuple of int
        (height, width, 3) of the images, whose pixels must be scaled to [-1, 1].

    Returns
    -------
    keras.Model
        The output is the map ``block5_out``. The outputs of the five blocks are named ``block1_out`` to ``block5_out``; for
        an input of 64x64 they are 32, 16, 8, 4 and 4 pixels wide, with 24, 40, 80, 112 and 144 channels.

    Examples
    --------
    The trained weights fit every input size:

    >>> build_nano((96, 96, 3)).load_weights(WEIGHTS)
    """
    import keras

    image = keras.Input(input_shape, name="image")
    x = _convolve(image, STEM, 2, "stem", separable=False)
    x = keras.layers.ReLU(name="stem_out")(x)
    for number, (channels, stride, residuals) in enumerate(PLAIN + SEPARABLE, start=1):
        x = _add_block(x, channels, stride, residuals, f"block{number}", separable=number > len(PLAIN))
    return keras.Model(image, x, name="nano")


def _add_block(x: Any, channels: int, stride: int, residuals: int, name: str, *, separable: bool) -> Any:
    """Add a block: a convolution that changes the shape, if needed, then residual layers."""
    import keras

    if stride != 1 or x.shape[-1] != channels:
        x = _convolve(x, channels, stride, f"{name}_down", separable=separable)
        x = keras.layers.ReLU(name=f"{name}_down_relu")(x)
    for index in range(1, residuals + 1):
        y = _convolve(x, channels, 1, f"{name}_res{index}", separable=separable)
        x = keras.layers.Add(name=f"{name}_add{index}")([x, y])
        last = index == residuals
        x = keras.layers.ReLU(name=f"{name}_out" if last else f"{name}_relu{index}")(x)
    return x


def _convolve(x: Any, channels: int, stride: int, name: str, *, separable: bool) -> Any:
    """Add a 3x3 convolution and a batch normalization, without an activation."""
    import keras

    if separable:
        convolution = keras.layers.SeparableConv2D(
            channels, 3, strides=stride, padding="same", use_bias=False,
            depthwise_initializer="he_normal", pointwise_initializer="he_normal", name=f"{name}_conv",
        )  # fmt: skip
    else:
        convolution = keras.layers.Conv2D(
            channels, 3, strides=stride, padding="same", use_bias=False,
            kernel_initializer="he_normal", name=f"{name}_conv",
        )  # fmt: skip
    return keras.layers.BatchNormalization(momentum=0.98, name=f"{name}_bn")(convolution(x))
