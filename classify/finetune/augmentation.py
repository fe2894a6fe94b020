"""Augmentation of images in training, by Keras layers, drawn again in every epoch (views, `extract.augment`, are cached).

All operations take and return float32 tensors (n, height, width, 3) in 0…255, with any Keras backend, and draw for each
image separately. Random draws come from the NumPy generator that is passed, and from nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...cache.errors import DataError
from ...extract.backbones.keras_runtime import load_keras
from ...extract.pixels.augment import AugmentOp, DeterministicRNG, format_operations, parse_operations, sample_crop_box
from . import autoaugment
from .augment_ops import GRAY, Operations

_VALUE_RANGE = (0, 255)
_FILL = {"fill_mode": "constant", "fill_value": GRAY}


class AugmentationLayers:
    """Keras augmentation layers, built on first use and reseeded for each use; not thread-safe."""

    def __init__(self) -> None:
        self.keras = load_keras()
        self.operations = Operations()
        self._layers: dict[tuple[str, str], Any] = {}

    def get_layer(self, name: str, **options: Any) -> Any:
        """Return the layer of this name with these options, in float32 whatever the global dtype policy is.

        Without a seed it would take one of Python's own generator, and so change what the caller draws next.
        """
        key = name, repr(options)
        if key not in self._layers:
            self._layers[key] = getattr(self.keras.layers, name)(**options, dtype="float32", seed=0)
        return self._layers[key]

    def apply_random(self, data: Any, random: np.random.Generator, name: str, **options: Any) -> Any:
        """Return the output of the layer for `data`; its random draws depend on the state of `random` alone."""
        layer = self.get_layer(name, **options)
        layer.generator.state.assign([int(random.integers(2**31)), 0])
        return layer(data, training=True)


@dataclass(frozen=True)
class Augmentation:
    """Operations on each image with their strengths in thousandths, in the order of application."""

    operations: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Parse text such as `flip,crop=0.5,randaugment=2x9`, in any order; raises `DataError`."""
        return cls(parse_operations(text, KINDS))

    def __str__(self) -> str:
        """Return the text that `parse` takes, with every strength."""
        return ",".join(format_operations(self.operations))

    def apply(self, images: Any, layers: AugmentationLayers, random: np.random.Generator) -> Any:
        """Return the augmented images (n, height, width, 3), float32 in 0…255; each image has its own draws."""
        for name, strength in self.operations:
            images = KINDS[name].apply(images, layers, random, *strength)
        return layers.keras.ops.clip(images, 0.0, 255.0)


