"""Image operations in integer arithmetic, so that every machine gets the same bytes.

Images are RGB uint8 (height, width, 3); nothing is changed in place. Fractions and factors are in thousandths, angles in
thousandths of a degree. Sines and Gaussians are rounded to integers, with no value close to a tie. Pillow's own `resize` and
`equalize`, which compute in integers too, are used; its other operations compute in floating point, and which samples they
round up depends on the processor. Names and meanings follow Pillow's ImageOps and ImageEnhance, by which the published
augmentations are defined.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageOps

FILL = (124, 116, 104)  # the mean colour of ImageNet, which a frozen network responds to least
_ONE = 1 << 16
_LANE_MASK = np.uint64(0x00FF00FF00FF)
_LANE_ROUNDING = np.uint64(0x008000800080)
_HUE_STEPS = 1 << 12  # steps in a sixth of the colour circle
_RECIPROCAL_CHROMA = np.array([0, *((1 << 22) // chroma for chroma in range(1, 256))], np.int32)


def mirror(pixels: np.ndarray) -> np.ndarray:
    """Flip the image left to right."""
    return pixels[:, ::-1]


def flip(pixels: np.ndarray) -> np.ndarray:
    """Flip the image top to bottom."""
    return pixels[::-1]


def crop(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Crop a rectangle and resize it to the image's size by antialiased bilinear interpolation."""
    region = Image.fromarray(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
    return np.asarray(region.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BILINEAR))


def rotate(pixels: np.ndarray, angle: int) -> np.ndarray:
    """Rotate counter-clockwise about the center by `angle` thousandths of a degree."""
    cosine, sine = (round(_ONE * function(math.radians(angle / 1000))) for function in (math.cos, math.sin))
    return _transform_affine(pixels, cosine, -sine, sine, cosine)


