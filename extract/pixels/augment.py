"""Views: deterministic augmentations of an image, the same on every machine.

A view is decided by the policy, the digest of the image's bytes and the view's number, and by nothing else: not by
the order of images, by threads, or by the versions of NumPy and of Python. What would change a pixel of any view
must change `VERSION`, which is part of the key of every feature.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import features

from ...cache.errors import DataError
from . import image_ops

VERSION = 1
_MOST_LEVEL = 10_000  # RandAugment's scale ends at 10
_BINS = 30  # TrivialAugment's magnitudes are 0/30 to 30/30


class Draws:
    """Whole numbers from a stream that is sha-256 of a seed and a counter: no library's distribution can change it."""

    def __init__(self, seed: bytes) -> None:
        self._words = self._stream(seed)

    @staticmethod
    def _stream(seed: bytes) -> Iterator[int]:
        counter = 0
        while True:
            block = hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
            yield from (int.from_bytes(block[start : start + 8], "big") for start in range(0, 32, 8))
            counter += 1

    def between(self, low: int, high: int) -> int:
        """Any of low, …, high with the same probability (to one part in 2^64 for each)."""
        return low + (next(self._words) * (high - low + 1) >> 64)

    def chance(self, thousandths: int) -> bool:
        """True so many times in a thousand."""
        return self.between(1, 1000) <= thousandths

    def shuffled(self, count: int) -> list[int]:
        """0, …, count - 1 in any order."""
        left = list(range(count))
        return [left.pop(self.between(0, len(left) - 1)) for _ in range(count)]


