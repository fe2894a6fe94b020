"""Patterns of taps, such as `mixed_5:avg` or `block*_out`, in any common spelling."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

from ...cache.errors import LayerError
from .graph import Layer
from .spelling import normalize_name
from .taps import POOLS, Tap, choose_default_pool, compute_row_shape, is_pool


def resolve_taps(
    patterns: Iterable[str], layers: Sequence[Layer], default_layers: Sequence[str], pools: Sequence[str]
) -> list[Tap]:
    """Return the taps that match patterns.

    Parameters
    ----------
    patterns : iterable of str
        `LAYER`, `LAYER:POOL`, or globs of them, with layers in any common spelling.
    layers : sequence of Layer
        The layers of the network, in the order of computation.
    default_layers : sequence of str
        The patterns to use if `patterns` is empty.
    pools : sequence of str
        The pools to use for a pattern without one; [] for the default pool of the layer.

    Returns
    -------
    list of Tap
        The taps, by depth.

    Raises
    ------
    LayerError
        If a pattern matches no layer (the message lists the closest), or its layer has no such pool.
    """
    taps: dict[Tap, None] = {}
    by_name = {layer.name: layer for layer in layers}
    for pattern in list(patterns) or list(default_layers):
        name, pool = _split_pattern(pattern)
        if ":" in pattern and not is_pool(pool):
            raise LayerError(f"tap {pattern!r}: unknown pool {pool!r}; choose one of {POOLS}")
        for layer_name in _match_names(name, list(by_name)):
            shape = by_name[layer_name].shape
            for chosen_pool in [pool] if pool else pools or [choose_default_pool(shape)]:
                if not is_pool(chosen_pool):
                    raise LayerError(f"unknown pool {chosen_pool!r}; choose one of {POOLS}")
                tap = Tap(layer_name, chosen_pool)
                compute_row_shape(tap, shape)
                taps[tap] = None
    depths = {layer.name: index for index, layer in enumerate(layers)}
    return sorted(taps, key=lambda tap: (depths[tap.layer], tap.pool))


def is_match(pattern: str, tap: Tap) -> bool:
    """Return whether a pattern (`mixed*`, `mixed_5:avg`) matches a tap."""
    name, pool = _split_pattern(pattern)
    return pool in {"", tap.pool} and bool(_find_names(name, [tap.layer]))


def find_closest(name: str, names: Sequence[str]) -> list[str]:
    """Return up to five of `names` that resemble `name`, or else the last three."""
    close_names = difflib.get_close_matches(normalize_name(name), [normalize_name(item) for item in names], n=5, cutoff=0.4)
    return [item for item in names if normalize_name(item) in close_names][:5] or list(names[-3:])


def _split_pattern(pattern: str) -> tuple[str, str]:
    """Return the layer and the pool of a pattern; "" for a missing pool."""
    name, colon, pool = pattern.rpartition(":")
    return (name, pool) if colon else (pattern, "")


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
        raise LayerError(f"layer {name!r}: matches several layers: {', '.join(matched_names)}; give the exact name of one")
    if not matched_names:
        raise LayerError(
            f"layer {name!r}: matches none of the network's {len(names)} layers "
            f"(closest: {', '.join(find_closest(name, names))}); `humeris layers` lists them all"
        )
    return matched_names