def shear_x(pixels: np.ndarray, slope: int) -> np.ndarray:
    """Shift each row by `slope` thousandths of its distance from the middle row."""
    return _transform_affine(pixels, _ONE, slope * _ONE // 1000, 0, _ONE)


def shear_y(pixels: np.ndarray, slope: int) -> np.ndarray:
    """Shift each column by `slope` thousandths of its distance from the middle column."""
    return _transform_affine(pixels, _ONE, 0, slope * _ONE // 1000, _ONE)


def translate(pixels: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """Shift by whole pixels; uncovered pixels are `FILL`."""
    height, width = pixels.shape[:2]
    result = np.empty_like(pixels)
    result[:] = FILL
    dx, dy = max(-width, min(width, dx)), max(-height, min(height, dy))
    visible = pixels[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    result[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = visible
    return result


def _transform_affine(pixels: np.ndarray, xx: int, xy: int, yx: int, yy: int) -> np.ndarray:
    """Sample bilinearly about the center: source x = xx·x + xy·y, source y = yx·x + yy·y, in 65536ths; outside is `FILL`.

    Coordinates are doubled, so that the center of an even number of pixels is an integer; the three channels of a pixel
    are 16-bit lanes of one integer, so that each of the four neighbours is one lookup and each blend one product.
    """
    height, width = pixels.shape[:2]
    padded = np.empty((height + 2, width + 2, 4), np.uint8)
    padded[:] = (*FILL, 0)
    padded[1:-1, 1:-1, :3] = pixels
    words = padded.view("<u4").ravel().astype(np.uint64)
    packed = (
        (words & np.uint64(0xFF))
        | (words & np.uint64(0xFF00)) << np.uint64(8)
        | (words & np.uint64(0xFF0000)) << np.uint64(16)
    )
    x = np.arange(1 - width, width, 2, dtype=np.int64)
    y = np.arange(1 - height, height, 2, dtype=np.int64)[:, None]
    # Of the padded image, in 131072ths of a pixel; the padding is fill.
    x_source = np.clip(xx * x + (xy * y + (width + 1) * _ONE), 0, (width + 1) * 2 * _ONE - 1)
    y_source = np.clip(yx * x + (yy * y + (height + 1) * _ONE), 0, (height + 1) * 2 * _ONE - 1)
    corner = (y_source >> 17) * (width + 2) + (x_source >> 17)
    x_weight, y_weight = ((coordinates >> 9 & 255).astype(np.uint64) for coordinates in (x_source, y_source))
    upper = _interpolate(packed.take(corner), packed[1:].take(corner), x_weight)
    corner += width + 2
    lower = _interpolate(packed.take(corner), packed[1:].take(corner), x_weight)
    lanes = np.ascontiguousarray(_interpolate(upper, lower, y_weight), "<u8").view(np.uint8)
    return lanes.reshape(height, width, 8)[..., 0:6:2]


def _interpolate(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the weighted mean of each lane, with `weight` 256ths of `second`."""
    blended = first * (np.uint64(256) - weight) + second * weight + _LANE_ROUNDING
    lanes: np.ndarray = blended >> np.uint64(8) & _LANE_MASK
    return lanes


def compute_luma(pixels: np.ndarray) -> np.ndarray:
    """Return the luma (height, width) int32, 0..255, with the weights of ITU-R 601-2."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    lightness: np.ndarray = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return lightness


def to_grayscale(pixels: np.ndarray) -> np.ndarray:
    """Return the luma in all three channels."""
    return np.repeat(compute_luma(pixels).astype(np.uint8)[..., None], 3, axis=2)


def adjust_brightness(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Multiply every sample by `factor` thousandths."""
    return np.take(_blend(np.arange(256), 0, factor), pixels)


def adjust_contrast(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Blend with the mean luma: `factor` thousandths are the image; above 1000 it is extrapolated."""
    lightness = compute_luma(pixels)
    mean = (2 * int(lightness.sum(dtype=np.int64)) + lightness.size) // (2 * lightness.size)
    return np.take(_blend(np.arange(256), mean, factor), pixels)


def adjust_saturation(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Blend with the luma of each pixel: `factor` thousandths are the image."""
    return _blend(pixels, compute_luma(pixels)[..., None], factor)


def adjust_sharpness(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Blend with a smoothed image (3×3, center weight 5 of 13, border unchanged): `factor` thousandths are the image."""
    smoothed = pixels.astype(np.int32)
    if min(smoothed.shape[:2]) > 2:
        rows = smoothed[:-2] + smoothed[1:-1] + smoothed[2:]
        weighted_sum = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * smoothed[1:-1, 1:-1]
        smoothed[1:-1, 1:-1] = (weighted_sum + 6) // 13
    return _blend(pixels, smoothed, factor)


def _blend(pixels: np.ndarray, other: np.ndarray | int, factor: int) -> np.ndarray:
    mixed = np.asarray(other, np.int32) * np.int32(1000 - factor) + pixels.astype(np.int32) * np.int32(factor)
    result: np.ndarray = np.clip((mixed + 500) // 1000, 0, 255).astype(np.uint8)
    return result


def adjust_hue(pixels: np.ndarray, shift: int) -> np.ndarray:
    """Rotate the hue by `shift` thousandths of a full turn; value and saturation (HSV) are unchanged."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    is_red, is_green = value == red, value == green
    hue_steps = (
        np.where(is_red, green - blue, np.where(is_green, blue - red, red - green)) * _RECIPROCAL_CHROMA[chroma] >> 10
    )
    angle = (
        hue_steps + np.where(is_red, 0, np.where(is_green, 2 * _HUE_STEPS, 4 * _HUE_STEPS)) + shift * 6 * _HUE_STEPS // 1000
    )
    channels = []
    for offset in (5, 3, 1):
        position = angle + offset * _HUE_STEPS
        position -= 6 * _HUE_STEPS * (position >= 6 * _HUE_STEPS)
        ramp = np.clip(np.minimum(position, 4 * _HUE_STEPS - position), 0, _HUE_STEPS)
        channels.append(value - ((chroma * ramp + _HUE_STEPS // 2) >> 12))
    return np.stack(channels, axis=-1).astype(np.uint8)


def posterize(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper `bits` of each sample."""
    return pixels & np.uint8(256 - (1 << (8 - bits)))


def solarize(pixels: np.ndarray, threshold: int) -> np.ndarray:
    """Invert samples of at least `threshold`."""
    return np.where(pixels >= threshold, 255 - pixels, pixels)


def autocontrast(pixels: np.ndarray) -> np.ndarray:
    """Stretch each channel to the range 0..255; a constant channel is unchanged."""
    channels = []
    for channel in range(3):
        lowest, highest = int(pixels[..., channel].min()), int(pixels[..., channel].max())
        table = (
            np.arange(256) if highest == lowest else np.clip((np.arange(256) - lowest) * 255 // (highest - lowest), 0, 255)
        )
        channels.append(table.astype(np.uint8)[pixels[..., channel]])
    return np.stack(channels, axis=-1)


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Equalize the histogram of each channel."""
    return np.asarray(ImageOps.equalize(Image.fromarray(np.ascontiguousarray(pixels))))


def compute_gaussian_weights(sigma: int) -> list[int]:
    """Return Gaussian weights in 65536ths at distances 0, 1, …, up to three `sigma` (thousandths of a pixel)."""
    return [round(_ONE * math.exp(-((1000 * distance / sigma) ** 2) / 2)) for distance in range(-(-3 * sigma // 1000) + 1)]


def blur(pixels: np.ndarray, sigma: int) -> np.ndarray:
    """Apply a Gaussian blur with a standard deviation of `sigma` thousandths of a pixel; edge pixels are replicated."""
    weights = compute_gaussian_weights(sigma)
    radius, total = len(weights) - 1, 2 * sum(weights) - weights[0]
    result = pixels.astype(np.int32)
    for _ in range(2):  # down the columns, then along the rows
        length = result.shape[0]
        padded = np.pad(result, ((radius, radius), (0, 0), (0, 0)), mode="edge")
        weighted_sum = weights[0] * padded[radius : radius + length]
        for distance, weight in enumerate(weights[1:], start=1):
            weighted_sum += weight * (
                padded[radius - distance : radius - distance + length]
                + padded[radius + distance : radius + distance + length]
            )
        result = np.ascontiguousarray(((weighted_sum + total // 2) // total).transpose(1, 0, 2))
    return result.astype(np.uint8)


def erase(pixels: np.ndarray, center: tuple[int, int], side: int) -> np.ndarray:
    """Fill a square about `center` (x, y) with `FILL`, clipped to the image."""
    left, top = center[0] - side // 2, center[1] - side // 2
    result = pixels.copy()
    result[max(0, top) : top + side, max(0, left) : left + side] = FILL
    return result
