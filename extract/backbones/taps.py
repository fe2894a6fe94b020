"""Taps: a layer and a pool, written `mixed_5:avg`; patterns of them; and what one row of a tap is."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...cache.errors import LayerError
from .graph import Layer
from .keras_applications import plain
from .keras_runtime import load_keras

POOLS = "avg, max, gridN, map, cls"


@dataclass(frozen=True, order=True)
class Tap:
    """One layer and how its output becomes a row."""

    layer: str
    pool: str

    def __str__(self) -> str:
        return f"{self.layer}:{self.pool}"


def default_pool(shape: Sequence[int]) -> str:
    """`avg` for maps and tokens, `map` for outputs that are rows already."""
    return "avg" if len(shape) in {2, 3} else "map"


def row_shape(tap: Tap, shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of one stored row, for a layer of output `shape` (H, W, C), (tokens, C) or (C,); raises `LayerError`."""
    grid = _grid(tap.pool)
    if tap.pool == "map":
        return tuple(shape)
    if (len(shape) == 3 and tap.pool in {"avg", "max"}) or (len(shape) == 2 and tap.pool in {"avg", "max", "cls"}):
        return (shape[-1],)
    if len(shape) == 3 and grid:
        if grid > min(shape[:2]):
            raise LayerError(
                f"tap {tap}: a grid of {grid}x{grid} needs a map at least that large, found {shape[0]}x{shape[1]}; "
                "use a smaller grid or larger images"
            )
        return (grid * grid * shape[-1],)
    kind = {1: "a row", 2: "tokens", 3: "a map"}.get(len(shape), "neither a map nor tokens")
    raise LayerError(f"tap {tap}: the output of {tap.layer} is {kind} of shape {tuple(shape)}, which has no pool {tap.pool}")


def row_bytes(tap: Tap, shape: Sequence[int]) -> int:
    """Bytes of one stored row: half precision for maps, float32 for the rest."""
    return math.prod(row_shape(tap, shape)) * (2 if tap.pool == "map" else 4)


def apply(tensor: Any, tap: Tap) -> Any:
    """Keras tensor of rows (batch, *row_shape) from a layer's output; pooling is done in float32 whatever comes in."""
    layers = load_keras().layers
    shape = tuple(tensor.shape[1:])
    row_shape(tap, shape)
    name = "humeris_" + re.sub(r"[^A-Za-z0-9_]", "_", str(tap))
    grid = _grid(tap.pool)
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


def resolve(patterns: Iterable[str], layers: Sequence[Layer], defaults: Sequence[str], pools: Sequence[str]) -> list[Tap]:
    """The taps that `patterns` (`LAYER`, `LAYER:POOL`, globs) name among `layers`, by depth.

    Without patterns the `defaults` are taken. A pattern without a pool takes each of `pools`, or the layer's default one.
    A layer is found whichever way it is commonly written; raises `LayerError` with the closest names.
    """
    found: dict[Tap, None] = {}
    by_name = {layer.name: layer for layer in layers}
    for pattern in list(patterns) or list(defaults):
        name, colon, pool = pattern.rpartition(":")
        if not colon:
            name, pool = pattern, ""
        elif not _is_pool(pool):
            raise LayerError(f"tap {pattern!r}: expected a pool {POOLS}, found {pool!r}")
        for match in _match(name, list(by_name)):
            shape = by_name[match].shape
            for chosen in [pool] if pool else pools or [default_pool(shape)]:
                if not _is_pool(chosen):
                    raise LayerError(f"expected a pool {POOLS}, found {chosen!r}")
                tap = Tap(match, chosen)
                row_shape(tap, shape)
                found[tap] = None
    order = {layer.name: number for number, layer in enumerate(layers)}
    return sorted(found, key=lambda tap: (order[tap.layer], tap.pool))


def matches(pattern: str, tap: Tap) -> bool:
    """Whether a pattern (`mixed*`, `mixed_5:avg`) names this tap."""
    name, colon, pool = pattern.rpartition(":")
    if not colon:
        name, pool = pattern, ""
    return pool in {"", tap.pool} and bool(_among(name, [tap.layer]))


def closest(name: str, names: Sequence[str]) -> list[str]:
    """Up to five of `names` that resemble `name`, else the last three."""
    close = difflib.get_close_matches(plain(name), [plain(item) for item in names], n=5, cutoff=0.4)
    return [item for item in names if plain(item) in close][:5] or list(names[-3:])


def _among(name: str, names: Sequence[str]) -> list[str]:
    if name in names:
        return [name]
    if any(sign in name for sign in "*?["):
        exact = [item for item in names if fnmatch.fnmatchcase(item, name)]
        loose = "".join(part if part in "*?" else plain(part) for part in re.split(r"([*?])", name))
        return exact or [item for item in names if fnmatch.fnmatchcase(plain(item), loose)]
    return [item for item in names if plain(item) == plain(name)]


def _match(name: str, names: Sequence[str]) -> list[str]:
    found = _among(name, names)
    if len(found) > 1 and not any(sign in name for sign in "*?["):
        raise LayerError(f"layer {name!r}: expected one layer, found {', '.join(found)}; write it as it stands there")
    if not found:
        raise LayerError(
            f"layer {name!r}: expected one of the network's {len(names)} layers, found none; "
            f"closest: {', '.join(closest(name, names))}; `humeris layers` lists them all"
        )
    return found


def _is_pool(pool: str) -> bool:
    return pool in {"avg", "max", "map", "cls"} or bool(_grid(pool))


def _grid(pool: str) -> int:
    match = re.fullmatch(r"grid([1-9]\d?)", pool)
    return int(match[1]) if match else 0
