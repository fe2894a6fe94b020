"""The layers of a backbone with the cost of tapping each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...cache.store import Store
from .backbone_spec import BackboneSpec
from .metadata import get_or_build
from .taps import Tap, choose_default_pool, compute_row_bytes, compute_row_shape


def describe_layers(backbone_spec: BackboneSpec, store: Store, pools: Sequence[str] = ()) -> dict[str, Any]:
    """Return the table that `humeris layers` prints.

    Parameters
    ----------
    backbone_spec : BackboneSpec
        The backbone, which is built unless the cache has its metadata.
    store : Store
        The cache.
    pools : sequence of str
        The pools to list; `avg`, `grid2` and `map` by default. Pools that a layer does not have are left out.

    Returns
    -------
    dict
        JSON values: the backbone, and for each layer its kind, output shape, bytes per image and pool, and the share of the
        network's cost up to it.
    """
    metadata, _ = get_or_build(backbone_spec, store.kv_store)
    total = max((layer.cost for layer in metadata.layers), default=0) or 1
    entries = []
    for layer in metadata.layers:
        bytes_by_pool = {}
        for pool in pools or dict.fromkeys([choose_default_pool(layer.shape), "grid2", "map"]):
            try:
                compute_row_shape(Tap(layer.name, pool), layer.shape)
            except LookupError:
                continue
            bytes_by_pool[pool] = compute_row_bytes(Tap(layer.name, pool), layer.shape)
        entries.append(
            {
                "layer": layer.name,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "bytes_per_image": bytes_by_pool,
                "share_of_cost": round(layer.cost / total, 4),
                "default": layer.name in metadata.default_layers,
                "is_cut_point": layer.is_cut_point,
            }
        )
    return {
        "backbone": metadata.spec.title,
        "image_size": list(metadata.spec.image_size),
        "preprocessing": metadata.spec.preprocessing,
        "multiply_adds": total,
        "layers": entries,
    }
