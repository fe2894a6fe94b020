"""One immutable HDF5 file of rows: made in memory, named by its digest, checked before HDF5 parses it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

NAME = re.compile(r"[0-9a-f]{64}\.h5")
_DATASETS = {"features", "keys", "views"}
_MAX_ATTRIBUTES = 16


class Damaged(Exception):
    """A file that must not be served; the text is the reason."""


class Unreadable(Damaged):
    """A file that could not be read this time; it may be sound."""


def as_keys(digests: list[bytes]) -> np.ndarray:
    """Array (n,) of 32-byte strings that NumPy can sort and compare.

    Take bytes back out with `.tobytes()`: indexing one element strips its trailing zero bytes.
    """
    return np.frombuffer(b"".join(digests), dtype="S32")


def encode(features: np.ndarray, keys: np.ndarray, views: np.ndarray, attributes: Mapping[str, Any]) -> bytes:
    """Bytes of a shard: `features` (n, ...), `keys` (n, 32) uint8, `views` (n,) uint16, contiguous.

    h5py writes into memory, never into a file: on a full disk HDF5 crashes the process (h5py issue 914).
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        file.create_dataset("features", data=np.ascontiguousarray(features))
        file.create_dataset("keys", data=np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 32))
        file.create_dataset("views", data=np.ascontiguousarray(views, dtype=np.uint16))
        file.attrs["attributes"] = json.dumps(dict(attributes), sort_keys=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Shard:
    """Where the rows of one verified file lie; holds no open file (1,500 shards need no 1,500 descriptors).

    keys (n,) S32; views (n,) uint16; `offset` is the byte where the contiguous rows begin.
    """

    path: Path
    keys: np.ndarray
    views: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    size: int

    def rows(self) -> np.ndarray:
        """The rows (n, ...) as a read-only memory map."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)


def check_digest(path: Path) -> None:
    """Raise `Damaged` unless the file's sha-256 is its name."""
    try:
        with path.open("rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    if digest != path.stem:
        raise Damaged("its bytes do not match its digest")


def load(path: Path, identity: Mapping[str, Any]) -> Shard:
    """The shard at `path`, audited, if its attributes include all of `identity`; raises `Damaged`.

    A digest proves only that nobody changed the file since it was named. The audit refuses what a hostile file can do
    inside HDF5: links and storage outside the file, virtual data sets, filters that load code, sizes that are not there.
    """
    try:
        size = path.stat().st_size
        with h5py.File(path, "r", locking=False) as file:
            return _audit(path, size, file, identity)
    except OSError as error:
        if error.errno is not None:
            raise Unreadable(f"cannot be read: {error.strerror}") from error
        raise Damaged(f"not a shard: {error}") from error
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise Damaged(f"not a shard: {error}") from error


def _audit(path: Path, size: int, file: h5py.File, identity: Mapping[str, Any]) -> Shard:
    if len(file.attrs) > _MAX_ATTRIBUTES or set(file) != _DATASETS:
        raise Damaged(f"expected the data sets {sorted(_DATASETS)}")
    for name in _DATASETS:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise Damaged(f"{name} is a link")
        if not isinstance(dataset := file[name], h5py.Dataset):
            raise Damaged(f"{name} is not a data set")
        properties = dataset.id.get_create_plist()
        if dataset.is_virtual or dataset.external or properties.get_nfilters():
            raise Damaged(f"{name} is virtual, external or filtered")
        if dataset.dtype.kind not in "fu" or dataset.nbytes > size or dataset.id.get_offset() is None:
            raise Damaged(f"{name} is not a contiguous array of numbers inside the file")
    attributes = json.loads(file.attrs["attributes"])
    if not isinstance(attributes, dict) or any(attributes.get(name) != value for name, value in identity.items()):
        raise Damaged("it belongs to another extraction, layer or pool")
    features, keys, views = file["features"], file["keys"], file["views"]
    count = len(features)
    if features.ndim < 2 or keys.shape != (count, 32) or views.shape != (count,) or count == 0:
        raise Damaged("the shapes of features, keys and views do not agree")
    if features.dtype.kind != "f" or keys.dtype != np.uint8 or views.dtype != np.uint16:
        raise Damaged("unexpected dtypes")
    return Shard(
        path=path,
        keys=np.ascontiguousarray(keys[:]).view("S32").reshape(count),
        views=views[:],
        shape=features.shape,
        dtype=features.dtype,
        offset=int(features.id.get_offset()),
        size=size,
    )
