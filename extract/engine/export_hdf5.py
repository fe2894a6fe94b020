"""One portable HDF5 file of a dataset's features: a dataset per tap, readable with h5py alone."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ... import __version__
from ...cache.atomic_files import get_free_bytes, sync_folder, translate_write_errors
from ...cache.errors import CacheFull, DataError
from ...cache.safe_hdf5_writer import SafeHdf5Writer
from ...cache.store import Store
from ..backbones.backbone_spec import BackboneSpec
from ..backbones.metadata import get_or_build
from ..backbones.tap_patterns import resolve_taps
from ..images.images import Images

_BLOCK = 256


@dataclass(frozen=True)
class ExportHdf5Result:
    """A written file: its taps, rows and size."""

    path: Path
    taps: list[str]
    images: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"path": str(self.path), "taps": self.taps, "images": self.images, "bytes": self.bytes}


def export_hdf5(
    images: Images, backbone_spec: BackboneSpec, patterns: Sequence[str], store: Store, out: Path, pools: Sequence[str] = ()
) -> ExportHdf5Result:
    """Write `out`: a dataset `<layer>.<pool>` (n, ...) per cached tap, and what each row is.

    `labels` (n,) class numbers (-1 where there is none), `split` (n,), `paths` (n,) and, if there are any, `groups` (n,)
    text, `keys` (n, 32) uint8; and `classes`, the class names. Attributes repeat the spec, as JSON in `spec` too, and say
    in `data` where the images are. `feature_file` reads it. Without patterns every tap is written that holds all
    images. Raises `DataError`, `RowsMissing` and `CacheFull`.
    """
    metadata, _ = get_or_build(backbone_spec, store.kv_store)
    extraction = store.get_extraction(metadata.spec)
    cached_features = [features for features in extraction.list_taps() if not features.find_missing(images.keys).any()]
    if patterns or pools:
        cached_features = [
            extraction.get_features(tap.layer, tap.pool)
            for tap in resolve_taps(patterns, metadata.layers, metadata.default_layers, pools)
        ]
    if not cached_features:
        raise DataError(
            f"{store.path}: expected cached features of all {len(images.used)} images for {backbone_spec.title}, found "
            "none; run `humeris extract` on the same data first"
        )
    required_bytes = sum(features.read(images.keys[:1]).nbytes * len(images.used) for features in cached_features)
    if required_bytes > (available_bytes := get_free_bytes(out)):  # asked before hours of writing
        raise CacheFull(
            f"{out}: expected {required_bytes:,} bytes free, found {available_bytes:,}; free some space or write elsewhere"
        )
    temporary_path = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        with translate_write_errors(out, "another place with -o"):
            with SafeHdf5Writer(temporary_path) as target:
                _write(
                    target,
                    images,
                    [(f"{tap_features.layer}.{tap_features.pool}", tap_features) for tap_features in cached_features],
                    metadata.spec.to_dict(),
                )
            target.raise_for_error()
            os.replace(temporary_path, out)
            sync_folder(out.parent)
    finally:
        temporary_path.unlink(missing_ok=True)
    return ExportHdf5Result(
        out,
        [f"{tap_features.layer}:{tap_features.pool}" for tap_features in cached_features],
        len(images.used),
        out.stat().st_size,
    )


def _write(target: SafeHdf5Writer, images: Images, named_features: list[tuple[str, Any]], spec: dict[str, Any]) -> None:
    classes = images.dataset.classes
    class_indices = {name: class_index for class_index, name in enumerate(classes)}
    text_dtype = h5py.string_dtype("utf-8")
    with h5py.File(target, "w") as file:
        file.attrs["humeris"] = __version__
        for name, value in spec.items():
            file.attrs[name] = str(value) if isinstance(value, dict | list) else value
        file.attrs["spec"] = json.dumps(spec)
        file.attrs["data"] = json.dumps(images.source.describe())
        for name, features in named_features:
            first_row = features.read(images.keys[:1])
            dataset = file.create_dataset(name.replace("/", "|"), (len(images.used), *first_row.shape[1:]), first_row.dtype)
            for start in range(0, len(images.used), _BLOCK):
                dataset[start : start + _BLOCK] = features.read(images.keys[start : start + _BLOCK])
                target.raise_for_error()
        file["labels"] = np.array([class_indices.get(label, -1) for label in images.labels], np.int32)
        file["keys"] = images.keys.view(np.uint8).reshape(-1, 32)
        file.create_dataset("classes", data=[_to_utf8(name) for name in classes], dtype=text_dtype)
        file.create_dataset("paths", data=[_to_utf8(image.name) for image in images.used], dtype=text_dtype)
        if any(image.item.group for image in images.used):
            file.create_dataset("groups", data=[_to_utf8(image.item.group or "") for image in images.used], dtype=text_dtype)
        file.create_dataset("split", data=[image.item.split or "" for image in images.used], dtype=text_dtype)


def _to_utf8(name: str) -> str:
    """A name that is not UTF-8 keeps its odd bytes as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
