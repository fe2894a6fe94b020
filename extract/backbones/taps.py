"""Taps: a layer and a pool, written `mixed_5:avg`; the shape of their rows, and the pooling."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...cache.errors import LayerError
from .keras_runtime import load_keras

POOLS = "avg, max, gridN, map, cls"


@dataclass(frozen=True, order=True)
class Tap:
    """A layer and the pool that turns its output into a row, written `mixed_5:avg`.

    Attributes
    ----------
    layer : str
        The name of the layer.
    pool : str
        `avg`, `max`, `gridN`, `map` or `cls`.
    """

    layer: str
    pool: str

    def __str__(self) -> str:
        return f"{self.layer}:{self.pool}"


def choose_default_pool(shape: Sequence[int]) -> str:
    """Return the default pool of an output: `avg` for maps and tokens, `map` for vectors."""
    return "avg" if len(shape) in {2, 3} else "map"


def compute_row_shape(tap: Tap, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one stored row.

    Parameters
    ----------
    tap : Tap
        The tap.
    shape : sequence of int
        Shape of the layer's output: (height, width, channels), (tokens, channels) or (channels,).

    Returns
    -------
    tuple of int
        The shape of the row.

    Raises
    ------
    LayerError
        If the pool does not apply to an output of this shape.

    Examples
    --------
    >>> compute_row_shape(Tap("mixed5", "grid2"), (17, 17, 768))
    (3072,)
    """
    grid = _parse_grid(tap.pool)
    if tap.pool == "map":
        return tuple(shape)
    if (len(shape) == 3 and tap.pool in {"avg", "max"}) or (len(shape) == 2 and tap.pool in {"avg", "max", "cls"}):
        return (shape[-1],)
    if len(shape) == 3 and grid:
        if grid > min(shape[:2]):
            raise LayerError(
                f"tap {tap}: a {grid}x{grid} grid does not fit the layer's {shape[0]}x{shape[1]} map; "
                "use a smaller grid or larger images"
            )
        return (grid * grid * shape[-1],)
    kind = {1: "a vector", 2: "tokens", 3: "a map"}.get(len(shape), "neither a map nor tokens")
    pools = {2: "avg, max, cls or map", 3: "avg, max, gridN or map"}.get(len(shape), "map")
    raise LayerError(
        f"tap {tap}: pool {tap.pool} does not apply to the layer's output, {kind} of shape {tuple(shape)}; use {pools}"
    )


def compute_row_bytes(tap: Tap, shape: Sequence[int]) -> int:
    """Return the bytes of one stored row: two per value for the pool `map`, four for the others."""
    return math.prod(compute_row_shape(tap, shape)) * (2 if tap.pool == "map" else 4)


def apply(tensor: Any, tap: Tap) -> Any:
    """Pool the output of a layer, in float32; the pool `map` returns it unchanged.

    Parameters
    ----------
    tensor : keras.KerasTensor
        The output of the layer (batch, *shape).
    tap : Tap
        The layer and the pool.

    Returns
    -------
    keras.KerasTensor
        Rows (batch, *row_shape).
    """
    layers = load_keras().layers
    shape = tuple(tensor.shape[1:])
    compute_row_shape(tap, shape)
    name = "humeris_" + re.sub(r"[^A-Za-z0-9_]", "_", str(tap))
    grid = _parse_grid(tap.pool)
    if tap.pool == "map":
        return tensor
    if len(shape) == 2:
        if tap.pool == "cls":
            return tensor[:, 0]
        pool = layers.GlobalAveragePooling1D if tap.pool == "avg" else layers.GlobalMaxPooling1D
        return pool(name=name, dtype="float32")(tensor)
    if grid > 1:
        cells = layers.AdaptiveAveragePooling2D(grid, name=name + "_cells", dtype="float32")(tensor)
        return layers.Flatten(name=name, dtype="float32")(cells)
    pool = layers.GlobalMaxPooling2D if tap.pool == "max" else layers.GlobalAveragePooling2D
    return pool(name=name, dtype="float32")(tensor)


def is_pool(pool: str) -> bool:
    """Return whether a text is the name of a pool."""
    return pool in {"avg", "max", "map", "cls"} or bool(_parse_grid(pool))


def _parse_grid(pool: str) -> int:
    match = re.fullmatch(r"grid([1-9]\d?)", pool)
    return int(match[1]) if match else 0
