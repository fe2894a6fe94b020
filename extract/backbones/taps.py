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
from .keras_runtime import load_keras
from .spelling import normalize_name

POOLS = "avg, max, gridN, map, cls"


@dataclass(frozen=True, order=True)
class Tap:
    """One layer and how its output becomes a row."""

    layer: str
    pool: str

    def __str__(self) -> str:
        return f"{self.layer}:{self.pool}"


def choose_default_pool(shape: Sequence[int]) -> str:
    """`avg` for maps and tokens, `map` for outputs that are rows already."""
    return "avg" if len(shape) in {2, 3} else "map"


def compute_row_shape(tap: Tap, shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of one stored row, for a layer of output `shape` (H, W, C), (tokens, C) or (C,); raises `LayerError`."""
    grid = _parse_grid(tap.pool)
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


def compute_row_bytes(tap: Tap, shape: Sequence[int]) -> int:
    """Bytes of one stored row: half precision for maps, float32 for the rest."""
    return math.prod(compute_row_shape(tap, shape)) * (2 if tap.pool == "map" else 4)


def apply(tensor: Any, tap: Tap) -> Any:
    """Keras tensor of rows (batch, *row_shape) from a layer's output; pooling is done in float32 whatever comes in."""
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


def resolve_taps(
    patterns: Iterable[str], layers: Sequence[Layer], default_layers: Sequence[str], pools: Sequence[str]
) -> list[Tap]:
    """The taps that `patterns` (`LAYER`, `LAYER:POOL`, globs) name among `layers`, by depth.

    Without patterns the `default_layers` are taken. A pattern without a pool takes each of `pools`, or the layer's default
    one. A layer is found whichever way it is commonly written; raises `LayerError` with the closest names.
    """
    taps: dict[Tap, None] = {}
    by_name = {layer.name: layer for layer in layers}
    for pattern in list(patterns) or list(default_layers):
        name, colon, pool = pattern.rpartition(":")
        if not colon:
            name, pool = pattern, ""
        elif not _is_pool(pool):
            raise LayerError(f"tap {pattern!r}: expected a pool {POOLS}, found {pool!r}")
        for layer_name in _match_names(name, list(by_name)):
            shape = by_name[layer_name].shape
            for chosen_pool in [pool] if pool else pools or [choose_default_pool(shape)]:
                if not _is_pool(chosen_pool):
                    raise LayerError(f"expected a pool {POOLS}, found {chosen_pool!r}")
                tap = Tap(layer_name, chosen_pool)
                compute_row_shape(tap, shape)
                taps[tap] = None
    depths = {layer.name: index for index, layer in enumerate(layers)}
    return sorted(taps, key=lambda tap: (depths[tap.layer], tap.pool))


def is_match(pattern: str, tap: Tap) -> bool:
    """Whether a pattern (`mixed*`, `mixed_5:avg`) names this tap."""
    name, colon, pool = pattern.rpartition(":")
    if not colon:
        name, pool = pattern, ""
    return pool in {"", tap.pool} and bool(_find_names(name, [tap.layer]))


def find_closest(name: str, names: Sequence[str]) -> list[str]:
    """Up to five of `names` that resemble `name`, else the last three."""
    close_names = difflib.get_close_matches(normalize_name(name), [normalize_name(item) for item in names], n=5, cutoff=0.4)
    return [item for item in names if normalize_name(item) in close_names][:5] or list(names[-3:])


def _find_names(name: str, names: Sequence[str]) -> list[str]:
    if name in names:
        return [name]
    if any(wildcard in name for wildcard in "*?["):
        exact_matches = [item for item in names if fnmatch.fnmatchcase(item, name)]
        loose_pattern = "".join(part if part in "*?" else normalize_name(part) for part in re.split(r"([*?])", name))
        return exact_matches or [item for item in names if fnmatch.fnmatchcase(normalize_name(item), loose_pattern)]
    return [item for item in names if normalize_name(item) == normalize_name(name)]


def _match_names(name: str, names: Sequence[str]) -> list[str]:
    matched_names = _find_names(name, names)
    if len(matched_names) > 1 and not any(wildcard in name for wildcard in "*?["):
        raise LayerError(
            f"layer {name!r}: expected one layer, found {', '.join(matched_names)}; write it as it stands there"
        )
    if not matched_names:
        raise LayerError(
            f"layer {name!r}: expected one of the network's {len(names)} layers, found none; "
            f"closest: {', '.join(find_closest(name, names))}; `humeris layers` lists them all"
        )
    return matched_names


def _is_pool(pool: str) -> bool:
    return pool in {"avg", "max", "map", "cls"} or bool(_parse_grid(pool))


def _parse_grid(pool: str) -> int:
    match = re.fullmatch(r"grid([1-9]\d?)", pool)
    return int(match[1]) if match else 0
