"""What can be done to a picture, in whole numbers, so that every machine gets the same bytes.

Pictures are RGB uint8 (height, width, 3); nothing is changed in place. Shares and factors are in thousandths, angles in
thousandths of a degree. Sines and Gaussians are rounded to integers where no value lies near the middle of two. The one
function not written here is Pillow's `resize`, which also works in fixed point. Names and meanings follow Pillow's
ImageOps and ImageEnhance, which the published augmentations are defined by.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

FILL = (124, 116, 104)  # the mean colour of ImageNet: what a frozen network takes least notice of
_ONE = 1 << 16
_LANE_MASK = np.uint64(0x00FF00FF00FF)
_LANE_ROUNDING = np.uint64(0x008000800080)
_HUE_STEPS = 1 << 12  # steps in a sixth of the colour circle
_RECIPROCAL_CHROMA = np.array([0, *((1 << 22) // chroma for chroma in range(1, 256))], np.int32)


def mirror(pixels: np.ndarray) -> np.ndarray:
    """Left and right exchanged."""
    return pixels[:, ::-1]


def flip(pixels: np.ndarray) -> np.ndarray:
    """Top and bottom exchanged."""
    return pixels[::-1]


def crop(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """The rectangle, resized to the whole by antialiased bilinear interpolation."""
    region = Image.fromarray(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
    return np.asarray(region.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BILINEAR))


def rotate(pixels: np.ndarray, angle: int) -> np.ndarray:
    """Turned counter-clockwise about the centre by `angle` thousandths of a degree."""
    cosine, sine = (round(_ONE * function(math.radians(angle / 1000))) for function in (math.cos, math.sin))
    return _transform_affine(pixels, cosine, -sine, sine, cosine)


def shear_x(pixels: np.ndarray, slope: int) -> np.ndarray:
    """Rows shifted in proportion to their distance from the middle one, `slope` thousandths of it."""
    return _transform_affine(pixels, _ONE, slope * _ONE // 1000, 0, _ONE)


def shear_y(pixels: np.ndarray, slope: int) -> np.ndarray:
    """Columns shifted in proportion to their distance from the middle one."""
    return _transform_affine(pixels, _ONE, 0, slope * _ONE // 1000, _ONE)


def translate(pixels: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """Shifted by whole pixels; what comes in is `FILL`."""
    height, width = pixels.shape[:2]
    result = np.empty_like(pixels)
    result[:] = FILL
    dx, dy = max(-width, min(width, dx)), max(-height, min(height, dy))
    visible = pixels[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    result[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = visible
    return result


def _transform_affine(pixels: np.ndarray, xx: int, xy: int, yx: int, yy: int) -> np.ndarray:
    """Bilinear sampling about the centre: source x = xx·x + xy·y, source y = yx·x + yy·y, in 65536ths; outside is `FILL`.

    Coordinates are doubled, so that the centre of an even number of pixels is an integer; the three channels of a pixel
    are 16-bit lanes of one integer, so that each of the four neighbours is one look-up and each blend one product.
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
    # Of the framed picture, in 131072ths of a pixel; beyond the frame all is fill, as on it.
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
    """Lane by lane, the mean of two that has `weight` 256ths of the second."""
    blended = first * (np.uint64(256) - weight) + second * weight + _LANE_ROUNDING
    lanes: np.ndarray = blended >> np.uint64(8) & _LANE_MASK
    return lanes


def compute_luma(pixels: np.ndarray) -> np.ndarray:
    """Lightness (height, width) int32, 0..255, with the weights of ITU-R 601-2."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    lightness: np.ndarray = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return lightness


def to_grayscale(pixels: np.ndarray) -> np.ndarray:
    """The lightness in all three channels."""
    return np.repeat(compute_luma(pixels).astype(np.uint8)[..., None], 3, axis=2)


def adjust_brightness(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Every sample times `factor` thousandths."""
    return np.take(_blend(np.arange(256), 0, factor), pixels)


def adjust_contrast(pixels: np.ndarray, factor: int) -> np.ndarray:
    """`factor` thousandths of the picture, the rest its mean lightness; above 1000, away from it."""
    lightness = compute_luma(pixels)
    mean = (2 * int(lightness.sum(dtype=np.int64)) + lightness.size) // (2 * lightness.size)
    return np.take(_blend(np.arange(256), mean, factor), pixels)


def adjust_saturation(pixels: np.ndarray, factor: int) -> np.ndarray:
    """`factor` thousandths of the picture, the rest its lightness."""
    return _blend(pixels, compute_luma(pixels)[..., None], factor)


def adjust_sharpness(pixels: np.ndarray, factor: int) -> np.ndarray:
    """`factor` thousandths of the picture, the rest a smoothed one (3×3, the centre weighs 5 of 13; the rim stays)."""
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
    """Colours moved along the circle of hues by `shift` thousandths of it; value and saturation (HSV) stay."""
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
    """Only the upper `bits` of each sample."""
    return pixels & np.uint8(256 - (1 << (8 - bits)))


def solarize(pixels: np.ndarray, threshold: int) -> np.ndarray:
    """Samples from `threshold` on are inverted."""
    return np.where(pixels >= threshold, 255 - pixels, pixels)


def autocontrast(pixels: np.ndarray) -> np.ndarray:
    """Each channel stretched so that its least sample is 0 and its greatest 255; a channel of one value stays."""
    channels = []
    for channel in range(3):
        lowest, highest = int(pixels[..., channel].min()), int(pixels[..., channel].max())
        table = (
            np.arange(256) if highest == lowest else np.clip((np.arange(256) - lowest) * 255 // (highest - lowest), 0, 255)
        )
        channels.append(table.astype(np.uint8)[pixels[..., channel]])
    return np.stack(channels, axis=-1)


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Each channel spread so that its samples are as evenly distributed as their order allows."""
    channels = []
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        cumulative = np.cumsum(counts) - counts
        table = (cumulative + step // 2) // step if step else np.arange(256)
        channels.append(np.minimum(table, 255).astype(np.uint8)[pixels[..., channel]])
    return np.stack(channels, axis=-1)


def compute_gaussian_weights(sigma: int) -> list[int]:
    """Weights in 65536ths of the pixel itself and of those 1, 2, … away, up to three deviations of `sigma` thousandths."""
    return [round(_ONE * math.exp(-((1000 * distance / sigma) ** 2) / 2)) for distance in range(-(-3 * sigma // 1000) + 1)]


def blur(pixels: np.ndarray, sigma: int) -> np.ndarray:
    """Gaussian blur with a standard deviation of `sigma` thousandths of a pixel; the rim goes on beyond the edge."""
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
    """A square about `center` (x, y) replaced by `FILL`; what would lie beyond the edge is cut off."""
    left, top = center[0] - side // 2, center[1] - side // 2
    result = pixels.copy()
    result[max(0, top) : top + side, max(0, left) : left + side] = FILL
    return result