@dataclass(frozen=True)
class Kind:
    """An operation on offer.

    default: its strength when none is given, as text. bounds: least and greatest of each number of the strength, in
    thousandths. apply(pixels, draws, *strength) gives the new picture.
    """

    name: str
    meaning: str
    default: str
    bounds: tuple[tuple[int, int], ...]
    apply: Callable[..., Any]
    pillow: bool = False

    def strength(self, text: str) -> tuple[int, ...]:
        """The numbers of `text` in thousandths; raises `DataError`."""
        parts = text.split("x") if len(self.bounds) > 1 else [text]
        numbers = tuple(round(1000 * float(part)) for part in parts if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", part))
        inside = len(numbers) == len(self.bounds) == len(parts) and all(
            low <= number <= high for number, (low, high) in zip(numbers, self.bounds, strict=True)
        )
        if not self.bounds or not inside or (len(numbers) > 1 and numbers[0] % 1000):
            expected = f"{self.meaning}, as in {self.name}={self.default}" if self.bounds else "no strength; leave it out"
            raise DataError(f"augmentation {self.name}: found {text!r}, expected {expected}")
        return numbers


def operations_of(text: str, kinds: Mapping[str, Kind]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The operations that `text` names and their strengths in thousandths, in the order of `kinds`; raises `DataError`."""
    asked: dict[str, tuple[int, ...]] = {}
    for part in text.lower().split(","):
        name, equals, strength = (piece.strip() for piece in part.partition("="))
        if name not in kinds:
            closest = difflib.get_close_matches(name, kinds, n=1, cutoff=0.0)[0]
            hint = f"the closest is {closest}" if name else f"leave it out or write {closest}"
            raise DataError(f"augmentation {part.strip()!r}: expected one of {', '.join(kinds)}; {hint}")
        if name in asked:
            raise DataError(f"augmentation {text!r}: expected each operation once, found {name} twice; leave one out")
        kind = kinds[name]
        asked[name] = kind.strength(strength if equals else kind.default) if equals or kind.bounds else ()
    return tuple((name, asked[name]) for name in kinds if name in asked)


def written(operations: Sequence[tuple[str, tuple[int, ...]]]) -> list[str]:
    """Each operation as `operations_of` takes it, every strength written out."""
    return [
        name + ("=" if strength else "") + "x".join(f"{number / 1000:g}" for number in strength)
        for name, strength in operations
    ]


def policy_of(views: int, text: str | None) -> Policy | None:
    """How so many views are made, None without any; raises `DataError` for the one without the other."""
    if (views > 0) != (text is not None):
        raise DataError("--augment: give both --views and --augment, or neither")
    return None if text is None else Policy.parse(text)


@dataclass(frozen=True)
class Policy:
    """What is done to each view: operations with their strengths in thousandths, in the order in which they are done."""

    operations: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy written `flip,crop=0.5,color,randaugment=2x9`, in any order; raises `DataError`."""
        return cls(operations_of(text, KINDS))

    def __str__(self) -> str:
        """The policy as `parse` takes it, every strength written out."""
        return ",".join(written(self.operations))

    @property
    def version(self) -> str:
        """Everything but the image and the number that decides a view: `1: flip=0.5, crop=0.25; Pillow 13`."""
        pillow = (features.version("pil") or "?").split(".")[0]
        resized = any(KINDS[name].pillow for name, _ in self.operations)
        return f"{VERSION}: {', '.join(written(self.operations))}" + (f"; Pillow {pillow}" if resized else "")

    def view(self, pixels: np.ndarray, digest: bytes, number: int) -> np.ndarray:
        """View `number` (1, 2, …; 0 is the plain image) of RGB uint8 (height, width, 3) `pixels`, in the same form.

        digest: sha-256 of the image file's bytes. The result shares no memory with `pixels`.
        """
        if number < 1:
            raise ValueError(f"view {number}: expected 1 or more, since view 0 is the plain image")
        draws = Draws(hashlib.sha256(b"\0".join((self.version.encode(), digest, b"%d" % number))).digest())
        result = pixels
        for name, strength in self.operations:
            result = KINDS[name].apply(result, draws, *strength)
        return np.array(result, dtype=np.uint8, order="C")


def _maybe(effect: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda pixels, draws, probability: effect(pixels) if draws.chance(probability) else pixels


def _crop(pixels: np.ndarray, draws: Draws, least: int) -> np.ndarray:
    return image_ops.crop(pixels, *rectangle(pixels.shape[1], pixels.shape[0], draws, least))


def rectangle(width: int, height: int, draws: Draws, least: int) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a crop as Inception was trained with (arXiv 1409.4842 §6).

    Its area is `least` thousandths of the picture's or more, and its aspect ratio between 3/4 and 4/3, evenly on a
    logarithmic scale. As torchvision's and timm's RandomResizedCrop: of ten attempts the first that fits, else the
    largest in the middle.
    """
    for _ in range(10):
        area = width * height * draws.between(least, 1000)
        ratio = round(2**16 * (4 / 3) ** (draws.between(-1000, 1000) / 1000))
        wide = _root(area * ratio // (1000 * 2**16))
        high = _root(area * 2**16 // (1000 * ratio))
        if 0 < wide <= width and 0 < high <= height:
            return draws.between(0, width - wide), draws.between(0, height - high), wide, high
    wide, high = min(width, max(1, height * 4 // 3)), min(height, max(1, width * 4 // 3))
    return (width - wide) // 2, (height - high) // 2, wide, high


def _root(square: int) -> int:
    """The whole number nearest to the root."""
    return (math.isqrt(4 * square) + 1) // 2


def _turned(pixels: np.ndarray, draws: Draws, most: int) -> np.ndarray:
    return image_ops.rotate(pixels, draws.between(-most, most))


def _blurred(pixels: np.ndarray, draws: Draws, most: int) -> np.ndarray:
    return image_ops.blur(pixels, draws.between(100, most))


def _color(pixels: np.ndarray, draws: Draws, most: int) -> np.ndarray:
    """Brightness, contrast, saturation and hue in any order, as torchvision's ColorJitter.

    The hue moves a quarter as far as the others: 0.4 is the (0.4, 0.4, 0.4, 0.1) of MoCo v2 (arXiv 2003.04297), and the
    proportion that of SimCLR (arXiv 2002.05709).
    """
    factors = (image_ops.brightness, image_ops.contrast, image_ops.saturation)
    for which in draws.shuffled(4):
        if which == 3:
            pixels = image_ops.hue(pixels, draws.between(-most // 4, most // 4))
        else:
            pixels = factors[which](pixels, draws.between(1000 - most, 1000 + most))
    return pixels


def _cutout(pixels: np.ndarray, draws: Draws, share: int) -> np.ndarray:
    """A square of fixed side, its centre anywhere in the picture, so that parts may lie outside (arXiv 1708.04552)."""
    height, width = pixels.shape[:2]
    centre = draws.between(0, width - 1), draws.between(0, height - 1)
    return image_ops.erase(pixels, centre, max(1, (share * min(height, width) + 500) // 1000))


def _randaugment(pixels: np.ndarray, draws: Draws, count: int, level: int) -> np.ndarray:
    """`count` of fourteen operations, each at the same level of its range, with a random sign (arXiv 1909.13719).

    The level goes from 0 to 10 as in the paper and in timm; torchvision divides the same ranges into 30 steps.
    """
    for _ in range(count // 1000):
        ranges = Ranges(300, pixels.shape[1] * 453, pixels.shape[0] * 453, 30_000, 900, 4)
        pixels = _one_of_fourteen(pixels, draws, level, _MOST_LEVEL, ranges)
    return pixels


def _trivialaugment(pixels: np.ndarray, draws: Draws) -> np.ndarray:
    """One of the fourteen at any level of wider ranges: TrivialAugment, wide (arXiv 2103.10158)."""
    ranges = Ranges(990, 32_000, 32_000, 135_000, 990, 6)
    return _one_of_fourteen(pixels, draws, draws.between(0, _BINS), _BINS, ranges)


@dataclass(frozen=True)
class Ranges:
    """The greatest magnitudes: shear, shift (in thousandths of a pixel), angle and enhancement, and the bits taken away."""

    shear: int
    right: int
    down: int
    angle: int
    factor: int
    bits: int


def _one_of_fourteen(pixels: np.ndarray, draws: Draws, level: int, top: int, ranges: Ranges) -> np.ndarray:
    def signed(most: int) -> int:
        magnitude = (2 * most * level + top) // (2 * top)
        return magnitude if draws.chance(500) else -magnitude

    def factor() -> int:
        return 1000 + signed(ranges.factor)

    operations: tuple[Callable[[], np.ndarray], ...] = (
        lambda: pixels,
        lambda: image_ops.autocontrast(pixels),
        lambda: image_ops.equalize(pixels),
        lambda: image_ops.rotate(pixels, signed(ranges.angle)),
        lambda: image_ops.solarize(pixels, 256 - 256 * level // top),
        lambda: image_ops.saturation(pixels, factor()),
        lambda: image_ops.posterize(pixels, 8 - (2 * ranges.bits * level + top) // (2 * top)),
        lambda: image_ops.contrast(pixels, factor()),
        lambda: image_ops.brightness(pixels, factor()),
        lambda: image_ops.sharpness(pixels, factor()),
        lambda: image_ops.shear_x(pixels, signed(ranges.shear)),
        lambda: image_ops.shear_y(pixels, signed(ranges.shear)),
        lambda: image_ops.translate(pixels, (signed(ranges.right) + 500) // 1000, 0),
        lambda: image_ops.translate(pixels, 0, (signed(ranges.down) + 500) // 1000),
    )
    return operations[draws.between(0, len(operations) - 1)]()


_SHARE = ((1, 1000),)
# In the order in which they are done. A view's key holds no default that is not written out, so defaults may change.
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "flip", "the probability of a left-right mirror image, above 0 up to 1", "0.5", _SHARE, _maybe(image_ops.mirror)
        ),
        Kind("vflip", "the probability of being upside down, above 0 up to 1", "0.5", _SHARE, _maybe(image_ops.upside_down)),
        Kind("crop", "the least share of the area that is kept, 0.01 to 1", "0.25", ((10, 1000),), _crop, pillow=True),
        Kind("rotate", "the largest angle in degrees, above 0 up to 180", "15", ((1, 180_000),), _turned),
        Kind(
            "randaugment", "COUNTxLEVEL, 1 to 14 operations at 0 to 10", "2x9", ((1000, 14_000), (0, 10_000)), _randaugment
        ),
        Kind("trivialaugment", "", "", (), _trivialaugment),
        Kind("color", "the largest change of brightness, contrast and saturation, above 0 up to 1", "0.4", _SHARE, _color),
        Kind("gray", "the probability of no colour, above 0 up to 1", "0.2", _SHARE, _maybe(image_ops.gray)),
        Kind("blur", "the largest standard deviation in pixels, 0.1 to 10", "2", ((100, 10_000),), _blurred),
        Kind("cutout", "the side of the square as a share of the shorter side, above 0 up to 1", "0.5", _SHARE, _cutout),
    )
}
