"""Views: deterministic augmentations of an image, the same on every machine.

A view depends only on the policy, the digest of the image's bytes and the view's number: not on the order of images, on
threads, or on the versions of NumPy and Python. A change to a pixel of any view must change `VERSION`, which is part of
the key of every feature.
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
    """Random integers from SHA-256 of a seed and a counter, so that no library version can change them."""

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
        """Return a uniform integer from `low` to `high`, both included (bias at most 2^-64)."""
        return low + (next(self._words) * (high - low + 1) >> 64)

    def bernoulli(self, thousandths: int) -> bool:
        """Return True with a probability of `thousandths` / 1000."""
        return self.randint(1, 1000) <= thousandths

    def permutation(self, count: int) -> list[int]:
        """Return a random permutation of 0, …, count - 1."""
        remaining = list(range(count))
        return [remaining.pop(self.randint(0, len(remaining) - 1)) for _ in range(count)]


@dataclass(frozen=True)
class AugmentOp:
    """An augmentation operation.

    Parameters
    ----------
    name : str
        Its name in a policy.
    meaning : str
        What its strength means, for error messages.
    default : str
        The strength if none is given, as text.
    bounds : tuple of (int, int)
        Minimum and maximum of each number of the strength, in thousandths.
    apply : callable
        ``apply(pixels, rng, *strength)`` returns the augmented image.
    uses_pillow : bool
        Whether the result depends on Pillow's version.
    """

    name: str
    meaning: str
    default: str
    bounds: tuple[tuple[int, int], ...]
    apply: Callable[..., Any]
    uses_pillow: bool = False

    def parse_strength(self, text: str) -> tuple[int, ...]:
        """Return the numbers of `text` in thousandths; raises `DataError`."""
        parts = text.split("x") if len(self.bounds) > 1 else [text]
        numbers = tuple(round(1000 * float(part)) for part in parts if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", part))
        is_within_bounds = len(numbers) == len(self.bounds) == len(parts) and all(
            low <= number <= high for number, (low, high) in zip(numbers, self.bounds, strict=True)
        )
        if not self.bounds or not is_within_bounds or (len(numbers) > 1 and numbers[0] % 1000):
            if not self.bounds:
                raise DataError(f"augmentation {self.name}: takes no strength, but {text!r} is given; leave it out")
            raise DataError(
                f"augmentation {self.name}: invalid strength {text!r}; give {self.meaning}, as in {self.name}={self.default}"
            )
        return numbers


def parse_operations(text: str, available_ops: Mapping[str, AugmentOp]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the operations named in `text`, in the order of `available_ops`, with their strengths in thousandths.

    Raises `DataError`.
    """
    strengths: dict[str, tuple[int, ...]] = {}
    for part in text.lower().split(","):
        name, equals, strength = (piece.strip() for piece in part.partition("="))
        if name not in available_ops:
            closest_name = difflib.get_close_matches(name, available_ops, n=1, cutoff=0.0)[0]
            fault = "unknown operation; use" if name else "the operation has no name; leave it out or use"
            raise DataError(
                f"augmentation {part.strip()!r}: {fault} one of {', '.join(available_ops)}; closest: {closest_name}"
            )
        if name in strengths:
            raise DataError(f"augmentation {text!r}: {name} is given twice; give each operation once")
        operation = available_ops[name]
        strengths[name] = (
            operation.parse_strength(strength if equals else operation.default) if equals or operation.bounds else ()
        )
    return tuple((name, strengths[name]) for name in available_ops if name in strengths)


def format_operations(operations: Sequence[tuple[str, tuple[int, ...]]]) -> list[str]:
    """Return each operation as `parse_operations` takes it, with every strength written out."""
    return [
        name + ("=" if strength else "") + "x".join(f"{number / 1000:g}" for number in strength)
        for name, strength in operations
    ]


def parse_policy(views: int, policy: Policy | str | None) -> Policy | None:
    """Return the policy of `views` views, None without any; raises `DataError` if only one of the two is given."""
    if (views > 0) != (policy is not None):
        fault = "--augment is given without --views" if policy is not None else "--views is given without --augment"
        raise DataError(f"{fault}; give both --views and --augment, or neither")
    return Policy.parse(policy) if isinstance(policy, str) else policy


