"""Shards: immutable HDF5 files of rows, encoded in memory, named by digest, verified before HDF5 parses them."""

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

from . import row_reader
from .compression import build_options, detect
from .errors import CorruptFile as CorruptFile
from .errors import UnreadableFile as UnreadableFile
from .row_reader import Layout

NAME = re.compile(r"[0-9a-f]{64}\.h5")
_DATASETS = {"features", "keys", "views"}
_MAX_ATTRIBUTES = 16


def to_keys(digests: list[bytes]) -> np.ndarray:
    """Return digests of 32 bytes as an array (n,) S32, which NumPy can sort and compare.

    Take bytes back out with `.tobytes()`: indexing one element strips its trailing zero bytes.
    """
    return np.frombuffer(b"".join(digests), dtype="S32")


def encode(
    features: np.ndarray,
    keys: np.ndarray,
    views: np.ndarray,
    attributes: Mapping[str, Any],
    compression: str = "none",
) -> bytes:
    """Return the bytes of a shard; equal rows give equal bytes.

    Rows of `bfloat16` are stored as uint16 with an attribute. h5py writes to memory, never to a file: on a full disk HDF5
    crashes the process (h5py issue 914).

    Parameters
    ----------
    features : np.ndarray
        Rows (n, ...).
    keys : np.ndarray
        Image digests (n,) S32.
    views : np.ndarray
        View numbers (n,) uint16.
    attributes : mapping
        JSON values stored with the rows.
    compression : str
        ``none``, ``gzip`` or ``blosc2``.

    Raises
    ------
    CacheError
        If `compression` cannot be used.
    """
    bfloat16 = features.dtype.name == "bfloat16"
    stored = np.ascontiguousarray(features.view(np.uint16) if bfloat16 else features)
    options = build_options(compression, stored)
    buffer = io.BytesIO()
    with _create_timeless_file(buffer) as file:
        dataset = file.create_dataset("features", data=stored, track_times=False, **options)
        if bfloat16:
            dataset.attrs["dtype"] = "bfloat16"
        file.create_dataset("keys", data=np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 32), track_times=False)
        file.create_dataset("views", data=np.ascontiguousarray(views, dtype=np.uint16), track_times=False)
        file.attrs["attributes"] = json.dumps(dict(attributes), sort_keys=True)
    return buffer.getvalue()


def _create_timeless_file(buffer: io.BytesIO) -> h5py.File:
    """Create a file in memory whose root has no timestamps, which h5py's own constructor cannot do."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, buffer)
    return h5py.File(h5py.h5f.create(b"shard", h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access))


@dataclass(frozen=True)
class Shard:
    """One verified shard; holds no open file (1,500 shards need no 1,500 descriptors).

    Parameters
    ----------
    path : Path
        The file.
    keys : np.ndarray
        Image digests (n,) S32.
    views : np.ndarray
        View numbers (n,) uint16.
    layout : Layout
        Layout of the rows in the file.
    size : int
        Size of the file in bytes.
    """

    path: Path
    keys: np.ndarray
    views: np.ndarray
    layout: Layout
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the rows, (n, ...)."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of rows after reading: float32 for bfloat16, which NumPy lacks."""
        return self.layout.read_dtype

    @property
    def stored_dtype(self) -> str:
        """The name of the stored dtype."""
        return "bfloat16" if self.layout.bfloat16 else str(self.layout.dtype)

    def read_rows(self) -> np.ndarray:
        """Return the rows (n, ...), read-only: a memory map, or decoded if compressed or bfloat16."""
        layout = self.layout
        if layout.compression == "none" and not layout.bfloat16:
            return np.memmap(self.path, dtype=layout.dtype, mode="r", offset=layout.offset, shape=layout.shape)
        out = np.empty(layout.shape, layout.read_dtype)
        all_rows = np.arange(len(out))
        row_reader.read(self.path, layout, all_rows, out, all_rows)
        out.flags.writeable = False
        return out


