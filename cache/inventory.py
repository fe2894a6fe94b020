"""What a cache holds, and whether all of it is sound."""

from __future__ import annotations

from collections import Counter
from typing import Any

import h5py
import numpy as np

from .errors import CacheError, Damaged, Unreadable
from .extraction import Extraction
from .store import Store
from .tap_features import Features


def inventory(store: Store) -> dict[str, Any]:
    """Every extraction with its taps, rows and bytes, as JSON values."""
    found = [_extraction(each) for each in store.extractions()]
    return {
        "cache": str(store.path),
        "extractions": found,
        "bytes": sum(each["bytes"] for each in found),
        "damaged": [damage.to_dict() for damage in store.damaged],
    }


def info(store: Store, name: str) -> dict[str, Any]:
    """One extraction, named by its folder or the beginning of it, with its spec; raises `CacheError`."""
    names = [each.path.name for each in store.extractions()]
    chosen = [each for each in store.extractions() if each.path.name.startswith(name)]
    exact = [each for each in chosen if each.path.name == name]
    if len(exact or chosen) != 1:
        raise CacheError(
            f"{store.path}: expected the name of one extraction, found {len(chosen)} that begin with {name!r}; "
            f"there are: {', '.join(names) or 'none'}"
        )
    extraction = (exact or chosen)[0]
    return {**_extraction(extraction), "spec": extraction.spec.to_dict(), "path": str(extraction.path)}


def verify(store: Store) -> dict[str, Any]:
    """Read every shard anew, check its digest and its structure; what fails is set aside and listed."""
    store.trust.forget()
    shards = size = not_finite = 0
    stored: Counter[str] = Counter()
    views: Counter[int] = Counter()
    for item in (item for extraction in store.extractions() for tap in extraction.taps() for item in tap.shards()):
        try:
            finite = np.isfinite(item.rows()).reshape(len(item.keys), -1).all(axis=1)
        except FileNotFoundError:  # pruned meanwhile
            continue
        except Damaged as damage:
            store.trust.refuse(item.path, str(damage), aside=not isinstance(damage, Unreadable))
            continue
        shards, size, not_finite = shards + 1, size + item.size, not_finite + int((~finite).sum())
        stored[f"{item.stored}, {item.layout.compression}"] += len(item.keys)
        views.update(item.views.tolist())
    aside = [str(path) for path in sorted(store.path.glob("features/*/*/*.damaged"))]
    return {
        "cache": str(store.path),
        "shards": shards,
        "rows": views.total(),
        "rows_by_view": {str(number): views[number] for number in sorted(views)},
        "rows_by_dtype_and_compression": dict(sorted(stored.items())),
        "bytes": size,
        "rows_not_finite": not_finite,
        "damaged": [damage.to_dict() for damage in store.damaged],
        "set_aside": aside,
        "hdf5": h5py.version.hdf5_version,
    }


def _extraction(extraction: Extraction) -> dict[str, Any]:
    listed = [_tap(features) for features in extraction.taps()]
    return {
        "extraction": extraction.path.name,
        "backbone": extraction.spec.title,
        "image_size": list(extraction.spec.image_size),
        "precision": extraction.spec.precision,
        "views": extraction.spec.views,
        "taps": listed,
        "bytes": sum(each["bytes"] for each in listed),
    }


def _tap(features: Features) -> dict[str, Any]:
    shards = features.shards()
    keys = np.concatenate([item.keys for item in shards]) if shards else np.zeros(0, "S32")
    views = np.concatenate([item.views for item in shards]) if shards else np.zeros(0, np.uint16)
    numbers = np.unique(views).tolist()
    return {
        "tap": f"{features.layer}:{features.pool}",
        "images": len(np.unique(keys)),
        "views": numbers,
        "rows": sum(len(np.unique(keys[views == number])) for number in numbers),
        "shards": len(shards),
        "shape": list(shards[0].shape[1:]) if shards else [],
        "dtypes": sorted({item.stored for item in shards}),
        "compression": sorted({item.layout.compression for item in shards}),
        "bytes": sum(item.size for item in shards),
    }
