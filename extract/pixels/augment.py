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
_MAX_LEVEL = 10_000  # RandAugment's scale ends at 10
_N_LEVELS = 30  # TrivialAugment's magnitudes are 0/30 to 30/30


class DeterministicRNG:
    """Whole numbers from a stream that is sha-256 of a seed and a counter: no library's distribution can change it."""

    def __init__(self, seed: bytes) -> None:
        self._words = self._generate_words(seed)

    @staticmethod
    def _generate_words(seed: bytes) -> Iterator[int]:
        counter = 0
        while True:
            block = hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
            yield from (int.from_bytes(block[start : start + 8], "big") for start in range(0, 32, 8))
            counter += 1

    def randint(self, low: int, high: int) -> int:
        """Any of low, …, high with the same probability (to one part in 2^64 for each)."""
        return low + (next(self._words) * (high - low + 1) >> 64)

    def bernoulli(self, thousandths: int) -> bool:
        """True so many times in a thousand."""
        return self.randint(1, 1000) <= thousandths

    def permutation(self, count: int) -> list[int]:
        """0, …, count - 1 in any order."""
        remaining = list(range(count))
        return [remaining.pop(self.randint(0, len(remaining) - 1)) for _ in range(count)]


@dataclass(frozen=True)
class AugmentOp:
    """An operation on offer.

    default: its strength when none is given, as text. bounds: least and greatest of each number of the strength, in
    thousandths. apply(pixels, draws, *strength) gives the new picture.
    """

    name: str
    meaning: str
    default: str
    bounds: tuple[tuple[int, int], ...]
    apply: Callable[..., Any]
    uses_pillow: bool = False

    def parse_strength(self, text: str) -> tuple[int, ...]:
        """The numbers of `text` in thousandths; raises `DataError`."""
        parts = text.split("x") if len(self.bounds) > 1 else [text]
        numbers = tuple(round(1000 * float(part)) for part in parts if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", part))
        is_within_bounds = len(numbers) == len(self.bounds) == len(parts) and all(
            low <= number <= high for number, (low, high) in zip(numbers, self.bounds, strict=True)
        )
        if not self.bounds or not is_within_bounds or (len(numbers) > 1 and numbers[0] % 1000):
            expected = f"{self.meaning}, as in {self.name}={self.default}" if self.bounds else "no strength; leave it out"
            raise DataError(f"augmentation {self.name}: found {text!r}, expected {expected}")
        return numbers


def parse_operations(text: str, available_ops: Mapping[str, AugmentOp]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The operations that `text` names, in the order of `available_ops`, and their strengths in thousandths.

    Raises `DataError`.
    """
    strengths: dict[str, tuple[int, ...]] = {}
    for part in text.lower().split(","):
        name, equals, strength = (piece.strip() for piece in part.partition("="))
        if name not in available_ops:
            closest_name = difflib.get_close_matches(name, available_ops, n=1, cutoff=0.0)[0]
            hint = f"the closest is {closest_name}" if name else f"leave it out or write {closest_name}"
            raise DataError(f"augmentation {part.strip()!r}: expected one of {', '.join(available_ops)}; {hint}")
        if name in strengths:
            raise DataError(f"augmentation {text!r}: expected each operation once, found {name} twice; leave one out")
        operation = available_ops[name]
        strengths[name] = (
            operation.parse_strength(strength if equals else operation.default) if equals or operation.bounds else ()
        )
    return tuple((name, strengths[name]) for name in available_ops if name in strengths)


def format_operations(operations: Sequence[tuple[str, tuple[int, ...]]]) -> list[str]:
    """Each operation as `parse_operations` takes it, every strength written out."""
    return [
        name + ("=" if strength else "") + "x".join(f"{number / 1000:g}" for number in strength)
        for name, strength in operations
    ]


def parse_policy(views: int, policy: Policy | str | None) -> Policy | None:
    """How so many views are made, None without any; raises `DataError` for the one without the other."""
    if (views > 0) != (policy is not None):
        raise DataError("--augment: give both --views and --augment, or neither")
    return Policy.parse(policy) if isinstance(policy, str) else policy


@dataclass(frozen=True)
class Policy:
    """What is done to each view: operations with their strengths in thousandths, in the order in which they are done."""

    operations: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy written `flip,crop=0.5,color,randaugment=2x9`, in any order; raises `DataError`."""
        return cls(parse_operations(text, OPERATIONS))

    def __str__(self) -> str:
        """The policy as `parse` takes it, every strength written out."""
        return ",".join(format_operations(self.operations))

    @property
    def version(self) -> str:
        """Everything but the image and the number that decides a view: `1: flip=0.5, crop=0.25; Pillow 13`."""
        pillow = (features.version("pil") or "?").split(".")[0]
        uses_pillow = any(OPERATIONS[name].uses_pillow for name, _ in self.operations)
        return f"{VERSION}: {', '.join(format_operations(self.operations))}" + (f"; Pillow {pillow}" if uses_pillow else "")

    def make_view(self, pixels: np.ndarray, digest: bytes, number: int) -> np.ndarray:
        """View `number` (1, 2, …; 0 is the plain image) of RGB uint8 (height, width, 3) `pixels`, in the same form.

        digest: sha-256 of the image file's bytes. The result shares no memory with `pixels`.
        """
        if number < 1:
            raise ValueError(f"view {number}: expected 1 or more, since view 0 is the plain image")
        rng = DeterministicRNG(hashlib.sha256(b"\0".join((self.version.encode(), digest, b"%d" % number))).digest())
        result = pixels
        for name, strength in self.operations:
            result = OPERATIONS[name].apply(result, rng, *strength)
        return np.array(result, dtype=np.uint8, order="C")


def _apply_with_probability(operation: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda pixels, rng, probability: operation(pixels) if rng.bernoulli(probability) else pixels


def _crop(pixels: np.ndarray, rng: DeterministicRNG, min_area: int) -> np.ndarray:
    return image_ops.crop(pixels, *sample_crop_box(pixels.shape[1], pixels.shape[0], rng, min_area))


def sample_crop_box(width: int, height: int, rng: DeterministicRNG, min_area: int) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a crop as Inception was trained with (arXiv 1409.4842 §6).

    Its area is `min_area` thousandths of the picture's or more, and its aspect ratio between 3/4 and 4/3, evenly on a
    logarithmic scale. As torchvision's and timm's RandomResizedCrop: of ten attempts the first that fits, else the
    largest in the middle.
    """
    for _ in range(10):
        area = width * height * rng.randint(min_area, 1000)
        aspect_ratio = round(2**16 * (4 / 3) ** (rng.randint(-1000, 1000) / 1000))
        crop_width = _round_sqrt(area * aspect_ratio // (1000 * 2**16))
        crop_height = _round_sqrt(area * 2**16 // (1000 * aspect_ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return rng.randint(0, width - crop_width), rng.randint(0, height - crop_height), crop_width, crop_height
    crop_width, crop_height = min(width, max(1, height * 4 // 3)), min(height, max(1, width * 4 // 3))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def _round_sqrt(square: int) -> int:
    """The whole number nearest to the root."""
    return (math.isqrt(4 * square) + 1) // 2


def _rotate(pixels: np.ndarray, rng: DeterministicRNG, max_angle: int) -> np.ndarray:
    return image_ops.rotate(pixels, rng.randint(-max_angle, max_angle))


def _blur(pixels: np.ndarray, rng: DeterministicRNG, max_sigma: int) -> np.ndarray:
    return image_ops.blur(pixels, rng.randint(100, max_sigma))


def _jitter_color(pixels: np.ndarray, rng: DeterministicRNG, max_change: int) -> np.ndarray:
    """Brightness, contrast, saturation and hue in any order, as torchvision's ColorJitter.

    The hue moves a quarter as far as the others: 0.4 is the (0.4, 0.4, 0.4, 0.1) of MoCo v2 (arXiv 2003.04297), and the
    proportion that of SimCLR (arXiv 2002.05709).
    """
    adjustments = (image_ops.adjust_brightness, image_ops.adjust_contrast, image_ops.adjust_saturation)
    for index in rng.permutation(4):
        if index == 3:
            pixels = image_ops.adjust_hue(pixels, rng.randint(-max_change // 4, max_change // 4))
        else:
            pixels = adjustments[index](pixels, rng.randint(1000 - max_change, 1000 + max_change))
    return pixels


def _cutout(pixels: np.ndarray, rng: DeterministicRNG, side_fraction: int) -> np.ndarray:
    """A square of fixed side, its centre anywhere in the picture, so that parts may lie outside (arXiv 1708.04552)."""
    height, width = pixels.shape[:2]
    center = rng.randint(0, width - 1), rng.randint(0, height - 1)
    return image_ops.erase(pixels, center, max(1, (side_fraction * min(height, width) + 500) // 1000))


def _randaugment(pixels: np.ndarray, rng: DeterministicRNG, count: int, level: int) -> np.ndarray:
    """`count` of fourteen operations, each at the same level of its range, with a random sign (arXiv 1909.13719).

    The level goes from 0 to 10 as in the paper and in timm; torchvision divides the same ranges into 30 steps.
    """
    for _ in range(count // 1000):
        max_magnitudes = MaxMagnitudes(300, pixels.shape[1] * 453, pixels.shape[0] * 453, 30_000, 900, 4)
        pixels = _apply_random_op(pixels, rng, level, _MAX_LEVEL, max_magnitudes)
    return pixels


def _trivialaugment(pixels: np.ndarray, rng: DeterministicRNG) -> np.ndarray:
    """One of the fourteen at any level of wider ranges: TrivialAugment, wide (arXiv 2103.10158)."""
    max_magnitudes = MaxMagnitudes(990, 32_000, 32_000, 135_000, 990, 6)
    return _apply_random_op(pixels, rng, rng.randint(0, _N_LEVELS), _N_LEVELS, max_magnitudes)


@dataclass(frozen=True)
class MaxMagnitudes:
    """The greatest magnitudes: shear, shift (in thousandths of a pixel), angle and enhancement, and the bits taken away."""

    shear: int
    translate_x: int
    translate_y: int
    angle: int
    enhancement: int
    bits: int


def _apply_random_op(
    pixels: np.ndarray, rng: DeterministicRNG, level: int, max_level: int, max_magnitudes: MaxMagnitudes
) -> np.ndarray:
    def draw_signed(max_magnitude: int) -> int:
        magnitude = (2 * max_magnitude * level + max_level) // (2 * max_level)
        return magnitude if rng.bernoulli(500) else -magnitude

    def draw_factor() -> int:
        return 1000 + draw_signed(max_magnitudes.enhancement)

    operations: tuple[Callable[[], np.ndarray], ...] = (
        lambda: pixels,
        lambda: image_ops.autocontrast(pixels),
        lambda: image_ops.equalize(pixels),
        lambda: image_ops.rotate(pixels, draw_signed(max_magnitudes.angle)),
        lambda: image_ops.solarize(pixels, 256 - 256 * level // max_level),
        lambda: image_ops.adjust_saturation(pixels, draw_factor()),
        lambda: image_ops.posterize(pixels, 8 - (2 * max_magnitudes.bits * level + max_level) // (2 * max_level)),
        lambda: image_ops.adjust_contrast(pixels, draw_factor()),
        lambda: image_ops.adjust_brightness(pixels, draw_factor()),
        lambda: image_ops.adjust_sharpness(pixels, draw_factor()),
        lambda: image_ops.shear_x(pixels, draw_signed(max_magnitudes.shear)),
        lambda: image_ops.shear_y(pixels, draw_signed(max_magnitudes.shear)),
        lambda: image_ops.translate(pixels, (draw_signed(max_magnitudes.translate_x) + 500) // 1000, 0),
        lambda: image_ops.translate(pixels, 0, (draw_signed(max_magnitudes.translate_y) + 500) // 1000),
    )
    return operations[rng.randint(0, len(operations) - 1)]()


_FRACTION_BOUNDS = ((1, 1000),)
# In the order in which they are done. A view's key holds no default that is not written out, so defaults may change.
OPERATIONS = {
    kind.name: kind
    for kind in (
        AugmentOp(
            "flip",
            "the probability of a left-right mirror image, above 0 up to 1",
            "0.5",
            _FRACTION_BOUNDS,
            _apply_with_probability(image_ops.mirror),
        ),
        AugmentOp(
            "vflip",
            "the probability of being upside down, above 0 up to 1",
            "0.5",
            _FRACTION_BOUNDS,
            _apply_with_probability(image_ops.flip),
        ),
        AugmentOp(
            "crop", "the least share of the area that is kept, 0.01 to 1", "0.25", ((10, 1000),), _crop, uses_pillow=True
        ),
        AugmentOp("rotate", "the largest angle in degrees, above 0 up to 180", "15", ((1, 180_000),), _rotate),
        AugmentOp(
            "randaugment", "COUNTxLEVEL, 1 to 14 operations at 0 to 10", "2x9", ((1000, 14_000), (0, 10_000)), _randaugment
        ),
        AugmentOp("trivialaugment", "", "", (), _trivialaugment),
        AugmentOp(
            "color",
            "the largest change of brightness, contrast and saturation, above 0 up to 1",
            "0.4",
            _FRACTION_BOUNDS,
            _jitter_color,
        ),
        AugmentOp(
            "gray",
            "the probability of no colour, above 0 up to 1",
            "0.2",
            _FRACTION_BOUNDS,
            _apply_with_probability(image_ops.to_grayscale),
        ),
        AugmentOp("blur", "the largest standard deviation in pixels, 0.1 to 10", "2", ((100, 10_000),), _blur),
        AugmentOp(
            "cutout",
            "the side of the square as a share of the shorter side, above 0 up to 1",
            "0.5",
            _FRACTION_BOUNDS,
            _cutout,
        ),
    )
}
