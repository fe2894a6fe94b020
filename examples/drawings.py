"""Small labelled drawings, made with numpy and Pillow alone: what the nano backbone is trained on.

Every drawing is an object (a shape, a character, a made-up glyph, a number of things, or nothing) on a
texture, in random colours, under random light, and then degraded. It carries four labels: its object,
its texture, the colour of the object and the colour of the texture.
"""

from __future__ import annotations

import colorsys
import io
import multiprocessing
import string
from typing import Any

import numpy as np
from drawn_objects import CANVAS, NOTHING, OBJECTS, draw_object
from drawn_textures import SIZE, TEXTURES, X, Y
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
LABELS = ("object", "texture", "object_colour", "texture_colour")
TEXTURE_NAMES = tuple(TEXTURES)
COLORS = (
    "red", "orange", "yellow", "green", "cyan", "blue", "violet", "pink", "black", "grey", "white", NOTHING,
)  # fmt: skip
CLASSES = (len(OBJECTS), len(TEXTURE_NAMES), len(COLORS), len(COLORS))
_HUE_ENDS = (15, 42, 70, 160, 195, 255, 290, 340)
_CHUNK = 500  # drawings made from one seed


def name_color(rgb: Array) -> str:
    """The name in COLOURS of a colour with components in [0, 1]."""
    hue, saturation, value = colorsys.rgb_to_hsv(*np.clip(rgb, 0, 1).tolist())
    if value < 0.2:
        return "black"
    if saturation < 0.2:
        return "white" if value > 0.75 else "grey"
    return COLORS[int(np.searchsorted(_HUE_ENDS, hue * 360)) % len(_HUE_ENDS)]


def draw_palette(rng: np.random.Generator) -> Array:
    """Four colours: two for the texture and two for the object, which stands out from the texture."""
    is_gray = rng.random() < 0.2
    while True:
        hsv = [(rng.random(), 0 if is_gray else rng.random() ** 0.7, rng.random() ** 0.6) for _ in range(4)]
        colors = np.array([colorsys.hsv_to_rgb(*color) for color in hsv])
        for first, second in ((0, 1), (2, 3)):
            if rng.random() < 0.5:
                factor = rng.choice([rng.uniform(0.3, 0.75), rng.uniform(1.3, 2.0)])
                colors[second] = np.clip(colors[first] * factor + rng.normal(0, 0.05), 0, 1)
        distances = np.abs(colors[[2, 1]] - colors[0]).max(1)
        if distances[0] > 0.3 and distances[1] > 0.2:
            return colors


def paint(rng: np.random.Generator, name: str, first: Array, second: Array, depth: float) -> Array:
    """An image of the named texture between two colours; depth in [0, 1] is its contrast."""
    tone = (TEXTURES[name](rng) * depth)[..., None]
    return first * (1 - tone) + second * tone


def shrink(mask: Array) -> Array:
    """A mask at the size of a drawing."""
    ratio = CANVAS // SIZE
    small: Array = mask.reshape(SIZE, ratio, SIZE, ratio).mean((1, 3))
    return small


def compose(rng: np.random.Generator, object_name: str, texture: str) -> tuple[Array, tuple[str, str]]:
    """An image of the object on the texture, and the names of their two colours."""
    colors = draw_palette(rng)
    image = paint(rng, texture, colors[0], colors[1], rng.uniform(0.35, 1.0))
    texture_color = name_color(image.mean((0, 1)))
    if object_name == NOTHING:
        return image, (NOTHING, texture_color)
    mask = shrink(draw_object(rng, object_name))[..., None]
    cover = TEXTURE_NAMES[rng.integers(len(TEXTURE_NAMES))] if rng.random() < 0.4 else "flat"
    ink = paint(rng, cover, colors[2], colors[3], rng.uniform(0.1, 0.6))
    if rng.random() < 0.2:
        shadow = np.roll(mask, rng.integers(-4, 5, 2), (0, 1))
        image = image * (1 - rng.uniform(0.2, 0.7) * shadow)
    if rng.random() < 0.1:
        top, left = rng.integers(0, SIZE - 16, 2)
        mask[top : top + 16, left : left + rng.integers(6, 17)] = 0
    return image * (1 - mask) + ink * mask, (name_color(ink.mean((0, 1))), texture_color)


def resample(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """The image as it looks after it was stored at a lower resolution."""
    side = int(rng.choice([8, 8, 8, 10, 12, 16, 24, 32]))
    down = rng.choice([Image.Resampling.BOX, Image.Resampling.BILINEAR])
    up = rng.choice([Image.Resampling.BILINEAR, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
    return image.resize((side, side), down).resize((SIZE, SIZE), up)


def degrade(rng: np.random.Generator, image: Array, low_resolution_probability: float) -> Array:
    """The image as bytes, after uneven light, noise, loss of resolution (as often as small) and JPEG."""
    if rng.random() < 0.5:
        angle = rng.uniform(0, 6.28)
        image = image * (1 + rng.uniform(0, 0.5) * (np.cos(angle) * X + np.sin(angle) * Y))[..., None]
    if rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(0.01, 0.1), image.shape)
    result: Image.Image = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    if rng.random() < low_resolution_probability:
        result = resample(rng, result)
    if rng.random() < 0.2:
        buffer = io.BytesIO()
        result.save(buffer, "JPEG", quality=int(rng.integers(15, 80)))
        result = Image.open(buffer)
    return np.asarray(result, np.uint8)


def draw_one(rng: np.random.Generator) -> tuple[Array, list[int]]:
    """One drawing, 64x64x3 bytes, and its four labels as numbers."""
    text_share = 0.0
    object_name = OBJECTS[rng.integers(len(OBJECTS))]
    chance = rng.random()
    if chance < 0.15:
        object_name = NOTHING
    elif chance < 0.3:
        object_name = string.digits[rng.integers(10)]
    if len(object_name) == 1 or object_name.startswith("glyph"):
        text_share = 0.25
    texture = TEXTURE_NAMES[rng.integers(len(TEXTURE_NAMES))]
    if object_name != NOTHING and rng.random() < 0.15 + 2 * text_share:
        texture = str(rng.choice(["flat", "flat", "flat", "gradient", "glow"]))
    image, (object_color, texture_color) = compose(rng, object_name, texture)
    labels = [OBJECTS.index(object_name), TEXTURE_NAMES.index(texture)]
    labels += [COLORS.index(object_color), COLORS.index(texture_color)]
    return degrade(rng, image, 0.25 + text_share), labels


def draw_chunk(seed: tuple[int, int]) -> tuple[Array, Array]:
    """The images and the labels of one chunk of drawings."""
    rng = np.random.default_rng(seed)
    pairs = [draw_one(rng) for _ in range(_CHUNK)]
    return np.stack([image for image, _ in pairs]), np.array([labels for _, labels in pairs])


def draw_set(count: int, seed: int) -> tuple[Array, Array]:
    """The images (count, 64, 64, 3) and labels (count, 4); the same seed always draws the same."""
    chunks = -(-count // _CHUNK)
    with multiprocessing.get_context("spawn").Pool() as pool:
        parts = pool.map(draw_chunk, [(seed, index) for index in range(chunks)], chunksize=1)
    images, labels = (np.concatenate(column)[:count] for column in zip(*parts, strict=True))
    return images, labels