@dataclass(frozen=True)
class BatchMixer:
    """MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899) with the alphas of their Beta distributions; 0 for none.

    With both, each batch gets one of them, either with the same probability. Raises `DataError` beyond Keras's bounds.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            if not 0 <= alpha <= 1:
                raise DataError(f"--{name} {alpha:g}: out of range; give alpha from 0 (none) to 1, such as 0.2")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    @cached_property
    def _choices(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        # CutMix draws its alpha between two bounds, between 0 and the number when it is given one.
        mixers = (
            ("MixUp", self.mixup, {"alpha": self.mixup}),
            ("CutMix", self.cutmix, {"factor": (self.cutmix, self.cutmix)}),
        )
        return tuple((name, options) for name, alpha, options in mixers if alpha)

    def apply(self, images: Any, labels: Any, layers: AugmentationLayers, random: np.random.Generator) -> tuple[Any, Any]:
        """Return images (n, height, width, 3) mixed with others of the batch, and labels (n, classes) mixed alike.

        The share of CutMix is that of a box whose edges lie between pixels: up to a row and a column of them is rounded.
        """
        name, options = self._choices[random.integers(len(self._choices))]
        mixed = layers.apply_random({"images": images, "labels": labels}, random, name, **options)
        return mixed["images"], mixed["labels"]


def _make_flip(axis: int) -> Any:
    mode = {2: "horizontal", 1: "vertical"}[axis]

    def apply(images: Any, layers: AugmentationLayers, random: np.random.Generator, probability: int) -> Any:
        # The layer has a fixed probability of one half, so the images to flip are selected here.
        flips = random.random((images.shape[0], 1, 1, 1)) < probability / 1000
        return layers.get_layer("RandomFlip", mode=mode).transform_images(images, {"flips": flips})

    return apply


def _crop(images: Any, layers: AugmentationLayers, random: np.random.Generator, min_area: int) -> Any:
    """Crop a random rectangle of each image and resize it, with the distribution of `crop` in views.

    Keras's `RandomCrop` cuts one fixed size at one place of the whole batch, and `RandomZoom` is about the centre. This is
    the bilinear operation that `RandomZoom`, `RandomTranslation` and `RandomRotation` are made of, told the rectangle.
    """
    height, width = images.shape[1:3]
    transforms = []
    for _ in range(images.shape[0]):
        left, top, crop_width, crop_height = sample_crop_box(width, height, DeterministicRNG(random.bytes(16)), min_area)
        x_scale, y_scale = crop_width / width, crop_height / height
        transforms.append([x_scale, 0, left + (x_scale - 1) / 2, 0, y_scale, top + (y_scale - 1) / 2, 0, 0])
    return layers.keras.ops.image.affine_transform(
        images, np.array(transforms, np.float32), interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
    )


def _rotate(images: Any, layers: AugmentationLayers, random: np.random.Generator, max_angle: int) -> Any:
    return layers.apply_random(images, random, "RandomRotation", factor=max_angle / 360_000, **_FILL)


def _zoom(images: Any, layers: AugmentationLayers, random: np.random.Generator, max_change: int) -> Any:
    return layers.apply_random(images, random, "RandomZoom", height_factor=max_change / 1000, **_FILL)


def _translate(images: Any, layers: AugmentationLayers, random: np.random.Generator, max_shift: int) -> Any:
    max_fraction = max_shift / 1000
    return layers.apply_random(
        images, random, "RandomTranslation", height_factor=max_fraction, width_factor=max_fraction, **_FILL
    )


def _jitter_color(images: Any, layers: AugmentationLayers, random: np.random.Generator, max_change: int) -> Any:
    """Apply the four layers of `RandomColorJitter` in its order, with a quarter of the strength for hue, as in views.

    In 0…1, since `RandomSaturation` lets saturations above 1 pass in 0…255. Its factor f multiplies by f / (1 - f).
    `RandomContrast` only strengthens when given one number. Brightness is added, half as much: the same for a mid-grey.
    """
    max_fraction = max_change / 1000
    factors = {
        "RandomBrightness": (-max_fraction / 2, max_fraction / 2),
        "RandomContrast": (max_fraction, max_fraction),
        "RandomSaturation": ((1 - max_fraction) / (2 - max_fraction), (1 + max_fraction) / (2 + max_fraction)),
        "RandomHue": (0.0, max_fraction / 2),
    }
    images = images / 255.0
    for name, factor in factors.items():
        images = layers.apply_random(images, random, name, factor=factor, value_range=(0, 1))
    return images * 255.0


def _convert_to_gray(images: Any, layers: AugmentationLayers, random: np.random.Generator, probability: int) -> Any:
    return layers.apply_random(images, random, "RandomGrayscale", factor=probability / 1000)


def _blur(images: Any, layers: AugmentationLayers, random: np.random.Generator, max_deviation: int) -> Any:
    """Blur each image with its own standard deviation, from 0.1 pixels to `max_deviation`.

    `RandomGaussianBlur` would draw one for the whole batch and another for each axis, and pad with black: here it is called
    for each image with fixed factors, and images are mirrored beyond their edges.
    """
    ops, blurred = layers.keras.ops, []
    for row, deviation in enumerate(random.uniform(0.1, max_deviation / 1000, images.shape[0])):
        radius = min(math.ceil(3 * deviation), min(images.shape[1:3]) - 1)
        layer = layers.get_layer("RandomGaussianBlur", kernel_size=2 * radius + 1, value_range=_VALUE_RANGE)
        margin = (radius, radius)
        padded = ops.pad(images[row : row + 1], ((0, 0), margin, margin, (0, 0)), mode="reflect")
        transformation = {"blur_factor": np.full(2, deviation, np.float32), "should_apply_blur": np.array([True])}
        output = layer.transform_images(padded, transformation)
        blurred.append(output[:, radius : radius + images.shape[1], radius : radius + images.shape[2]])
    return ops.concatenate(blurred, axis=0)


def _cut_out(images: Any, layers: AugmentationLayers, random: np.random.Generator, side: int) -> Any:
    """Replace a rectangle of fixed size inside the image by `GRAY` (in arXiv 1708.04552 it may lie partly outside)."""
    area = (side / 1000) ** 2
    return layers.apply_random(images, random, "RandomErasing", factor=(1.0, 1.0), scale=(area, area), fill_value=GRAY)


def _erase_rectangle(images: Any, layers: AugmentationLayers, random: np.random.Generator, probability: int) -> Any:
    """Replace a rectangle by noise, each side the square root of 0.02 to 0.33 times that of the image (arXiv 1708.04896)."""
    fraction = probability / 1000
    return layers.apply_random(images, random, "RandomErasing", factor=(fraction, fraction), scale=(0.02, 0.33))


def _apply_randaugment(images: Any, layers: AugmentationLayers, random: np.random.Generator, count: int, level: int) -> Any:
    plans = [autoaugment.draw_randaugment(random, count // 1000, level / 1000) for _ in range(images.shape[0])]
    return layers.operations.apply_chains(images, plans)


def _apply_autoaugment(images: Any, layers: AugmentationLayers, random: np.random.Generator) -> Any:
    return layers.operations.apply_chains(images, [autoaugment.draw_autoaugment(random) for _ in range(images.shape[0])])


def _apply_augmix(images: Any, layers: AugmentationLayers, random: np.random.Generator, severity: int) -> Any:
    return autoaugment.apply_augmix(random, layers.operations, images, severity / 1000)


_SHARE_BOUNDS = ((1, 1000),)
_COUNT_AND_LEVEL_BOUNDS = ((1000, 14_000), (0, 10_000))
# In the order in which they are done.
KINDS = {
    kind.name: kind
    for kind in (
        AugmentOp(
            "flip", "the probability of a left-right mirror image, above 0 up to 1", "0.5", _SHARE_BOUNDS, _make_flip(2)
        ),
        AugmentOp("vflip", "the probability of being upside down, above 0 up to 1", "0.5", _SHARE_BOUNDS, _make_flip(1)),
        AugmentOp("crop", "the least share of the area that is kept, 0.01 to 1", "0.25", ((10, 1000),), _crop),
        AugmentOp("rotate", "the largest angle in degrees, above 0 up to 180", "15", ((1, 180_000),), _rotate),
        AugmentOp("zoom", "the largest share by which it grows or shrinks, above 0 up to 0.9", "0.2", ((1, 900),), _zoom),
        AugmentOp(
            "translate", "the largest shift as a share of each side, above 0 up to 1", "0.1", _SHARE_BOUNDS, _translate
        ),
        AugmentOp(
            "randaugment",
            "COUNTxLEVEL, 1 to 14 operations at 0 to 10",
            "2x9",
            ((1000, 14_000), (0, 10_000)),
            _apply_randaugment,
        ),
        AugmentOp("autoaugment", "", "", (), _apply_autoaugment),
        AugmentOp("augmix", "the severity, 0.1 to 10", "3", ((100, 10_000),), _apply_augmix),
        AugmentOp(
            "color",
            "the largest change of brightness, contrast and saturation, above 0 up to 1",
            "0.4",
            _SHARE_BOUNDS,
            _jitter_color,
        ),
        AugmentOp("gray", "the probability of no colour, above 0 up to 1", "0.2", _SHARE_BOUNDS, _convert_to_gray),
        AugmentOp("blur", "the largest standard deviation in pixels, 0.1 to 10", "2", ((100, 10_000),), _blur),
        AugmentOp(
            "cutout", "each side of the part as a share of the image's, above 0 up to 1", "0.5", _SHARE_BOUNDS, _cut_out
        ),
        AugmentOp(
            "erasing", "the probability of a rectangle of noise, above 0 up to 1", "0.25", _SHARE_BOUNDS, _erase_rectangle
        ),
    )
}
