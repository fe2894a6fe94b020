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


def unit(values: Array) -> Array:
    """The values moved and stretched to fill [0, 1]."""
    low, high = values.min(), values.max()
    result: Array = (values - low) / (high - low + 1e-9)
    return result


def noise(rng: np.random.Generator, power: float) -> Array:
    """Noise whose spectrum falls with frequency to the given power."""
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * _FREQUENCY**-power
    return unit(np.clip((v := np.fft.irfft2(spectrum, s=(SIZE, SIZE))), *np.percentile(v, (2, 98))))


def wave(rng: np.random.Generator, phase: Array) -> Array:
    """A sine or square wave of the given phase."""
    values = np.sin(phase + rng.uniform(0, 6.28))
    return 0.5 + 0.5 * (np.tanh(values * 6) if rng.random() < 0.5 else values)


def turned(rng: np.random.Generator, spread: float = 3.15) -> tuple[Array, Array]:
    """The two coordinates, turned by a random angle, moved and slightly bent."""
    a = rng.uniform(-spread, spread)
    x, y = X - rng.uniform(-0.4, 0.4), Y - rng.uniform(-0.4, 0.4)
    bend = rng.normal(0, 0.08)
    return np.cos(a) * x - np.sin(a) * y + bend * y * y, np.sin(a) * x + np.cos(a) * y + bend * x * x


def grating(rng: np.random.Generator, orientation: int, low: float, high: float) -> Array:
    """Stripes in one of four orientations, with low to high periods over the image."""
    a = np.pi * orientation / 4 + rng.uniform(-0.25, 0.25)
    return wave(rng, np.pi * rng.uniform(low, high) * (np.cos(a) * X + np.sin(a) * Y))


def checks(rng: np.random.Generator, low: float, high: float) -> Array:
    """A checkerboard with low to high periods over the image."""
    x, y = turned(rng)
    f = np.pi * rng.uniform(low, high)
    squares: Array = np.sin(f * x) * np.sin(f * y)
    values: Array = 0.5 + 0.5 * np.tanh(8 * squares)
    return values


def dots(rng: np.random.Generator, low: float, high: float) -> Array:
    """A lattice of dots, square or shifted by half a cell in every other row."""
    x, y = turned(rng)
    f = rng.uniform(low, high) / 2
    u, v = x * f, y * f
    if rng.random() < 0.5:
        u = u + 0.5 * (np.floor(v) % 2)
    r = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return 1 / (1 + np.exp(20 * (r - rng.uniform(0.2, 0.35))))


def bricks(rng: np.random.Generator) -> Array:
    """A brick wall."""
    x, y = turned(rng, 0.3)
    v = y * rng.uniform(2, 4)
    u = x * rng.uniform(1.2, 2.2) + 0.5 * (np.floor(v) % 2)
    tone = np.sin(12.9 * np.floor(u) + 78.2 * np.floor(v)) * 0.2
    return np.where((u % 1 < 0.1) | (v % 1 < 0.15), 0.0, 0.75 + tone)


def plaid(rng: np.random.Generator) -> Array:
    """Two crossed gratings, added."""
    x, y = turned(rng)
    return unit(wave(rng, x * rng.uniform(6, 20)) + rng.uniform(0.6, 1.4) * wave(rng, y * rng.uniform(6, 20)))


def rings(rng: np.random.Generator) -> Array:
    """Concentric rings."""
    x, y = turned(rng)
    return wave(rng, np.hypot(x, y * rng.uniform(0.7, 1.0)) * rng.uniform(8, 30))


def spokes(rng: np.random.Generator) -> Array:
    """Spokes around a centre."""
    x, y = turned(rng)
    return wave(rng, np.arctan2(y, x) * rng.integers(3, 13))


def spiral(rng: np.random.Generator) -> Array:
    """A spiral, turning either way."""
    x, y = turned(rng)
    arms = rng.integers(1, 5) * rng.choice([-1, 1])
    return wave(rng, np.arctan2(y, x) * arms + np.hypot(x, y) * rng.uniform(8, 22))


def wood(rng: np.random.Generator) -> Array:
    """Wood: long stripes bent by noise."""
    x, y = turned(rng)
    return unit(wave(rng, 22 * x + 2 * y + 9 * noise(rng, 2.2)) + 0.3 * noise(rng, 0.8))


def marble(rng: np.random.Generator) -> Array:
    """Marble: thin veins along the level lines of noise."""
    return unit(np.abs(np.sin(rng.uniform(5, 9) * noise(rng, 1.7) + 2 * X)) ** 0.5)


def ridges(rng: np.random.Generator) -> Array:
    """Ridges: the folds of a smooth noise."""
    return unit(np.abs(noise(rng, 1.8) - 0.5) + 0.5 * np.abs(noise(rng, 1.3) - 0.5))


def blobs(rng: np.random.Generator, power: float) -> Array:
    """Noise cut at a level: spots and islands."""
    values = noise(rng, power)
    return 1 / (1 + np.exp(-25 * (values - rng.uniform(0.35, 0.65))))