def check_digest(path: Path) -> None:
    """Raise `CorruptFile` unless the file's SHA-256 is its name, `FileNotFoundError` if it is gone."""
    try:
        with path.open("rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableFile(f"cannot be read: {error.strerror}") from error
    if digest != path.stem:
        raise CorruptFile("SHA-256 digest does not match the file name")


def load(path: Path, identity: Mapping[str, Any]) -> Shard:
    """Return the shard at `path` after an audit; raises `CorruptFile` unless its attributes include all of `identity`.

    A digest proves only that the file is unchanged since it was named. The audit rejects what a hostile file can do in
    HDF5: links and storage outside the file, virtual data sets, filters that load code, sizes beyond the file.
    """
    try:
        size = path.stat().st_size
        with h5py.File(path, "r", locking=False) as file:
            return _audit(path, size, file, identity)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise UnreadableFile(f"cannot be read: {error.strerror}") from error
        raise CorruptFile(f"not a shard: {error}") from error
    except (KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise CorruptFile(f"not a shard: {error}") from error


def _audit(path: Path, size: int, file: h5py.File, identity: Mapping[str, Any]) -> Shard:
    if len(file.attrs) > _MAX_ATTRIBUTES or set(file) != _DATASETS:
        raise CorruptFile(f"not a valid shard: the data sets are not {', '.join(sorted(_DATASETS))}")
    datasets = {}
    for name in sorted(_DATASETS):
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise CorruptFile(f"{name} is a link")
        if not isinstance(dataset := file[name], h5py.Dataset):
            raise CorruptFile(f"{name} is not a data set")
        datasets[name] = dataset
        if dataset.is_virtual or dataset.external or len(dataset.attrs) > _MAX_ATTRIBUTES:
            raise CorruptFile(f"{name} is virtual or external, or has too many attributes")
        if dataset.dtype.kind not in "fu" or dataset.shape is None:
            raise CorruptFile(f"{name} is not an array of numbers")
    attributes = json.loads(file.attrs["attributes"])
    if not isinstance(attributes, dict) or any(attributes.get(name) != value for name, value in identity.items()):
        raise CorruptFile("shard belongs to another extraction, layer or pool")
    features, keys, views = datasets["features"], datasets["keys"], datasets["views"]
    count = len(views)
    if features.shape[:1] != (count,) or keys.shape != (count, 32) or views.shape != (count,):
        raise CorruptFile("shapes of features, keys and views do not agree")
    if keys.dtype != np.uint8 or views.dtype != np.uint16 or not (_is_inside(keys, size) and _is_inside(views, size)):
        raise CorruptFile("keys and views are not contiguous uint8 and uint16 inside the file")
    layout = _read_layout(features, size)
    return Shard(path, np.ascontiguousarray(keys[:]).view("S32").reshape(count), views[:], layout, size)


def _is_inside(dataset: h5py.Dataset, size: int) -> bool:
    """Return whether a data set is contiguous, unfiltered and within the `size` bytes of the file."""
    offset = dataset.id.get_offset()
    unfiltered = not dataset.id.get_create_plist().get_nfilters()
    return unfiltered and offset is not None and dataset.nbytes <= size - int(offset)


def _read_layout(features: h5py.Dataset, size: int) -> Layout:
    bfloat16 = features.attrs.get("dtype") == "bfloat16"
    is_numeric = features.dtype == np.uint16 if bfloat16 else features.dtype.kind == "f"
    if features.ndim < 2 or 0 in features.shape or not is_numeric:
        raise CorruptFile("features are not rows of floating-point numbers")
    compression = detect(features)
    if compression == "none":
        if not _is_inside(features, size):
            raise CorruptFile("features are not contiguous inside the file")
        return Layout(features.shape, features.dtype, bfloat16, offset=int(features.id.get_offset()))
    chunk_table = _read_chunk_table(features, size) if compression == "gzip" else None
    return Layout(
        features.shape, features.dtype, bfloat16, compression, rows_per_chunk=features.chunks[0], chunk_table=chunk_table
    )


def _read_chunk_table(features: h5py.Dataset, size: int) -> np.ndarray:
    """Return offset, size in bytes and filter mask (chunks, 3) of each chunk; raises `CorruptFile` if out of bounds."""
    entries: list[tuple[int, int, int, int]] = []
    rows_per_chunk = features.chunks[0]
    features.id.chunk_iter(
        lambda chunk: entries.append((chunk.chunk_offset[0] // rows_per_chunk, *chunk[2:], chunk.filter_mask))
    )
    chunk_table = np.array(sorted(entries), np.int64).reshape(-1, 4)
    chunk_numbers, offsets, counts, _ = chunk_table.T
    if not np.array_equal(chunk_numbers, np.arange(-(-features.shape[0] // rows_per_chunk))):
        raise CorruptFile("compressed rows: a chunk is missing or stored twice")
    if (offsets < 0).any() or (counts > size).any() or (offsets > size - counts).any():
        raise CorruptFile("compressed rows: a chunk lies outside the file")
    return chunk_table[:, 1:]
