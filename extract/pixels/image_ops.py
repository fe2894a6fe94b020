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
_LANES = np.uint64(0x00FF00FF00FF)
_HALVES = np.uint64(0x008000800080)
_HUE = 1 << 12  # steps in a sixth of the colour circle
_OVER_CHROMA = np.array([0, *((1 << 22) // chroma for chroma in range(1, 256))], np.int32)


def mirror(pixels: np.ndarray) -> np.ndarray:
    """Left and right exchanged."""
    return pixels[:, ::-1]


def upside_down(pixels: np.ndarray) -> np.ndarray:
    """Top and bottom exchanged."""
    return pixels[::-1]


def crop(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """The rectangle, resized to the whole by antialiased bilinear interpolation."""
    part = Image.fromarray(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
    return np.asarray(part.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BILINEAR))


def rotate(pixels: np.ndarray, angle: int) -> np.ndarray:
    """Turned counter-clockwise about the centre by `angle` thousandths of a degree."""
    cosine, sine = (round(_ONE * turn(math.radians(angle / 1000))) for turn in (math.cos, math.sin))
    return _affine(pixels, cosine, -sine, sine, cosine)


def shear_x(pixels: np.ndarray, slope: int) -> np.ndarray:
    """Rows shifted in proportion to their distance from the middle one, `slope` thousandths of it."""
    return _affine(pixels, _ONE, slope * _ONE // 1000, 0, _ONE)


def shear_y(pixels: np.ndarray, slope: int) -> np.ndarray:
    """Columns shifted in proportion to their distance from the middle one."""
    return _affine(pixels, _ONE, 0, slope * _ONE // 1000, _ONE)


def translate(pixels: np.ndarray, right: int, down: int) -> np.ndarray:
    """Shifted by whole pixels; what comes in is `FILL`."""
    height, width = pixels.shape[:2]
    result = np.empty_like(pixels)
    result[:] = FILL
    right, down = max(-width, min(width, right)), max(-height, min(height, down))
    source = pixels[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    result[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = source
    return result


def _affine(pixels: np.ndarray, xx: int, xy: int, yx: int, yy: int) -> np.ndarray:
    """Bilinear sampling about the centre: source x = xx·x + xy·y, source y = yx·x + yy·y, in 65536ths; outside is `FILL`.

    Coordinates are doubled, so that the centre of an even number of pixels is an integer; the three channels of a pixel
    are 16-bit lanes of one integer, so that each of the four neighbours is one look-up and each blend one product.
    """
    height, width = pixels.shape[:2]
    framed = np.empty((height + 2, width + 2, 4), np.uint8)
    framed[:] = (*FILL, 0)
    framed[1:-1, 1:-1, :3] = pixels
    word = framed.view("<u4").ravel().astype(np.uint64)
    packed = (
        (word & np.uint64(0xFF)) | (word & np.uint64(0xFF00)) << np.uint64(8) | (word & np.uint64(0xFF0000)) << np.uint64(16)
    )
    x = np.arange(1 - width, width, 2, dtype=np.int64)
    y = np.arange(1 - height, height, 2, dtype=np.int64)[:, None]
    # Of the framed picture, in 131072ths of a pixel; beyond the frame all is fill, as on it.
    across = np.clip(xx * x + (xy * y + (width + 1) * _ONE), 0, (width + 1) * 2 * _ONE - 1)
    along = np.clip(yx * x + (yy * y + (height + 1) * _ONE), 0, (height + 1) * 2 * _ONE - 1)
    corner = (along >> 17) * (width + 2) + (across >> 17)
    right, down = ((where >> 9 & 255).astype(np.uint64) for where in (across, along))
    upper = _between(packed.take(corner), packed[1:].take(corner), right)
    corner += width + 2
    lower = _between(packed.take(corner), packed[1:].take(corner), right)
    lanes = np.ascontiguousarray(_between(upper, lower, down), "<u8").view(np.uint8)
    return lanes.reshape(height, width, 8)[..., 0:6:2]


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Lane by lane, the mean of two that has `share` 256ths of the second."""
    blended = first * (np.uint64(256) - share) + second * share + _HALVES
    lanes: np.ndarray = blended >> np.uint64(8) & _LANES
    return lanes


def luma(pixels: np.ndarray) -> np.ndarray:
    """Lightness (height, width) int32, 0..255, with the weights of ITU-R 601-2."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    light: np.ndarray = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return light


def gray(pixels: np.ndarray) -> np.ndarray:
    """The lightness in all three channels."""
    return np.repeat(luma(pixels).astype(np.uint8)[..., None], 3, axis=2)


def brightness(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Every sample times `factor` thousandths."""
    return np.take(_blend(np.arange(256), 0, factor), pixels)


def contrast(pixels: np.ndarray, factor: int) -> np.ndarray:
    """`factor` thousandths of the picture, the rest its mean lightness; above 1000, away from it."""
    light = luma(pixels)
    mean = (2 * int(light.sum(dtype=np.int64)) + light.size) // (2 * light.size)
    return np.take(_blend(np.arange(256), mean, factor), pixels)


def saturation(pixels: np.ndarray, factor: int) -> np.ndarray:
    """`factor` thousandths of the picture, the rest its lightness."""
    return _blend(pixels, luma(pixels)[..., None], factor)


def sharpness(pixels: np.ndarray, factor: int) -> np.ndarray:
    """`factor` thousandths of the picture, the rest a smoothed one (3×3, the centre weighs 5 of 13; the rim stays)."""
    smooth = pixels.astype(np.int32)
    if min(smooth.shape[:2]) > 2:
        rows = smooth[:-2] + smooth[1:-1] + smooth[2:]
        around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * smooth[1:-1, 1:-1]
        smooth[1:-1, 1:-1] = (around + 6) // 13
    return _blend(pixels, smooth, factor)


def _blend(pixels: np.ndarray, other: np.ndarray | int, factor: int) -> np.ndarray:
    mixed = np.asarray(other, np.int32) * np.int32(1000 - factor) + pixels.astype(np.int32) * np.int32(factor)
    result: np.ndarray = np.clip((mixed + 500) // 1000, 0, 255).astype(np.uint8)
    return result


def hue(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Colours moved along the circle of hues by `turn` thousandths of it; value and saturation (HSV) stay."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    is_red, is_green = value == red, value == green
    steps = np.where(is_red, green - blue, np.where(is_green, blue - red, red - green)) * _OVER_CHROMA[chroma] >> 10
    angle = steps + np.where(is_red, 0, np.where(is_green, 2 * _HUE, 4 * _HUE)) + turn * 6 * _HUE // 1000
    channels = []
    for offset in (5, 3, 1):
        place = angle + offset * _HUE
        place -= 6 * _HUE * (place >= 6 * _HUE)
        lowered = np.clip(np.minimum(place, 4 * _HUE - place), 0, _HUE)
        channels.append(value - ((chroma * lowered + _HUE // 2) >> 12))
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
        least, most = int(pixels[..., channel].min()), int(pixels[..., channel].max())
        table = np.arange(256) if most == least else np.clip((np.arange(256) - least) * 255 // (most - least), 0, 255)
        channels.append(table.astype(np.uint8)[pixels[..., channel]])
    return np.stack(channels, axis=-1)


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Each channel spread so that its samples are as evenly distributed as their order allows."""
    channels = []
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        below = np.cumsum(counts) - counts
        table = (below + step // 2) // step if step else np.arange(256)
        channels.append(np.minimum(table, 255).astype(np.uint8)[pixels[..., channel]])
    return np.stack(channels, axis=-1)


def gaussian_weights(sigma: int) -> list[int]:
    """Weights in 65536ths of the pixel itself and of those 1, 2, … away, up to three deviations of `sigma` thousandths."""
    return [round(_ONE * math.exp(-((1000 * away / sigma) ** 2) / 2)) for away in range(-(-3 * sigma // 1000) + 1)]


def blur(pixels: np.ndarray, sigma: int) -> np.ndarray:
    """Gaussian blur with a standard deviation of `sigma` thousandths of a pixel; the rim goes on beyond the edge."""
    weights = gaussian_weights(sigma)
    reach, total = len(weights) - 1, 2 * sum(weights) - weights[0]
    result = pixels.astype(np.int32)
    for _ in range(2):  # down the columns, then along the rows
        length = result.shape[0]
        wide = np.pad(result, ((reach, reach), (0, 0), (0, 0)), mode="edge")
        summed = weights[0] * wide[reach : reach + length]
        for away, weight in enumerate(weights[1:], start=1):
            summed += weight * (wide[reach - away : reach - away + length] + wide[reach + away : reach + away + length])
        result = np.ascontiguousarray(((summed + total // 2) // total).transpose(1, 0, 2))
    return result.astype(np.uint8)


def erase(pixels: np.ndarray, centre: tuple[int, int], side: int) -> np.ndarray:
    """A square about `centre` (x, y) replaced by `FILL`; what would lie beyond the edge is cut off."""
    left, top = centre[0] - side // 2, centre[1] - side // 2
    result = pixels.copy()
    result[max(0, top) : top + side, max(0, left) : left + side] = FILL
    return result
