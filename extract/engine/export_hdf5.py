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
from ...cache.atomic_files import free_bytes, sync_folder, write_errors
from ...cache.errors import CacheFull, DataError
from ...cache.safe_hdf5_writer import Draft
from ...cache.store import Store
from ..backbones.backbone_spec import Request
from ..backbones.metadata import look_up
from ..backbones.taps import resolve
from ..images.load import Images

_BLOCK = 256


@dataclass(frozen=True)
class Portable:
    """A written file: its taps, rows and size."""

    path: Path
    taps: list[str]
    images: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"path": str(self.path), "taps": self.taps, "images": self.images, "bytes": self.bytes}


def export(
    images: Images, request: Request, patterns: Sequence[str], store: Store, out: Path, pools: Sequence[str] = ()
) -> Portable:
    """Write `out`: a dataset `<layer>.<pool>` (n, ...) per cached tap, and what each row is.

    `labels` (n,) class numbers (-1 where there is none), `split` (n,), `paths` (n,) and, if there are any, `groups` (n,)
    text, `keys` (n, 32) uint8; and `classes`, the class names. Attributes repeat the spec, as JSON in `spec` too, and say
    in `data` where the images are. `feature_file` reads it. Without patterns every tap is written that holds all
    images. Raises `DataError`, `RowsMissing` and `CacheFull`.
    """
    card, _ = look_up(request, store.memo)
    extraction = store.extraction(card.spec)
    stored = [features for features in extraction.taps() if not features.missing(images.keys).any()]
    if patterns or pools:
        stored = [extraction.features(tap.layer, tap.pool) for tap in resolve(patterns, card.layers, card.defaults, pools)]
    if not stored:
        raise DataError(
            f"{store.path}: expected cached features of all {len(images.used)} images for {request.title}, found none; "
            "run `humeris extract` on the same data first"
        )
    needed = sum(features.read(images.keys[:1]).nbytes * len(images.used) for features in stored)
    if needed > (free := free_bytes(out)):  # asked before hours of writing
        raise CacheFull(f"{out}: expected {needed:,} bytes free, found {free:,}; free some space or write elsewhere")
    draft = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        with write_errors(out, "another place with -o"):
            with Draft(draft) as target:
                _write(target, images, [(f"{each.layer}.{each.pool}", each) for each in stored], card.spec.to_dict())
            target.check()
            os.replace(draft, out)
            sync_folder(out.parent)
    finally:
        draft.unlink(missing_ok=True)
    return Portable(out, [f"{each.layer}:{each.pool}" for each in stored], len(images.used), out.stat().st_size)


def _write(target: Draft, images: Images, stored: list[tuple[str, Any]], spec: dict[str, Any]) -> None:
    classes = images.dataset.classes
    numbers = {name: number for number, name in enumerate(classes)}
    text = h5py.string_dtype("utf-8")
    with h5py.File(target, "w") as file:
        file.attrs["humeris"] = __version__
        for name, value in spec.items():
            file.attrs[name] = str(value) if isinstance(value, dict | list) else value
        file.attrs["spec"] = json.dumps(spec)
        summary = images.summary()
        file.attrs["data"] = json.dumps({name: summary[name] for name in ("kind", "root", "source")})
        for name, features in stored:
            first = features.read(images.keys[:1])
            dataset = file.create_dataset(name.replace("/", "|"), (len(images.used), *first.shape[1:]), first.dtype)
            for start in range(0, len(images.used), _BLOCK):
                dataset[start : start + _BLOCK] = features.read(images.keys[start : start + _BLOCK])
                target.check()
        file["labels"] = np.array([numbers.get(label, -1) for label in images.labels], np.int32)
        file["keys"] = images.keys.view(np.uint8).reshape(-1, 32)
        file.create_dataset("classes", data=[_utf8(name) for name in classes], dtype=text)
        file.create_dataset("paths", data=[_utf8(image.name) for image in images.used], dtype=text)
        if any(image.item.group for image in images.used):
            file.create_dataset("groups", data=[_utf8(image.item.group or "") for image in images.used], dtype=text)
        file.create_dataset("split", data=[image.item.split or "" for image in images.used], dtype=text)


def _utf8(name: str) -> str:
    """A name that is not UTF-8 keeps its odd bytes as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
