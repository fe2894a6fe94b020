"""Objects: masks of shapes, characters, made-up glyphs and numbers of things, no two of them alike."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Array = NDArray[Any]
CANVAS = 128  # the side an object is drawn at
NOTHING = "nothing"
COUNTS = tuple(f"count {name}" for name in ("2", "3", "4-5", "6-9"))
CHARACTERS = string.digits + "ABCDEFGHJKLMNPQRSTUVWXYZ" + "abdefghnqrt" + "&?@#%"
GLYPHS = 48  # made-up glyphs


def ngon(corners: int, inner: float = 1.0, phase: float = 0.0) -> Array:
    """The corners of a regular polygon in the unit circle, or of a star where inner is below 1."""
    count = corners if inner == 1.0 else 2 * corners
    angle = 2 * np.pi * np.arange(count) / count + phase
    radius = np.where(np.arange(count) % 2, inner, 1.0) if inner != 1.0 else np.ones(count)
    return np.stack([np.sin(angle) * radius, -np.cos(angle) * radius], 1)


def disc(x: float = 0.0, y: float = 0.0, width: float = 1.0, height: float | None = None) -> Array:
    """The outline of an ellipse with the given centre and half axes."""
    return ngon(28) * (width, height or width) + (x, y)


def path(*numbers: float) -> Array:
    """The points of a polygon from a flat list of tenths: x, y, x, y, ..."""
    return np.array(numbers, float).reshape(-1, 2) / 10


def petals(count: int, depth: float) -> Array:
    """The outline of a flower with the given number of petals."""
    angle = 2 * np.pi * np.arange(72) / 72
    radius = 1 - depth * (0.5 + 0.5 * np.cos(count * angle))
    return np.stack([np.sin(angle) * radius, -np.cos(angle) * radius], 1)


ADD, CUT = 1, 0
SHAPES: dict[str, list[tuple[int, Array]]] = {
    "triangle": [(ADD, ngon(3))],
    "square": [(ADD, ngon(4))],
    "bar": [(ADD, path(-10, -3, 10, -3, 10, 3, -10, 3))],
    "needle": [(ADD, path(-10, -1, 10, -1, 10, 1, -10, 1))],
    "pentagon": [(ADD, ngon(5))],
    "octagon": [(ADD, ngon(8))],
    "disc": [(ADD, disc())],
    "ellipse": [(ADD, disc(0, 0, 1, 0.5))],
    "half disc": [(ADD, ngon(28)[:15])],
    "star 4": [(ADD, ngon(4, 0.4))],
    "star 5": [(ADD, ngon(5, 0.45))],
    "star 8": [(ADD, ngon(8, 0.55))],
    "flower 5": [(ADD, petals(5, 0.5)), (CUT, disc(0, 0, 0.2))],
    "flower 8": [(ADD, petals(8, 0.4)), (CUT, disc(0, 0, 0.2))],
    "propeller": [(ADD, petals(3, 0.8))],
    "ring": [(ADD, disc()), (CUT, disc(0, 0, 0.6))],
    "frame": [(ADD, ngon(4)), (CUT, ngon(4) * 0.6)],
    "two rings": [(ADD, disc()), (CUT, disc(0, 0, 0.75)), (ADD, disc(0, 0, 0.5)), (CUT, disc(0, 0, 0.25))],
    "crescent": [(ADD, disc()), (CUT, disc(0.5, 0, 0.8))],
    "plus": [(ADD, path(-10, -3, 10, -3, 10, 3, -10, 3)), (ADD, path(-3, -10, 3, -10, 3, 10, -3, 10))],
    "ell": [(ADD, path(-7, -10, -2, -10, -2, 5, 8, 5, 8, 10, -7, 10))],
    "tee": [(ADD, path(-9, -9, 9, -9, 9, -4, 3, -4, 3, 10, -3, 10, -3, -4, -9, -4))],
    "chevron": [(ADD, path(-10, 6, 0, -7, 10, 6, 5, 6, 0, -1, -5, 6))],
    "arrow": [(ADD, path(-10, -3, 1, -3, 1, -8, 10, 0, 1, 8, 1, 3, -10, 3))],
    "heart": [(ADD, disc(-0.45, -0.35, 0.5)), (ADD, disc(0.45, -0.35, 0.5)),
              (ADD, path(-9, -1, 9, -1, 0, 10))],
    "bolt": [(ADD, path(2, -10, -6, 2, 0, 2, -3, 10, 7, -3, 1, -3, 5, -10))],
    "drop": [(ADD, disc(0, 0.4, 0.6)), (ADD, path(-5, 1, 0, -10, 5, 1))],
    "cloud": [(ADD, disc(-0.5, 0.1, 0.45)), (ADD, disc(0, -0.2, 0.5)), (ADD, disc(0.5, 0.1, 0.5, 0.4))],
    "house": [(ADD, path(-7, -1, 7, -1, 7, 10, -7, 10)), (ADD, path(-10, -1, 0, -10, 10, -1)),
              (CUT, path(-2, 3, 2, 3, 2, 10, -2, 10))],
    "tree": [(ADD, path(-2, 0, 2, 0, 2, 10, -2, 10)), (ADD, disc(0, -0.3, 0.7))],
    "fir": [(ADD, path(-1, 5, 1, 5, 1, 10, -1, 10)), (ADD, path(-8, 6, 0, -10, 8, 6))],
    "car": [(ADD, path(-10, 0, -6, -1, -4, -5, 4, -5, 6, -1, 10, 0, 10, 4, -10, 4)),
            (ADD, disc(-0.5, 0.4, 0.25)), (ADD, disc(0.5, 0.4, 0.25)),
            (CUT, path(-3, -1, -2, -4, 3, -4, 4, -1))],
    "van": [(ADD, path(-10, -6, 6, -6, 10, 0, 10, 4, -10, 4)), (ADD, disc(-0.5, 0.4, 0.25)),
            (ADD, disc(0.5, 0.4, 0.25)), (CUT, path(3, -1, 3, -4, 5, -4, 7, -1))],
    "boat": [(ADD, path(-10, 3, 10, 3, 6, 9, -6, 9)), (ADD, path(0, -10, 0, 2, 8, 2))],
    "plane": [(ADD, disc(0, 0, 1, 0.17)), (ADD, path(-2, 0, 2, 0, -3, -9, -5, -9)),
              (ADD, path(-2, 0, 2, 0, -3, 9, -5, 9)), (ADD, path(-8, 0, -6, 0, -9, -4, -10, -4))],
    "fish": [(ADD, disc(-0.2, 0, 0.7, 0.42)), (ADD, path(4, 0, 10, -5, 10, 5)),
             (CUT, disc(-0.6, -0.1, 0.08))],
    "bird": [(ADD, disc(0, 0.1, 0.6, 0.35)), (ADD, disc(0.55, -0.35, 0.25)),
             (ADD, path(-4, 1, -10, -4, -9, 3)), (ADD, path(7, -4, 10, -3, 7, -2)),
             (ADD, path(-1, 3, 1, 3, 1, 9, 0, 9))],
    "beast": [(ADD, disc(0, 0, 0.65, 0.33)), (ADD, disc(0.7, -0.4, 0.27)),
              (ADD, path(-6, 0, -3, 0, -4, 8, -6, 8)), (ADD, path(6, 0, 3, 0, 3, 8, 5, 8)),
              (ADD, path(5, -5, 5, -9, 8, -6)), (ADD, path(-6, -2, -10, -5, -6, 1))],
    "face": [(ADD, disc(0, 0.1, 0.8)), (ADD, path(-8, 0, -7, -10, -1, -6)), (ADD, path(8, 0, 7, -10, 1, -6)),
             (CUT, disc(-0.3, 0, 0.13)), (CUT, disc(0.3, 0, 0.13)), (CUT, disc(0, 0.45, 0.3, 0.1))],
    "bottle": [(ADD, path(-4, -2, -2, -4, -2, -10, 2, -10, 2, -4, 4, -2, 4, 10, -4, 10))],
}  # fmt: skip

# The pen strokes of the ten digits: points in a box of 10 by 10, each list one stroke.
DIGIT_STROKES: dict[str, list[list[float]]] = {
    "0": [[5, 0, 2, 2, 1.5, 5, 2, 8, 5, 10, 8, 8, 8.5, 5, 8, 2, 5, 0]],
    "1": [[3, 2.5, 5.5, 0], [5.5, 0, 5.5, 5, 5.5, 10]],
    "2": [[2, 2.5, 4, 0, 7.5, 1, 7, 4.5, 4, 8, 2, 10], [2, 10, 8.5, 10]],
    "3": [[2, 1, 5, 0, 7.5, 2, 5, 4.6], [5, 4.6, 8, 6.5, 7, 9.3, 4, 10, 2, 9]],
    "4": [[5, 0, 2, 6], [2, 6, 9, 6], [7, 2.5, 6.5, 10]],
    "5": [[8, 0, 3, 0], [3, 0, 2.5, 4.5], [2.5, 4.5, 6, 4, 8, 6.5, 6, 9.7, 2, 9.5]],
    "6": [[7, 0, 3.5, 3, 2, 7, 4, 10, 7.5, 9, 7.5, 6, 4.5, 5.3, 2.3, 7.5]],
    "7": [[2, 0, 8, 0], [8, 0, 5.5, 5, 4, 10]],
    "8": [[7.5, 1.5, 5, 0, 2.5, 2, 5, 5, 7.8, 7.8, 5, 10, 2.2, 7.8, 5, 5, 7.5, 1.5]],
    "9": [[8, 3, 5, 5.3, 2.3, 3.5, 4, 0.4, 7.5, 0.8, 8, 3, 7.6, 7, 6, 10]],
}

OBJECTS = (NOTHING, *COUNTS, *SHAPES, *CHARACTERS, *(f"glyph {k}" for k in range(GLYPHS)))


def make_glyph(number: int) -> list[Array]:
    """The strokes of a made-up glyph, always the same ones for the same number."""
    rng = np.random.default_rng(9000 + number)
    grid = np.array(list(itertools.product((1.5, 5, 8.5), (0, 3.3, 6.7, 10))))
    lengths = rng.choice([2, 3, 3, 4], size=rng.integers(2, 4))
    return [grid[rng.choice(len(grid), size=length, replace=False)] for length in lengths]


STROKES = {name: [np.reshape(stroke, (-1, 2)) for stroke in strokes] for name, strokes in DIGIT_STROKES.items()}
STROKES |= {f"glyph {k}": make_glyph(k) for k in range(GLYPHS)}


def make_placement(rng: np.random.Generator, max_angle: float, low: float, high: float) -> Callable[[Array], Array]:
    """A function from unit coordinates to canvas pixels: turned, scaled, slanted, seen at an angle, moved."""
    angle, size = rng.uniform(-max_angle, max_angle), rng.uniform(low, high) * CANVAS / 2
    stretch = np.exp(rng.normal(0, 0.13, 2))
    slant = np.array([[1, rng.normal(0, 0.15)], [0, 1]])
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotate @ slant * stretch * size
    tilt = rng.normal(0, 0.12, 2)
    room = max(CANVAS / 2 - size, 4) * 0.9
    center = CANVAS / 2 + rng.uniform(-room, room, 2)
    return lambda points: (points / (1 + points @ tilt)[:, None]) @ matrix.T + center


def smooth(points: Array) -> Array:
    """Points along a Catmull-Rom curve through the given points."""
    if len(points) < 3:
        return points
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 6)[:, None]
    a, b, c, d = (padded[i : len(padded) - 3 + i][:, None] for i in range(4))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    result: Array = curve.reshape(-1, 2)
    return result


def draw_pen(rng: np.random.Generator, name: str, draw: ImageDraw.ImageDraw) -> None:
    """Nothing; draws a digit or a made-up glyph in pen strokes, no two times alike."""
    to_canvas = make_placement(rng, 0.25, 0.55, 1.0)
    width, wobble = int(rng.integers(4, 18)), rng.uniform(0.1, 0.5)
    aspect = (rng.uniform(0.55, 0.95), 1.0)
    for stroke in STROKES[name]:
        points = to_canvas(smooth((stroke + rng.normal(0, wobble, stroke.shape)) / 5 - 1) * aspect)
        draw.line([tuple(point) for point in points], fill=255, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)


def draw_shape(rng: np.random.Generator, name: str, draw: ImageDraw.ImageDraw) -> None:
    """Nothing; draws a shape, turned freely half of the time and nearly upright otherwise."""
    to_canvas = make_placement(rng, np.pi if rng.random() < 0.5 else 0.3, 0.35, 0.95)
    flip = (rng.choice([-1, 1]), 1)
    for ink, outline in SHAPES[name]:
        draw.polygon([tuple(point) for point in to_canvas(outline * flip)], fill=255 * ink)


def draw_count(rng: np.random.Generator, name: str, draw: ImageDraw.ImageDraw) -> None:
    """Nothing; draws as many copies of a simple shape as the name says, apart from one another."""
    low, _, high = name.removeprefix("count ").partition("-")
    count = int(rng.integers(int(low), int(high or low) + 1))
    outline = SHAPES[str(rng.choice(["disc", "square", "triangle", "star 5", "bar", "heart"]))][0][1]
    side = 2 if count < 4 else 3
    cells = rng.choice(side * side, size=count, replace=False)
    for cell in cells:
        center = (np.array(divmod(int(cell), side)) + 0.5 + rng.uniform(-0.12, 0.12, 2)) * CANVAS / side
        polygon = outline @ np.linalg.qr(rng.normal(size=(2, 2)))[0] * rng.uniform(0.2, 0.36) * CANVAS / side
        draw.polygon([tuple(point) for point in polygon + center], fill=255)


def draw_character(rng: np.random.Generator, name: str) -> Image.Image:
    """A mask of one character in Pillow's own font, bent by a random quadrilateral."""
    font = ImageFont.load_default(float(rng.integers(90, 125)))
    mask = Image.new("L", (CANVAS, CANVAS))
    weight = int(rng.integers(0, 6))
    middle = (CANVAS // 2, CANVAS // 2)
    ImageDraw.Draw(mask).text(middle, name, fill=255, font=font, anchor="mm", stroke_width=weight)
    inverse = make_placement(rng, 0.25, 0.9, 1.6)
    corners = inverse(np.array([[-1.0, -1], [-1, 1], [1, 1], [1, -1]]) + rng.normal(0, 0.08, (4, 2)))
    return mask.transform(mask.size, Image.Transform.QUAD, tuple(corners.ravel()), Image.Resampling.BILINEAR)


def warp(rng: np.random.Generator, mask: Array) -> Array:
    """The mask with its rows and columns pushed along slow waves."""
    axis = np.arange(CANVAS)
    push = [rng.uniform(0, 5) * np.sin(axis * rng.uniform(0.02, 0.07) + rng.uniform(0, 6.28)) for _ in "xy"]
    rows = np.clip(axis[:, None] + push[0][None], 0, CANVAS - 1).astype(np.intp)
    columns = np.clip(axis[None] + push[1][:, None], 0, CANVAS - 1).astype(np.intp)
    bent: Array = mask[rows, columns]
    return bent


def draw_object(rng: np.random.Generator, name: str) -> Array:
    """A mask of the named object: CANVAS by CANVAS values in [0, 1]."""
    mask = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(mask)
    if name in SHAPES:
        draw_shape(rng, name, draw)
        if rng.random() < 0.25:
            inner = mask.filter(ImageFilter.MinFilter(int(rng.choice([7, 11, 15]))))
            mask.paste(0, mask=inner)
    elif name in COUNTS:
        draw_count(rng, name, draw)
    elif name in STROKES and (name not in string.digits or rng.random() < 0.7):
        draw_pen(rng, name, draw)
    elif name != NOTHING:
        mask = draw_character(rng, name)
    return warp(rng, np.asarray(mask, np.float32) / 255)
