"""How the rows of a shard may be compressed, and which filters a file may ask of HDF5."""

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
    """The module `hdf5plugin`, its filters registered; None where it is not installed.

    HDF5 would look for filters that it does not know in the folders of HDF5_PLUGIN_PATH and run what it finds there, so
    that list is emptied while hdf5plugin asks which filters are known.
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
    """Raise `CacheError` unless rows can be compressed by `name` here: ask before anything is computed."""
    if name not in METHODS:
        raise CacheError(f"compression {name!r}: expected one of {', '.join(METHODS)}; choose one of them")
    if name == "blosc2" and load_blosc2() is None:
        raise CacheError(
            f"compression blosc2: expected the package hdf5plugin, found none; {_INSTALL_COMMAND}, or choose gzip"
        )


def build_options(name: str, features: np.ndarray) -> dict[str, Any]:
    """What h5py's `create_dataset` takes to compress `features` (n, ...), in chunks of whole rows of about 0.5 MB.

    Raises `CacheError` when `name` cannot be used here, or for more than 1 GiB: no reader would decode it.
    """
    check(name)
    if name == "none":
        return {}
    if features.nbytes > DECODED_LIMIT:
        raise CacheError(
            f"compression {name}: expected at most {DECODED_LIMIT:,} bytes in one file, found {features.nbytes:,}; "
            "store fewer rows at a time, or choose none"
        )
    rows_per_chunk = min(len(features), max(1, _CHUNK_BYTES // max(1, features[0].nbytes)))
    chunk_options: dict[str, Any] = {"chunks": (rows_per_chunk, *features.shape[1:])}
    if name == "gzip":
        return {**chunk_options, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    plugin = load_blosc2()
    return {**chunk_options, **plugin.Blosc2(cname="zstd", clevel=1, filters=plugin.Blosc2.SHUFFLE)}


def detect(dataset: h5py.Dataset) -> str:
    """Which compression a data set has, told from its description alone; raises `CorruptFile` for any that we never write.

    Raises `UnreadableFile` for one that this installation cannot decode. Nothing is decoded or loaded to find out.
    """
    properties = dataset.id.get_create_plist()
    pipeline = tuple(properties.get_filter(index)[0] for index in range(properties.get_nfilters()))
    if pipeline not in _PIPELINES:
        raise CorruptFile(f"filters {', '.join(map(str, pipeline))}: expected none, gzip or blosc2")
    name = _PIPELINES[pipeline]
    if name != "none":
        shape, chunks = dataset.shape, dataset.chunks
        if chunks is None or chunks[1:] != shape[1:] or not 0 < chunks[0] <= shape[0] or dataset.nbytes > DECODED_LIMIT:
            raise CorruptFile(
                f"compressed rows: expected chunks of whole rows, and at most {DECODED_LIMIT:,} bytes when decoded"
            )
    if name == "blosc2" and load_blosc2() is None:
        raise UnreadableFile(
            f"its rows are compressed by blosc2 and hdf5plugin is not there: {_INSTALL_COMMAND}, or they are computed again"
        )
    return name
