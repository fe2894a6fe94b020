"""Compression of the rows of a shard, and the HDF5 filters that are accepted."""

from __future__ import annotations

import functools
from typing import Any

import h5py
import numpy as np

from .errors import CacheError, CorruptFile, UnreadableFile

METHODS = ("none", "gzip", "blosc2")
DECODED_LIMIT = 1 << 30
_CHUNK_BYTES = 1 << 19
_GZIP, _SHUFFLE, _BLOSC2 = 1, 2, 32026
_PIPELINES = {(): "none", (_SHUFFLE, _GZIP): "gzip", (_BLOSC2,): "blosc2"}
_INSTALL_COMMAND = "pip install 'humeris[compression]'"


@functools.cache
def load_blosc2() -> Any:
    """Return the module `hdf5plugin` with its filters registered, None if it is not installed.

    HDF5 searches the folders of HDF5_PLUGIN_PATH for unknown filters and runs the code it finds there, so that list is
    emptied while hdf5plugin queries which filters are known.
    """
    folders = [h5py.h5pl.get(index) for index in range(h5py.h5pl.size())]
    for _ in folders:
        h5py.h5pl.remove(0)
    try:
        import hdf5plugin
    except ImportError:
        return None
    finally:
        for folder in folders:
            h5py.h5pl.append(folder)
    return hdf5plugin


def check(name: str) -> None:
    """Raise `CacheError` unless compression `name` is known and installed; call it before anything is computed."""
    if name not in METHODS:
        raise CacheError(f"unknown compression {name!r}; choose one of {', '.join(METHODS)}")
    if name == "blosc2" and load_blosc2() is None:
        raise CacheError(
            f"compression blosc2: the package hdf5plugin is not installed; run {_INSTALL_COMMAND}, or choose gzip"
        )


def build_options(name: str, features: np.ndarray) -> dict[str, Any]:
    """Return the arguments of h5py's `create_dataset` that compress `features` (n, ...) in chunks of about 0.5 MB.

    A chunk holds whole rows. Raises `CacheError` if `name` cannot be used, or for more than 1 GiB, which no reader decodes.
    """
    check(name)
    if name == "none":
        return {}
    if features.nbytes > DECODED_LIMIT:
        raise CacheError(
            f"compression {name}: rows exceed the limit of one file: {features.nbytes:,} bytes, at most "
            f"{DECODED_LIMIT:,} allowed; store fewer rows at a time, or choose none"
        )
    rows_per_chunk = min(len(features), max(1, _CHUNK_BYTES // max(1, features[0].nbytes)))
    chunk_options: dict[str, Any] = {"chunks": (rows_per_chunk, *features.shape[1:])}
    if name == "gzip":
        return {**chunk_options, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    plugin = load_blosc2()
    return {**chunk_options, **plugin.Blosc2(cname="zstd", clevel=1, filters=plugin.Blosc2.SHUFFLE)}


def detect(dataset: h5py.Dataset) -> str:
    """Return the compression of a data set from its metadata alone; nothing is decoded or loaded.

    Raises `CorruptFile` for filters that humeris never writes, `UnreadableFile` for those that this installation lacks.
    """
    properties = dataset.id.get_create_plist()
    pipeline = tuple(properties.get_filter(index)[0] for index in range(properties.get_nfilters()))
    if pipeline not in _PIPELINES:
        raise CorruptFile(f"unsupported HDF5 filters {', '.join(map(str, pipeline))}; supported are none, gzip and blosc2")
    name = _PIPELINES[pipeline]
    if name != "none":
        shape, chunks = dataset.shape, dataset.chunks
        if chunks is None or chunks[1:] != shape[1:] or not 0 < chunks[0] <= shape[0] or dataset.nbytes > DECODED_LIMIT:
            raise CorruptFile(
                f"compressed rows are not in chunks of whole rows, or exceed {DECODED_LIMIT:,} bytes when decoded"
            )
    if name == "blosc2" and load_blosc2() is None:
        raise UnreadableFile(
            f"rows are compressed by blosc2, but hdf5plugin is not installed; run {_INSTALL_COMMAND}, or they are recomputed"
        )
    return name
