"""Textures: functions of a random generator that return a map of 64x64 values in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SIZE = 64
_AXIS = (np.arange(SIZE) - SIZE / 2 + 0.5) / (SIZE / 2)
X, Y = np.meshgrid(_AXIS, _AXIS)
_FREQUENCY = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]) + 0.5 / SIZE


def normalize(values: Array) -> Array:
    """The values moved and stretched to fill [0, 1]."""
    low, high = values.min(), values.max()
    result: Array = (values - low) / (high - low + 1e-9)
    return result


def draw_noise(rng: np.random.Generator, power: float) -> Array:
    """Noise whose spectrum falls with frequency to the given power."""
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * _FREQUENCY**-power
    return normalize(np.clip((v := np.fft.irfft2(spectrum, s=(SIZE, SIZE))), *np.percentile(v, (2, 98))))


def draw_wave(rng: np.random.Generator, phase: Array) -> Array:
    """A sine or square wave of the given phase."""
    values = np.sin(phase + rng.uniform(0, 6.28))
    return 0.5 + 0.5 * (np.tanh(values * 6) if rng.random() < 0.5 else values)


def rotate_coordinates(rng: np.random.Generator, spread: float = 3.15) -> tuple[Array, Array]:
    """The two coordinates, turned by a random angle, moved and slightly bent."""
    a = rng.uniform(-spread, spread)
    x, y = X - rng.uniform(-0.4, 0.4), Y - rng.uniform(-0.4, 0.4)
    bend = rng.normal(0, 0.08)
    return np.cos(a) * x - np.sin(a) * y + bend * y * y, np.sin(a) * x + np.cos(a) * y + bend * x * x


def draw_grating(rng: np.random.Generator, orientation: int, low: float, high: float) -> Array:
    """Stripes in one of four orientations, with low to high periods over the image."""
    a = np.pi * orientation / 4 + rng.uniform(-0.25, 0.25)
    return draw_wave(rng, np.pi * rng.uniform(low, high) * (np.cos(a) * X + np.sin(a) * Y))


def draw_checks(rng: np.random.Generator, low: float, high: float) -> Array:
    """A checkerboard with low to high periods over the image."""
    x, y = rotate_coordinates(rng)
    f = np.pi * rng.uniform(low, high)
    squares: Array = np.sin(f * x) * np.sin(f * y)
    values: Array = 0.5 + 0.5 * np.tanh(8 * squares)
    return values


def draw_dots(rng: np.random.Generator, low: float, high: float) -> Array:
    """A lattice of dots, square or shifted by half a cell in every other row."""
    x, y = rotate_coordinates(rng)
    f = rng.uniform(low, high) / 2
    u, v = x * f, y * f
    if rng.random() < 0.5:
        u = u + 0.5 * (np.floor(v) % 2)
    r = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return 1 / (1 + np.exp(20 * (r - rng.uniform(0.2, 0.35))))


def draw_bricks(rng: np.random.Generator) -> Array:
    """A brick wall."""
    x, y = rotate_coordinates(rng, 0.3)
    v = y * rng.uniform(2, 4)
    u = x * rng.uniform(1.2, 2.2) + 0.5 * (np.floor(v) % 2)
    tone = np.sin(12.9 * np.floor(u) + 78.2 * np.floor(v)) * 0.2
    return np.where((u % 1 < 0.1) | (v % 1 < 0.15), 0.0, 0.75 + tone)


def draw_plaid(rng: np.random.Generator) -> Array:
    """Two crossed gratings, added."""
    x, y = rotate_coordinates(rng)
    return normalize(draw_wave(rng, x * rng.uniform(6, 20)) + rng.uniform(0.6, 1.4) * draw_wave(rng, y * rng.uniform(6, 20)))


def draw_rings(rng: np.random.Generator) -> Array:
    """Concentric rings."""
    x, y = rotate_coordinates(rng)
    return draw_wave(rng, np.hypot(x, y * rng.uniform(0.7, 1.0)) * rng.uniform(8, 30))


def draw_spokes(rng: np.random.Generator) -> Array:
    """Spokes around a centre."""
    x, y = rotate_coordinates(rng)
    return draw_wave(rng, np.arctan2(y, x) * rng.integers(3, 13))


def draw_spiral(rng: np.random.Generator) -> Array:
    """A spiral, turning either way."""
    x, y = rotate_coordinates(rng)
    arms = rng.integers(1, 5) * rng.choice([-1, 1])
    return draw_wave(rng, np.arctan2(y, x) * arms + np.hypot(x, y) * rng.uniform(8, 22))


def draw_wood(rng: np.random.Generator) -> Array:
    """Wood: long stripes bent by noise."""
    x, y = rotate_coordinates(rng)
    return normalize(draw_wave(rng, 22 * x + 2 * y + 9 * draw_noise(rng, 2.2)) + 0.3 * draw_noise(rng, 0.8))


def draw_marble(rng: np.random.Generator) -> Array:
    """Marble: thin veins along the level lines of noise."""
    return normalize(np.abs(np.sin(rng.uniform(5, 9) * draw_noise(rng, 1.7) + 2 * X)) ** 0.5)


def draw_ridges(rng: np.random.Generator) -> Array:
    """Ridges: the folds of a smooth noise."""
    return normalize(np.abs(draw_noise(rng, 1.8) - 0.5) + 0.5 * np.abs(draw_noise(rng, 1.3) - 0.5))


def draw_blobs(rng: np.random.Generator, power: float) -> Array:
    """Noise cut at a level: spots and islands."""
    values = draw_noise(rng, power)
    return 1 / (1 + np.exp(-25 * (values - rng.uniform(0.35, 0.65))))


def draw_cells(rng: np.random.Generator, edges: bool) -> Array:
    """The cells around random points: flat tones, or only the borders between them."""
    points = rng.uniform(-1.1, 1.1, (rng.integers(12, 45), 2))
    distance = (X[..., None] - points[:, 0]) ** 2 + (Y[..., None] - points[:, 1]) ** 2
    if edges:
        nearest = np.sqrt(np.partition(distance, 1, axis=-1)[..., :2])
        borders: Array = np.clip((nearest[..., 1] - nearest[..., 0]) * 8, 0, 1)
        return borders
    tones: Array = rng.random(len(points))[distance.argmin(-1)]
    return tones


def draw_leaves(rng: np.random.Generator, square: bool) -> Array:
    """Dead leaves: opaque discs or rectangles of many sizes and tones, one over another."""
    values = np.full((SIZE, SIZE), rng.random())
    for _ in range(45):
        cx, cy, radius = rng.uniform(-1.1, 1.1), rng.uniform(-1.1, 1.1), 0.08 * rng.pareto(1.6) + 0.08
        dx, dy = np.abs(X - cx), np.abs(Y - cy) * rng.uniform(0.6, 1.6)
        inside = np.maximum(dx, dy) < radius if square else dx * dx + dy * dy < radius * radius
        values[inside] = rng.random()
    return values


def draw_fur(rng: np.random.Generator, orientation: int) -> Array:
    """Noise smeared along one of four orientations."""
    a = np.pi * orientation / 4 + rng.uniform(-0.3, 0.3)
    fy, fx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    along, across = np.cos(a) * fx + np.sin(a) * fy, -np.sin(a) * fx + np.cos(a) * fy
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE)))
    return normalize(np.fft.irfft2(spectrum * np.exp(-((along * 30) ** 2) - (across * 4) ** 2), s=(SIZE, SIZE)))


def draw_landscape(rng: np.random.Generator) -> Array:
    """A smooth sky above a rough ground, with an uneven horizon."""
    horizon = rng.uniform(-0.5, 0.5) + 0.4 * (draw_noise(rng, 1.8)[0] - 0.5)
    return np.where(horizon[None] > Y, 0.75 + 0.25 * Y, 0.5 * draw_noise(rng, rng.uniform(0.6, 1.5)))


def draw_floor(rng: np.random.Generator) -> Array:
    """A tiled floor that recedes to a horizon."""
    horizon = rng.uniform(-0.7, 0.0)
    depth = 0.6 / np.maximum(Y - horizon, 0.03)
    rows = np.sin(5 * depth + rng.uniform(0, 6))
    columns = np.sin(5 * depth * (X - rng.uniform(-0.5, 0.5)))
    tiles = np.tanh(4 * rows * columns)
    values: Array = np.where(horizon < Y, 0.5 + 0.4 * tiles, 0.95 + 0.2 * Y)
    return values


def draw_flat(rng: np.random.Generator) -> Array:
    """One tone everywhere."""
    return np.full((SIZE, SIZE), rng.random())


def draw_gradient(rng: np.random.Generator) -> Array:
    """A smooth change from one side to the other."""
    return normalize(rotate_coordinates(rng)[0])


def draw_glow(rng: np.random.Generator) -> Array:
    """A bright spot that fades outwards."""
    x, y = rotate_coordinates(rng)
    values: Array = np.exp(-(x * x + y * y) * rng.uniform(1, 5))
    return values


def draw_scratches(rng: np.random.Generator) -> Array:
    """Thin straight lines in all directions."""
    values = np.zeros((SIZE, SIZE))
    for angle, shift in zip(rng.uniform(0, np.pi, 14), rng.uniform(-1, 1, 14), strict=True):
        values = np.maximum(values, np.exp(-((np.cos(angle) * X + np.sin(angle) * Y - shift) ** 2) * 900))
    return values


TEXTURES: dict[str, Callable[[np.random.Generator], Array]] = {
    "flat": draw_flat,
    **{f"coarse grating {o}": partial(draw_grating, orientation=o, low=2, high=5) for o in range(4)},
    **{f"fine grating {o}": partial(draw_grating, orientation=o, low=6, high=14) for o in range(4)},
    **{f"fur {o}": partial(draw_fur, orientation=o) for o in range(4)},
    "large checks": partial(draw_checks, low=1.5, high=3.5), "small checks": partial(draw_checks, low=4.5, high=8),
    "large dots": partial(draw_dots, low=3, high=6), "small dots": partial(draw_dots, low=8, high=14),
    "white noise": partial(draw_noise, power=0.0), "pink noise": partial(draw_noise, power=1.0),
    "brown noise": partial(draw_noise, power=1.7), "smooth noise": partial(draw_noise, power=2.6),
    "spots": partial(draw_blobs, power=1.3), "islands": partial(draw_blobs, power=2.0),
    "cells": partial(draw_cells, edges=False), "net": partial(draw_cells, edges=True),
    "leaves": partial(draw_leaves, square=False), "blocks": partial(draw_leaves, square=True),
    "bricks": draw_bricks, "plaid": draw_plaid, "rings": draw_rings, "spokes": draw_spokes, "spiral": draw_spiral,
    "wood": draw_wood, "marble": draw_marble, "ridges": draw_ridges, "landscape": draw_landscape, "floor": draw_floor,
    "gradient": draw_gradient, "glow": draw_glow, "scratches": draw_scratches,
}  # fmt: skip
