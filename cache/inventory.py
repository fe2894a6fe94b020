"""Inventory and verification of a cache."""

from __future__ import annotations

from collections import Counter
from typing import Any

import h5py
import numpy as np

from .errors import CacheError, CorruptFile, UnreadableFile
from .extraction import Extraction
from .store import Store
from .tap_features import TapFeatures


def build_inventory(store: Store) -> dict[str, Any]:
    """Return every extraction with its taps, rows and bytes, as JSON values."""
    extractions = [_summarize_extraction(extraction) for extraction in store.iter_extractions()]
    return {
        "cache": str(store.path),
        "extractions": extractions,
        "bytes": sum(extraction["bytes"] for extraction in extractions),
        "damaged": [record.to_dict() for record in store.corrupt_files],
    }


def describe_extraction(store: Store, name: str) -> dict[str, Any]:
    """Return one extraction with its spec, given its folder's name or a prefix of it; raises `CacheError`."""
    names = [candidate.path.name for candidate in store.iter_extractions()]
    matches = [candidate for candidate in store.iter_extractions() if candidate.path.name.startswith(name)]
    exact_matches = [candidate for candidate in matches if candidate.path.name == name]
    if len(exact_matches or matches) != 1:
        raise CacheError(
            f"{store.path}: {name!r} does not name one extraction: {len(matches)} begin with it; "
            f"give one of: {', '.join(names) or 'none'}"
        )
    extraction = (exact_matches or matches)[0]
    return {**_summarize_extraction(extraction), "spec": extraction.spec.to_dict(), "path": str(extraction.path)}


def verify(store: Store) -> dict[str, Any]:
    """Read every shard again, check its digest and structure; quarantine and list those that fail."""
    store.verifier.forget()
    n_shards = size = n_not_finite = 0
    rows_by_storage: Counter[str] = Counter()
    rows_by_view: Counter[int] = Counter()
    for shard in (
        shard for extraction in store.iter_extractions() for tap in extraction.list_taps() for shard in tap.list_shards()
    ):
        try:
            is_finite = np.isfinite(shard.read_rows()).reshape(len(shard.keys), -1).all(axis=1)
        except FileNotFoundError:  # pruned meanwhile
            continue
        except CorruptFile as corruption:
            store.verifier.quarantine(shard.path, str(corruption), rename=not isinstance(corruption, UnreadableFile))
            continue
        n_shards, size, n_not_finite = n_shards + 1, size + shard.size, n_not_finite + int((~is_finite).sum())
        rows_by_storage[f"{shard.stored_dtype}, {shard.layout.compression}"] += len(shard.keys)
        rows_by_view.update(shard.views.tolist())
    quarantined_paths = [str(path) for path in sorted(store.path.glob("features/*/*/*.corrupt"))]
    return {
        "cache": str(store.path),
        "shards": n_shards,
        "rows": rows_by_view.total(),
        "rows_by_view": {str(view): rows_by_view[view] for view in sorted(rows_by_view)},
        "rows_by_dtype_and_compression": dict(sorted(rows_by_storage.items())),
        "bytes": size,
        "rows_not_finite": n_not_finite,
        "damaged": [corruption.to_dict() for corruption in store.corrupt_files],
        "set_aside": quarantined_paths,
        "hdf5": h5py.version.hdf5_version,
    }


def _summarize_extraction(extraction: Extraction) -> dict[str, Any]:
    taps = [_summarize_tap(features) for features in extraction.list_taps()]
    return {
        "extraction": extraction.path.name,
        "backbone": extraction.spec.title,
        "image_size": list(extraction.spec.image_size),
        "precision": extraction.spec.precision,
        "views": extraction.spec.views,
        "taps": taps,
        "bytes": sum(tap["bytes"] for tap in taps),
    }


def _summarize_tap(features: TapFeatures) -> dict[str, Any]:
    shards = features.list_shards()
    keys = np.concatenate([shard.keys for shard in shards]) if shards else np.zeros(0, "S32")
    views = np.concatenate([shard.views for shard in shards]) if shards else np.zeros(0, np.uint16)
    view_numbers = np.unique(views).tolist()
    return {
        "tap": f"{features.layer}:{features.pool}",
        "images": len(np.unique(keys)),
        "views": view_numbers,
        "rows": sum(len(np.unique(keys[views == view])) for view in view_numbers),
        "shards": len(shards),
        "shape": list(shards[0].shape[1:]) if shards else [],
        "dtypes": sorted({shard.stored_dtype for shard in shards}),
        "compression": sorted({shard.layout.compression for shard in shards}),
        "bytes": sum(shard.size for shard in shards),
    }
