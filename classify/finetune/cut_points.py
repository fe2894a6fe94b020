"""Where a network can be cut for its upper part to be trained: what `--from` names."""

from __future__ import annotations

from collections.abc import Sequence

from ...cache.errors import LayerError
from ...extract.backbones import taps
from ...extract.backbones.graph import Layer
from ...extract.backbones.taps import Tap

INPUT = "input"


def find(text: str, layers: Sequence[Layer], wanted: Sequence[Tap]) -> Layer | None:
    """The layer whose output the layers above are trained on, written in any common spelling; None for the whole network.

    layers: of the network, in the order of computation. wanted: the taps that the head takes. Raises `LayerError` for a
    layer at or above one of them, one that skip connections pass by, and one with nothing to train above it.
    """
    if text == INPUT:
        return None
    tap, *others = taps.resolve([text], layers, [], ["map"])
    if others:
        raise LayerError(f"--from {text}: expected one layer, found {len(others) + 1}; name one of {_names(layers, wanted)}")
    if tap.pool != "map":
        raise LayerError(
            f"--from {text}: expected a layer, whose whole output is cached, found the pool {tap.pool}; leave it out"
        )
    order = {layer.name: number for number, layer in enumerate(layers)}
    place, lowest = order[tap.layer], min(wanted, key=lambda each: order[each.layer])
    if place >= order[lowest.layer]:
        raise LayerError(
            f"--from {text}: expected a layer below the run's tap {lowest}, found one that is not; "
            f"the nearest are {_names(layers, wanted)}"
        )
    if not layers[place].cut:
        raise LayerError(
            f"--from {text}: expected a layer that all of the network above depends on, found one that skip connections "
            f"pass by; the nearest valid cuts are {_names(layers, wanted, place)}"
        )
    if layers[place].parameters is not None and layers[place].parameters == layers[order[lowest.layer]].parameters:
        raise LayerError(
            f"--from {text}: expected a layer with something to train between it and the tap {lowest}, found none; "
            f"the nearest are {_names(layers, wanted)}"
        )
    return layers[place]


def cuts(layers: Sequence[Layer], wanted: Sequence[Tap]) -> list[Layer]:
    """The layers at which the network can be cut below every one of the taps, with something to train above them."""
    order = {layer.name: number for number, layer in enumerate(layers)}
    top = min(order[tap.layer] for tap in wanted)
    return [
        layer
        for layer in layers[:top]
        if layer.cut and (layer.parameters is None or layer.parameters != layers[top].parameters)
    ]


def _names(layers: Sequence[Layer], wanted: Sequence[Tap], place: int | None = None) -> str:
    """The valid cuts nearest to a place, one on either side, or the last two; after a finished step where there are any."""
    valid = cuts(layers, wanted)
    valid = [layer for layer in valid if layer.finished] or valid
    if not valid:
        return "none; give --from input"
    order = {layer.name: number for number, layer in enumerate(layers)}
    below = [layer.name for layer in valid if place is None or order[layer.name] < place]
    above = [layer.name for layer in valid if place is not None and order[layer.name] > place]
    return " and ".join([*below[-2 if place is None else -1 :], *above[:1]])
