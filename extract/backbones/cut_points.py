"""Cuts: the layers at which a network can be divided, so that the part above can be trained (`--from LAYER`)."""

from __future__ import annotations

from collections.abc import Sequence

from ...cache.errors import LayerError
from .graph import Layer
from .tap_patterns import resolve_taps
from .taps import Tap

INPUT = "input"


def find_cut(text: str, layers: Sequence[Layer], head_taps: Sequence[Tap]) -> Layer | None:
    """Return the layer at which to cut a network, so that the part above it is trained.

    Parameters
    ----------
    text : str
        The name of the layer in any common spelling, or `INPUT` for the whole network.
    layers : sequence of Layer
        The layers of the network, in the order of computation.
    head_taps : sequence of Tap
        The taps that the head is trained on.

    Returns
    -------
    Layer or None
        None for the whole network.

    Raises
    ------
    LayerError
        For a layer that is at or above one of the taps, is bypassed by skip connections, or has no weights above it.
    """
    if text == INPUT:
        return None
    tap, *other_taps = resolve_taps([text], layers, [], ["map"])
    if other_taps:
        raise LayerError(f"--from {text}: matches {len(other_taps) + 1} layers, not one; {_suggest_cuts(layers, head_taps)}")
    if tap.pool != "map":
        raise LayerError(
            f"--from {text}: a cut has no pool, because the whole output of the layer is cached; leave out :{tap.pool}"
        )
    order = {layer.name: number for number, layer in enumerate(layers)}
    index, lowest_tap = order[tap.layer], min(head_taps, key=lambda head_tap: order[head_tap.layer])
    if index >= order[lowest_tap.layer]:
        raise LayerError(
            f"--from {text}: the layer is not below the run's tap {lowest_tap}; {_suggest_cuts(layers, head_taps)}"
        )
    if not layers[index].is_cut_point:
        raise LayerError(f"--from {text}: skip connections bypass the layer; {_suggest_cuts(layers, head_taps, index)}")
    if layers[index].parameters == layers[order[lowest_tap.layer]].parameters:
        raise LayerError(
            f"--from {text}: no weights to train between the layer and the run's tap {lowest_tap}; "
            f"{_suggest_cuts(layers, head_taps)}"
        )
    return layers[index]


def list_cuts(layers: Sequence[Layer], head_taps: Sequence[Tap]) -> list[Layer]:
    """List the cuts of a network: layers below all of the taps, with weights to train in between.

    Parameters
    ----------
    layers : sequence of Layer
        The layers of the network, in the order of computation.
    head_taps : sequence of Tap
        The taps that the head is trained on.

    Returns
    -------
    list of Layer
        In the order of computation.
    """
    order = {layer.name: number for number, layer in enumerate(layers)}
    lowest_index = min(order[tap.layer] for tap in head_taps)
    return [
        layer
        for layer in layers[:lowest_index]
        if layer.is_cut_point and layer.parameters != layers[lowest_index].parameters
    ]


def _suggest_cuts(layers: Sequence[Layer], head_taps: Sequence[Tap], index: int | None = None) -> str:
    """Return the remedy of an error: the nearest cuts below and above `index`, or the last two; ends of blocks if any."""
    valid = list_cuts(layers, head_taps)
    valid = [layer for layer in valid if layer.is_block_end] or valid
    if not valid:
        return "there is no cut; use --from input"
    order = {layer.name: number for number, layer in enumerate(layers)}
    below = [layer.name for layer in valid if index is None or order[layer.name] < index]
    above = [layer.name for layer in valid if index is not None and order[layer.name] > index]
    return f"use {' or '.join([*below[-2 if index is None else -1 :], *above[:1]])}"
