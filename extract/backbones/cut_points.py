"""Where a network can be cut for its upper part to be trained: what `--from` names."""

from __future__ import annotations

from collections.abc import Sequence

from ...cache.errors import LayerError
from .graph import Layer
from .tap_patterns import resolve_taps
from .taps import Tap

INPUT = "input"


def find_cut(text: str, layers: Sequence[Layer], head_taps: Sequence[Tap]) -> Layer | None:
    """The layer at which a network is cut, so that what lies above it is trained.

    Parameters
    ----------
    text : str
        Its name in any common spelling, or `INPUT` for the whole network.
    layers : sequence of Layer
        Of the network, in the order of computation.
    head_taps : sequence of Tap
        The taps that the head takes.

    Returns
    -------
    Layer or None
        None for the whole network.

    Raises
    ------
    LayerError
        For a layer at or above one of the taps, one that skip connections pass by, and one with nothing to train above it.
    """
    if text == INPUT:
        return None
    tap, *other_taps = resolve_taps([text], layers, [], ["map"])
    if other_taps:
        raise LayerError(
            f"--from {text}: expected one layer, found {len(other_taps) + 1}; name one of "
            f"{_name_nearest_cuts(layers, head_taps)}"
        )
    if tap.pool != "map":
        raise LayerError(
            f"--from {text}: expected a layer, whose whole output is cached, found the pool {tap.pool}; leave it out"
        )
    order = {layer.name: number for number, layer in enumerate(layers)}
    index, lowest_tap = order[tap.layer], min(head_taps, key=lambda head_tap: order[head_tap.layer])
    if index >= order[lowest_tap.layer]:
        raise LayerError(
            f"--from {text}: expected a layer below the run's tap {lowest_tap}, found one that is not; "
            f"the nearest are {_name_nearest_cuts(layers, head_taps)}"
        )
    if not layers[index].is_cut_point:
        raise LayerError(
            f"--from {text}: expected a layer that all of the network above depends on, found one that skip connections "
            f"pass by; the nearest valid cuts are {_name_nearest_cuts(layers, head_taps, index)}"
        )
    if layers[index].parameters == layers[order[lowest_tap.layer]].parameters:
        raise LayerError(
            f"--from {text}: expected a layer with something to train between it and the tap {lowest_tap}, found none; "
            f"the nearest are {_name_nearest_cuts(layers, head_taps)}"
        )
    return layers[index]


def list_cuts(layers: Sequence[Layer], head_taps: Sequence[Tap]) -> list[Layer]:
    """The layers at which a network can be cut below every one of the taps, with something to train above them.

    Parameters
    ----------
    layers : sequence of Layer
        Of the network, in the order of computation.
    head_taps : sequence of Tap
        The taps that the head takes.

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


def _name_nearest_cuts(layers: Sequence[Layer], head_taps: Sequence[Tap], index: int | None = None) -> str:
    """The valid cuts nearest to a place, one on either side, or the last two; after a finished step where there are any."""
    valid = list_cuts(layers, head_taps)
    valid = [layer for layer in valid if layer.is_block_end] or valid
    if not valid:
        return "none; give --from input"
    order = {layer.name: number for number, layer in enumerate(layers)}
    below = [layer.name for layer in valid if index is None or order[layer.name] < index]
    above = [layer.name for layer in valid if index is not None and order[layer.name] > index]
    return " and ".join([*below[-2 if index is None else -1 :], *above[:1]])