@dataclass(frozen=True)
class Policy:
    """Augmentation policy: operations with their strengths in thousandths, in the order in which they are applied."""

    operations: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Return the policy written `flip,crop=0.5,color,randaugment=2x9`, in any order; raises `DataError`."""
        return cls(parse_operations(text, OPERATIONS))

    def __str__(self) -> str:
        """Return the policy as `parse` takes it, with every strength written out."""
        return ",".join(format_operations(self.operations))

    @property
    def version(self) -> str:
        """Everything that determines a view but the image and the number: `1: flip=0.5, crop=0.25; Pillow 13`."""
        pillow = (features.version("pil") or "?").split(".")[0]
        uses_pillow = any(OPERATIONS[name].uses_pillow for name, _ in self.operations)
        return f"{VERSION}: {', '.join(format_operations(self.operations))}" + (f"; Pillow {pillow}" if uses_pillow else "")

    def make_view(self, pixels: np.ndarray, digest: bytes, number: int) -> np.ndarray:
        """Return an augmented view of an image.

        Parameters
        ----------
        pixels : np.ndarray
            RGB uint8 (height, width, 3).
        digest : bytes
            SHA-256 of the image file's bytes.
        number : int
            View number: 1, 2, …; 0 is the plain image.

        Returns
        -------
        np.ndarray
            RGB uint8 (height, width, 3); shares no memory with `pixels`.
        """
        if number < 1:
            raise ValueError(f"view {number} is not augmented: view 0 is the plain image; give 1 or more")
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
    """Return (left, top, width, height) of a random crop as used to train Inception (arXiv 1409.4842 §6).

    Its area is at least `min_area` thousandths of the image's, its aspect ratio log-uniform between 3/4 and 4/3. As in
    torchvision's and timm's RandomResizedCrop: the first of ten attempts that fits, else the largest center crop.
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
    """Return the integer nearest to the square root."""
    return (math.isqrt(4 * square) + 1) // 2


def _rotate(pixels: np.ndarray, rng: DeterministicRNG, max_angle: int) -> np.ndarray:
    return image_ops.rotate(pixels, rng.randint(-max_angle, max_angle))


def _blur(pixels: np.ndarray, rng: DeterministicRNG, max_sigma: int) -> np.ndarray:
    return image_ops.blur(pixels, rng.randint(100, max_sigma))


def _jitter_color(pixels: np.ndarray, rng: DeterministicRNG, max_change: int) -> np.ndarray:
    """Jitter brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter.

    The hue changes by a quarter of the others: 0.4 is the (0.4, 0.4, 0.4, 0.1) of MoCo v2 (arXiv 2003.04297), and the
    ratio is that of SimCLR (arXiv 2002.05709).
    """
    adjustments = (image_ops.adjust_brightness, image_ops.adjust_contrast, image_ops.adjust_saturation)
    for index in rng.permutation(4):
        if index == 3:
            pixels = image_ops.adjust_hue(pixels, rng.randint(-max_change // 4, max_change // 4))
        else:
            pixels = adjustments[index](pixels, rng.randint(1000 - max_change, 1000 + max_change))
    return pixels


def _cutout(pixels: np.ndarray, rng: DeterministicRNG, side_fraction: int) -> np.ndarray:
    """Erase a square of fixed side, centered anywhere in the image, so that parts may lie outside (arXiv 1708.04552)."""
    height, width = pixels.shape[:2]
    center = rng.randint(0, width - 1), rng.randint(0, height - 1)
    return image_ops.erase(pixels, center, max(1, (side_fraction * min(height, width) + 500) // 1000))


def _randaugment(pixels: np.ndarray, rng: DeterministicRNG, count: int, level: int) -> np.ndarray:
    """Apply `count` of fourteen operations, each at the same level of its range, with a random sign (arXiv 1909.13719).

    The level is from 0 to 10 as in the paper and in timm; torchvision divides the same ranges into 30 steps.
    """
    for _ in range(count // 1000):
        max_magnitudes = MaxMagnitudes(300, pixels.shape[1] * 453, pixels.shape[0] * 453, 30_000, 900, 4)
        pixels = _apply_random_op(pixels, rng, level, _MAX_LEVEL, max_magnitudes)
    return pixels


def _trivialaugment(pixels: np.ndarray, rng: DeterministicRNG) -> np.ndarray:
    """Apply one of the fourteen operations at a random level of wider ranges: TrivialAugment Wide (arXiv 2103.10158)."""
    max_magnitudes = MaxMagnitudes(990, 32_000, 32_000, 135_000, 990, 6)
    return _apply_random_op(pixels, rng, rng.randint(0, _N_LEVELS), _N_LEVELS, max_magnitudes)


@dataclass(frozen=True)
class MaxMagnitudes:
    """Maximum magnitudes: shear, translation (thousandths of a pixel), angle and enhancement, and the bits removed."""

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
# In the order in which they are applied. A view's key holds no default that is not written out, so defaults may change.
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
