"""Reader of untrusted HDF5 files: it follows no links, loads no filters, and checks sizes before it allocates memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ...cache.errors import DataError
from .. import memory

_ALLOWED_FILTERS = {1, 2, 3, 4, 5, 6, 32000}  # built into HDF5, and h5py's LZF: HDF5 loads no plug-in for them
_BLOCK_BYTES = 1 << 26
_READ_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, RecursionError)


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open the file for reading; errors inside the `with` block are raised as `DataError` too."""
    try:
        with memory.limit_memory():
            file = h5py.File(path, "r", locking=False)
        with file:
            yield file
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory to read it") from error
    except _READ_ERRORS as error:
        reason = " ".join(str(error).strip("'\"").split())[:200]
        raise DataError(f"{path}: cannot be used as features (n, d) and labels (n,): {reason}") from error


def get_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a data set that is stored completely inside the file; raises `ValueError`."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise ValueError(f"{name} is missing, a link or not a data set")
    dataset = file[name]
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if dataset.is_virtual or dataset.external or filters - _ALLOWED_FILTERS:
        raise ValueError(f"{name} is virtual or external, or has a filter that is not built into HDF5")
    if dataset.shape is None or not dataset.ndim:
        raise ValueError(f"{name} is a scalar")
    if dataset.nbytes > (available_bytes := memory.get_available_bytes()):
        raise ValueError(f"{name} needs {dataset.nbytes:,} bytes of memory, {available_bytes:,} are available")
    if dataset.chunks is None:
        is_complete = dataset.id.get_storage_size() >= dataset.nbytes
    else:
        n_chunks = [math.ceil(length / chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
        is_complete = dataset.id.get_num_chunks() == math.prod(n_chunks)
    if not is_complete:  # HDF5 would fill the gaps with zeros
        raise ValueError(f"{name} is incomplete: not all of it was written")
    return dataset


def get_numeric_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a data set of rows of numbers; raises `ValueError`."""
    dataset = get_dataset(file, name)
    if dataset.dtype.kind not in "fiu" or dataset.ndim < 2 or 0 in dataset.shape:
        raise ValueError(f"{name} is {dataset.dtype} {dataset.shape}, not numbers (n, d) or (n, height, width, channels)")
    return dataset


def read_column(file: h5py.File, name: str) -> np.ndarray | list[bytes]:
    """Return numbers (n, ...), or text (n,) as bytes; raises `ValueError`."""
    dataset = get_dataset(file, name)
    if h5py.check_string_dtype(dataset.dtype) is None:
        if dataset.dtype.kind not in "biuf":
            raise ValueError(f"{name} is {dataset.dtype}, not numbers or text")
        return np.asarray(dataset[:])
    if dataset.ndim != 1:
        raise ValueError(f"{name} has the shape {dataset.shape}, not (n,)")
    return [bytes(value) for value in dataset[:]]


def iter_blocks(dataset: h5py.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, rows) for consecutive blocks of the data set."""
    step = max(1, _BLOCK_BYTES // max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:])))
    for start in range(0, len(dataset), step):
        yield start, dataset[start : start + step]


def scan_rows(dataset: h5py.Dataset) -> tuple[str, np.ndarray]:
    """Return the digest of dtype, shape and values, and the mask (n,) of the rows that are not finite in float32."""
    digest, non_finite = hashlib.sha256(f"{dataset.dtype.str} {dataset.shape}".encode()), np.zeros(len(dataset), bool)
    for start, block in iter_blocks(dataset):
        digest.update(block.tobytes())
        with np.errstate(over="ignore"):
            finite = np.isfinite(block.astype(np.float32, copy=False))
        non_finite[start : start + len(block)] = ~finite.reshape(len(block), -1).all(axis=1)
    return digest.hexdigest(), non_finite