def cells(rng: np.random.Generator, edges: bool) -> Array:
    """The cells around random points: flat tones, or only the borders between them."""
    points = rng.uniform(-1.1, 1.1, (rng.integers(12, 45), 2))
    distance = (X[..., None] - points[:, 0]) ** 2 + (Y[..., None] - points[:, 1]) ** 2
    if edges:
        nearest = np.sqrt(np.partition(distance, 1, axis=-1)[..., :2])
        borders: Array = np.clip((nearest[..., 1] - nearest[..., 0]) * 8, 0, 1)
        return borders
    tones: Array = rng.random(len(points))[distance.argmin(-1)]
    return tones


def leaves(rng: np.random.Generator, square: bool) -> Array:
    """Dead leaves: opaque discs or rectangles of many sizes and tones, one over another."""
    values = np.full((SIZE, SIZE), rng.random())
    for _ in range(45):
        cx, cy, radius = rng.uniform(-1.1, 1.1), rng.uniform(-1.1, 1.1), 0.08 * rng.pareto(1.6) + 0.08
        dx, dy = np.abs(X - cx), np.abs(Y - cy) * rng.uniform(0.6, 1.6)
        inside = np.maximum(dx, dy) < radius if square else dx * dx + dy * dy < radius * radius
        values[inside] = rng.random()
    return values


def fur(rng: np.random.Generator, orientation: int) -> Array:
    """Noise smeared along one of four orientations."""
    a = np.pi * orientation / 4 + rng.uniform(-0.3, 0.3)
    fy, fx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    along, across = np.cos(a) * fx + np.sin(a) * fy, -np.sin(a) * fx + np.cos(a) * fy
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE)))
    return unit(np.fft.irfft2(spectrum * np.exp(-((along * 30) ** 2) - (across * 4) ** 2), s=(SIZE, SIZE)))


def landscape(rng: np.random.Generator) -> Array:
    """A smooth sky above a rough ground, with an uneven horizon."""
    horizon = rng.uniform(-0.5, 0.5) + 0.4 * (noise(rng, 1.8)[0] - 0.5)
    return np.where(horizon[None] > Y, 0.75 + 0.25 * Y, 0.5 * noise(rng, rng.uniform(0.6, 1.5)))


def floor(rng: np.random.Generator) -> Array:
    """A tiled floor that recedes to a horizon."""
    horizon = rng.uniform(-0.7, 0.0)
    depth = 0.6 / np.maximum(Y - horizon, 0.03)
    rows = np.sin(5 * depth + rng.uniform(0, 6))
    columns = np.sin(5 * depth * (X - rng.uniform(-0.5, 0.5)))
    tiles = np.tanh(4 * rows * columns)
    values: Array = np.where(horizon < Y, 0.5 + 0.4 * tiles, 0.95 + 0.2 * Y)
    return values


def flat(rng: np.random.Generator) -> Array:
    """One tone everywhere."""
    return np.full((SIZE, SIZE), rng.random())


def gradient(rng: np.random.Generator) -> Array:
    """A smooth change from one side to the other."""
    return unit(turned(rng)[0])


def glow(rng: np.random.Generator) -> Array:
    """A bright spot that fades outwards."""
    x, y = turned(rng)
    values: Array = np.exp(-(x * x + y * y) * rng.uniform(1, 5))
    return values


def scratches(rng: np.random.Generator) -> Array:
    """Thin straight lines in all directions."""
    values = np.zeros((SIZE, SIZE))
    for angle, shift in zip(rng.uniform(0, np.pi, 14), rng.uniform(-1, 1, 14), strict=True):
        values = np.maximum(values, np.exp(-((np.cos(angle) * X + np.sin(angle) * Y - shift) ** 2) * 900))
    return values


TEXTURES: dict[str, Callable[[np.random.Generator], Array]] = {
    "flat": flat,
    **{f"coarse grating {o}": partial(grating, orientation=o, low=2, high=5) for o in range(4)},
    **{f"fine grating {o}": partial(grating, orientation=o, low=6, high=14) for o in range(4)},
    **{f"fur {o}": partial(fur, orientation=o) for o in range(4)},
    "large checks": partial(checks, low=1.5, high=3.5), "small checks": partial(checks, low=4.5, high=8),
    "large dots": partial(dots, low=3, high=6), "small dots": partial(dots, low=8, high=14),
    "white noise": partial(noise, power=0.0), "pink noise": partial(noise, power=1.0),
    "brown noise": partial(noise, power=1.7), "smooth noise": partial(noise, power=2.6),
    "spots": partial(blobs, power=1.3), "islands": partial(blobs, power=2.0),
    "cells": partial(cells, edges=False), "net": partial(cells, edges=True),
    "leaves": partial(leaves, square=False), "blocks": partial(leaves, square=True),
    "bricks": bricks, "plaid": plaid, "rings": rings, "spokes": spokes, "spiral": spiral, "wood": wood,
    "marble": marble, "ridges": ridges, "landscape": landscape, "floor": floor, "gradient": gradient,
    "glow": glow, "scratches": scratches,
}  # fmt: skip
