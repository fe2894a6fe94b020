"""Export features to one portable HDF5 file with a data set per tap, readable with h5py alone."""

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
from ..images.feature_file import FORMAT_VERSION
from ..images.images import Images

_BLOCK = 256


@dataclass(frozen=True)
class ExportHdf5Result:
    """The written file: its path, taps, number of images (rows) and size in bytes."""

    path: Path
    taps: list[str]
    images: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {"path": str(self.path), "taps": self.taps, "images": self.images, "bytes": self.bytes}


def export_hdf5(
    images: Images, backbone_spec: BackboneSpec, patterns: Sequence[str], store: Store, out: Path, pools: Sequence[str] = ()
) -> ExportHdf5Result:
    """Write cached features to an HDF5 file.

    The file has a data set `<layer>.<pool>` (n, ...) for each tap; `labels` (n,), class numbers or -1; `split`, `paths` and,
    if any image has one, `groups` (n,), text; `keys` (n, 32) uint8; and `classes`, the class names. The attributes hold the
    format version (`format`), the fields of the spec, the spec as JSON (`spec`), and the description of the image source as
    JSON (`data`). `FeatureFile` reads it.

    Parameters
    ----------
    images : Images
        The n images.
    backbone_spec : BackboneSpec
        The backbone.
    patterns : sequence of str
        The taps, as for `resolve_taps`; by default all taps that are cached for all images.
    store : Store
        The cache.
    out : Path
        The file, which is replaced atomically.
    pools : sequence of str
        The pools of patterns without one.

    Returns
    -------
    ExportHdf5Result
        The written file.

    Raises
    ------
    DataError
        If no tap is cached for all images.
    RowsMissing
        If a requested tap is not cached for all images.
    CacheFull
        If the disk is too small for the file.
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
            f"{store.path}: no tap of {backbone_spec.title} is cached for all {len(images.used)} images; "
            "run `humeris extract` on the same data first"
        )
    required_bytes = sum(features.read(images.keys[:1]).nbytes * len(images.used) for features in cached_features)
    if required_bytes > (available_bytes := get_free_bytes(out)):  # fail before writing, which can take hours
        raise CacheFull(
            f"{out}: not enough disk space ({required_bytes:,} bytes needed, {available_bytes:,} free); "
            "free some space, or give another place with -o"
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
        file.attrs["humeris"], file.attrs["format"] = __version__, FORMAT_VERSION
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
    """Return a name with the bytes that are not UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()
