"""What is done to images in training, by Keras's own layers: new at each epoch, while views (`extract.augment`) are cached.

Everything takes and gives float32 tensors (n, height, width, 3) in 0…255, on whichever back end Keras has, and draws for
each image on its own. A draw comes from the NumPy generator that is handed in, and from nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...cache.errors import DataError
from ...extract.backbones.keras_runtime import load_keras
from ...extract.pixels.augment import Draws, Kind, operations_of, rectangle, written
from . import autoaugment
from .augment_ops import GREY, Operations

_RANGE = (0, 255)
_OUTSIDE = {"fill_mode": "constant", "fill_value": GREY}


class Layers:
    """Keras's layers, each made when first needed, and seeded anew for each use. For one thread at a time."""

    def __init__(self) -> None:
        self.keras = load_keras()
        self.operations = Operations()
        self._made: dict[tuple[str, str], Any] = {}

    def made(self, name: str, **options: Any) -> Any:
        """The layer of this name with these options, in float32 whatever Keras's global policy is.

        Without a seed it would take one of Python's own generator, and so change what the caller draws next.
        """
        key = name, repr(options)
        if key not in self._made:
            self._made[key] = getattr(self.keras.layers, name)(**options, dtype="float32", seed=0)
        return self._made[key]

    def drawn(self, data: Any, random: np.random.Generator, name: str, **options: Any) -> Any:
        """What the layer makes of `data`, with draws that are decided by the state of `random` alone."""
        layer = self.made(name, **options)
        layer.generator.state.assign([int(random.integers(2**31)), 0])
        return layer(data, training=True)


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image: operations with their strengths in thousandths, in the order in which they are done."""

    operations: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """The augmentation written `flip,crop=0.5,randaugment=2x9`, in any order; raises `DataError`."""
        return cls(operations_of(text, KINDS))

    def __str__(self) -> str:
        """The augmentation as `parse` takes it, every strength written out."""
        return ",".join(written(self.operations))

    def apply(self, images: Any, layers: Layers, random: np.random.Generator) -> Any:
        """The images (n, height, width, 3), float32 in 0…255, each changed by its own draws."""
        for name, strength in self.operations:
            images = KINDS[name].apply(images, layers, random, *strength)
        return layers.keras.ops.clip(images, 0.0, 255.0)


@dataclass(frozen=True)
class Mixes:
    """MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899): the alphas of their Beta distributions; 0 is without.

    With both, each batch gets one of them, either with the same probability. Raises `DataError` beyond Keras's bounds.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            if not 0 <= alpha <= 1:
                raise DataError(f"--{name}: expected alpha from 0 (none) to 1, found {alpha:g}; 0.2 is a common choice")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    @cached_property
    def _offered(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        # CutMix draws its alpha between two bounds, between 0 and the number when it is given one.
        both = (
            ("MixUp", self.mixup, {"alpha": self.mixup}),
            ("CutMix", self.cutmix, {"factor": (self.cutmix, self.cutmix)}),
        )
        return tuple((name, options) for name, alpha, options in both if alpha)

    def apply(self, images: Any, labels: Any, layers: Layers, random: np.random.Generator) -> tuple[Any, Any]:
        """Images (n, height, width, 3) mixed with others of the batch, and labels (n, classes) in the same shares.

        The share of CutMix is that of a box whose edges lie between pixels: up to a row and a column of them is rounded.
        """
        name, options = self._offered[random.integers(len(self._offered))]
        mixed = layers.drawn({"images": images, "labels": labels}, random, name, **options)
        return mixed["images"], mixed["labels"]


def _flip(axis: int) -> Any:
    mode = {2: "horizontal", 1: "vertical"}[axis]

    def apply(images: Any, layers: Layers, random: np.random.Generator, probability: int) -> Any:
        # The layer knows no other probability than one half, so it is told which to flip.
        flips = random.random((images.shape[0], 1, 1, 1)) < probability / 1000
        return layers.made("RandomFlip", mode=mode).transform_images(images, {"flips": flips})

    return apply


def _crop(images: Any, layers: Layers, random: np.random.Generator, least: int) -> Any:
    """A rectangle of each image at its full size again: the same law as of `crop` in views.

    Keras's `RandomCrop` cuts one fixed size at one place of the whole batch, and `RandomZoom` is about the centre. This is
    the bilinear operation that `RandomZoom`, `RandomTranslation` and `RandomRotation` are made of, told the rectangle.
    """
    height, width = images.shape[1:3]
    rows = []
    for _ in range(images.shape[0]):
        left, top, wide, high = rectangle(width, height, Draws(random.bytes(16)), least)
        across, down = wide / width, high / height
        rows.append([across, 0, left + (across - 1) / 2, 0, down, top + (down - 1) / 2, 0, 0])
    return layers.keras.ops.image.affine_transform(
        images, np.array(rows, np.float32), interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
    )


def _rotate(images: Any, layers: Layers, random: np.random.Generator, most: int) -> Any:
    return layers.drawn(images, random, "RandomRotation", factor=most / 360_000, **_OUTSIDE)


def _zoom(images: Any, layers: Layers, random: np.random.Generator, most: int) -> Any:
    return layers.drawn(images, random, "RandomZoom", height_factor=most / 1000, **_OUTSIDE)


def _translate(images: Any, layers: Layers, random: np.random.Generator, most: int) -> Any:
    share = most / 1000
    return layers.drawn(images, random, "RandomTranslation", height_factor=share, width_factor=share, **_OUTSIDE)


def _color(images: Any, layers: Layers, random: np.random.Generator, most: int) -> Any:
    """The four layers that `RandomColorJitter` is made of, in its order; the hue moves a quarter as far, as in views.

    In 0…1, since `RandomSaturation` lets saturations above 1 pass in 0…255. Its factor f multiplies by f / (1 - f).
    `RandomContrast` only strengthens when given one number. Brightness is added, half as much: the same for a mid-grey.
    """
    share = most / 1000
    factors = {
        "RandomBrightness": (-share / 2, share / 2),
        "RandomContrast": (share, share),
        "RandomSaturation": ((1 - share) / (2 - share), (1 + share) / (2 + share)),
        "RandomHue": (0.0, share / 2),
    }
    images = images / 255.0
    for name, factor in factors.items():
        images = layers.drawn(images, random, name, factor=factor, value_range=(0, 1))
    return images * 255.0


def _gray(images: Any, layers: Layers, random: np.random.Generator, probability: int) -> Any:
    return layers.drawn(images, random, "RandomGrayscale", factor=probability / 1000)


def _blur(images: Any, layers: Layers, random: np.random.Generator, most: int) -> Any:
    """Each image by a standard deviation of its own, 0.1 pixels to `most`.

    `RandomGaussianBlur` draws one for the whole batch and another for each axis, and takes all to be black outside:
    so it is told, image by image, and images are mirrored beyond their edges.
    """
    ops, blurred = layers.keras.ops, []
    for row, deviation in enumerate(random.uniform(0.1, most / 1000, images.shape[0])):
        radius = min(math.ceil(3 * deviation), min(images.shape[1:3]) - 1)
        layer = layers.made("RandomGaussianBlur", kernel_size=2 * radius + 1, value_range=_RANGE)
        edge = (radius, radius)
        wide = ops.pad(images[row : row + 1], ((0, 0), edge, edge, (0, 0)), mode="reflect")
        told = {"blur_factor": np.full(2, deviation, np.float32), "should_apply_blur": np.array([True])}
        found = layer.transform_images(wide, told)
        blurred.append(found[:, radius : radius + images.shape[1], radius : radius + images.shape[2]])
    return ops.concatenate(blurred, axis=0)


def _cutout(images: Any, layers: Layers, random: np.random.Generator, share: int) -> Any:
    """A rectangle of fixed sides, wholly inside, replaced by `GREY` (in arXiv 1708.04552 parts may lie outside)."""
    area = (share / 1000) ** 2
    return layers.drawn(images, random, "RandomErasing", factor=(1.0, 1.0), scale=(area, area), fill_value=GREY)


def _erasing(images: Any, layers: Layers, random: np.random.Generator, probability: int) -> Any:
    """A rectangle of noise, each side the root of 0.02 to 0.33 of the image's (after arXiv 1708.04896)."""
    chance = probability / 1000
    return layers.drawn(images, random, "RandomErasing", factor=(chance, chance), scale=(0.02, 0.33))


def _randaugment(images: Any, layers: Layers, random: np.random.Generator, count: int, level: int) -> Any:
    plans = [autoaugment.randaugment(random, count // 1000, level / 1000) for _ in range(images.shape[0])]
    return layers.operations.chains(images, plans)


def _autoaugment(images: Any, layers: Layers, random: np.random.Generator) -> Any:
    return layers.operations.chains(images, [autoaugment.autoaugment(random) for _ in range(images.shape[0])])


def _augmix(images: Any, layers: Layers, random: np.random.Generator, severity: int) -> Any:
    return autoaugment.augmix(random, layers.operations, images, severity / 1000)


_SHARE = ((1, 1000),)
_COUNT_AND_LEVEL = ((1000, 14_000), (0, 10_000))
# In the order in which they are done.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("flip", "the probability of a left-right mirror image, above 0 up to 1", "0.5", _SHARE, _flip(2)),
        Kind("vflip", "the probability of being upside down, above 0 up to 1", "0.5", _SHARE, _flip(1)),
        Kind("crop", "the least share of the area that is kept, 0.01 to 1", "0.25", ((10, 1000),), _crop),
        Kind("rotate", "the largest angle in degrees, above 0 up to 180", "15", ((1, 180_000),), _rotate),
        Kind("zoom", "the largest share by which it grows or shrinks, above 0 up to 0.9", "0.2", ((1, 900),), _zoom),
        Kind("translate", "the largest shift as a share of each side, above 0 up to 1", "0.1", _SHARE, _translate),
        Kind(
            "randaugment", "COUNTxLEVEL, 1 to 14 operations at 0 to 10", "2x9", ((1000, 14_000), (0, 10_000)), _randaugment
        ),
        Kind("autoaugment", "", "", (), _autoaugment),
        Kind("augmix", "the severity, 0.1 to 10", "3", ((100, 10_000),), _augmix),
        Kind("color", "the largest change of brightness, contrast and saturation, above 0 up to 1", "0.4", _SHARE, _color),
        Kind("gray", "the probability of no colour, above 0 up to 1", "0.2", _SHARE, _gray),
        Kind("blur", "the largest standard deviation in pixels, 0.1 to 10", "2", ((100, 10_000),), _blur),
        Kind("cutout", "each side of the part as a share of the image's, above 0 up to 1", "0.5", _SHARE, _cutout),
        Kind("erasing", "the probability of a rectangle of noise, above 0 up to 1", "0.25", _SHARE, _erasing),
    )
}
