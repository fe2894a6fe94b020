"""A backbone's layers with what each would cost to tap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...cache.store import Store
from .backbone_spec import Request
from .metadata import look_up
from .taps import Tap, default_pool, row_bytes, row_shape


def describe(request: Request, store: Store, pools: Sequence[str] = ()) -> dict[str, Any]:
    """Each layer's kind, output shape, row bytes per pool, and share of the forward cost up to it, as JSON values.

    The pools are `avg`, `grid2` and `map` unless others are asked for; a layer lists those that it has.
    """
    card, _ = look_up(request, store.memo)
    total = max((layer.cost for layer in card.layers), default=0) or 1
    listed = []
    for layer in card.layers:
        sizes = {}
        for pool in pools or dict.fromkeys([default_pool(layer.shape), "grid2", "map"]):
            try:
                row_shape(Tap(layer.name, pool), layer.shape)
            except LookupError:
                continue
            sizes[pool] = row_bytes(Tap(layer.name, pool), layer.shape)
        listed.append(
            {
                "layer": layer.name,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "bytes_per_image": sizes,
                "share_of_cost": round(layer.cost / total, 4),
                "default": layer.name in card.defaults,
                "cut": layer.cut,
            }
        )
    return {
        "backbone": card.spec.title,
        "image_size": list(card.spec.image_size),
        "preprocessing": card.spec.preprocessing,
        "multiply_adds": total,
        "layers": listed,
    }
