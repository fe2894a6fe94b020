"""Rows from a shard's file straight to where they are wanted, without a memory map and with one descriptor at a time.

A read into the place that is wanted costs one copy and no page faults, and a file that shrank is a short read, where a
memory map would be a SIGBUS.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .errors import Damaged, Unreadable

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Layout:
    """How the rows of one shard lie in its file.

    shape: (n, ...); dtype: as stored, where bfloat16 is the upper 16 bits of a float32 in a uint16; compression: one of
    `compression.NAMES`; offset: byte where contiguous rows begin; chunk: rows per compressed chunk; pieces: for gzip the
    byte offset, size and filter mask of each chunk, (chunks, 3).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    bfloat16: bool = False
    compression: str = "none"
    offset: int = 0
    chunk: int = 1
    pieces: np.ndarray | None = None

    @property
    def served(self) -> np.dtype:
        """The dtype that rows are read as."""
        return np.dtype(np.float32) if self.bfloat16 else self.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as stored, before compression."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored rows as numbers."""
        return (stored.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else stored


def read(
    path: Path | str,
    layout: Layout,
    rows: np.ndarray,
    out: np.ndarray,
    places: np.ndarray,
    columns: slice | None = None,
) -> None:
    """Put the rows numbered `rows` (m,) at `out[places]`; `out` (n, ...) is contiguous and `places` ascends.

    With `columns` only those of the flattened rows, and `out` is (n, columns): of plain rows no other byte is read.
    Raises `FileNotFoundError` when the file is gone, `Damaged` when it is not what it was and `Unreadable` when it may be.
    """
    try:
        if layout.compression == "blosc2":
            with h5py.File(path, "r", locking=False) as file:
                _scatter(_blosc2_blocks(file["features"], layout, rows), layout, rows, out, places, columns)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _read(descriptor, layout, rows, out, places, columns)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None:  # h5py's own
            raise Damaged(f"compressed rows that cannot be decoded: {error}") from error
        raise Unreadable(f"cannot be read: {error.strerror}") from error


def _read(
    descriptor: int, layout: Layout, rows: np.ndarray, out: np.ndarray, places: np.ndarray, columns: slice | None
) -> None:
    if layout.compression == "gzip":
        _scatter(_gzip_blocks(descriptor, layout, rows), layout, rows, out, places, columns)
        return
    if columns is not None:
        _fill_columns(descriptor, layout, rows, out, places, columns)
        return
    runs = _runs(rows, places)
    if len(runs) * _BLOCK > len(rows) * layout.row_bytes * 16 and len(rows) * 4 > layout.shape[0]:
        _scatter(_plain_blocks(descriptor, layout, rows), layout, rows, out, places)
    elif layout.served == out.dtype and not layout.bfloat16:
        _fill_runs(descriptor, layout, runs, out)
    else:
        step = max(1, _BLOCK // layout.row_bytes)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            stored = np.empty((len(part), *layout.shape[1:]), layout.dtype)
            _fill_runs(descriptor, layout, _runs(part, np.arange(len(part))), stored)
            out[places[start : start + step]] = layout.values(stored)


def _runs(rows: np.ndarray, places: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, place, count) of the stretches of rows that follow each other both in the file and in their places."""
    breaks = np.nonzero((rows[1:] - rows[:-1] != 1) | (places[1:] - places[:-1] != 1))[0] + 1
    starts = [0, *breaks.tolist()]
    counts = [end - start for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]
    return list(zip(rows[starts].tolist(), places[starts].tolist(), counts, strict=True))


def _fill_runs(descriptor: int, layout: Layout, runs: list[tuple[int, int, int]], out: np.ndarray) -> None:
    target, width = _bytes(out), layout.row_bytes
    for row, place, count in runs:
        _fill(descriptor, target[place * width : (place + count) * width], layout.offset + row * width)


def _fill_columns(
    descriptor: int, layout: Layout, rows: np.ndarray, out: np.ndarray, places: np.ndarray, columns: slice
) -> None:
    size = layout.dtype.itemsize
    stored = np.empty(columns.stop - columns.start, layout.dtype)
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        _fill(descriptor, _bytes(stored), layout.offset + row * layout.row_bytes + columns.start * size)
        out[place] = layout.values(stored)


def _scatter(
    blocks: Iterator[tuple[int, np.ndarray]],
    layout: Layout,
    rows: np.ndarray,
    out: np.ndarray,
    places: np.ndarray,
    columns: slice | None = None,
) -> None:
    """Copy from blocks (number of the first row, rows as stored), which come in the order of the file."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    for first, block in blocks:
        begin, end = np.searchsorted(ordered, [first, first + len(block)])
        if columns is not None:
            block = block.reshape(len(block), -1)[:, columns]
        mine, numbers = places[order[begin:end]], ordered[begin:end] - first
        whole = len(numbers) == len(block) and bool((numbers == np.arange(len(block))).all())
        out[mine] = layout.values(block if whole else block[numbers])


def _plain_blocks(descriptor: int, layout: Layout, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _BLOCK // layout.row_bytes)
    for number in np.unique(rows // step).tolist():
        count = min(step, layout.shape[0] - number * step)
        block = np.empty((count, *layout.shape[1:]), layout.dtype)
        _fill(descriptor, _bytes(block), layout.offset + number * step * layout.row_bytes)
        yield number * step, block


def _gzip_blocks(descriptor: int, layout: Layout, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Chunks decoded here and not by HDF5, whose inflate grows its buffer as far as the stream likes."""
    assert layout.pieces is not None
    size, width = layout.chunk * layout.row_bytes, layout.dtype.itemsize
    for number in np.unique(rows // layout.chunk).tolist():
        offset, stored, mask = layout.pieces[number].tolist()
        data = bytearray(stored)
        _fill(descriptor, memoryview(data), offset)
        try:
            whole = bytes(data) if mask & 2 else zlib.decompressobj().decompress(data, size + 1)
        except zlib.error as error:
            raise Damaged(f"compressed rows that cannot be decoded: {error}") from error
        if len(whole) != size:
            raise Damaged(f"compressed rows: expected {size} bytes in a chunk, found another number")
        numbers = np.frombuffer(whole, np.uint8)
        if not mask & 1:
            numbers = np.ascontiguousarray(numbers.reshape(width, -1).T)
        count = min(layout.chunk, layout.shape[0] - number * layout.chunk)
        yield number * layout.chunk, numbers.view(layout.dtype).reshape(layout.chunk, *layout.shape[1:])[:count]


def _blosc2_blocks(dataset: h5py.Dataset, layout: Layout, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for number in np.unique(rows // layout.chunk).tolist():
        first = number * layout.chunk
        yield first, dataset[first : first + layout.chunk]


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(descriptor: int, target: memoryview, offset: int) -> None:
    while target:
        count = os.preadv(descriptor, [target], offset)
        if not count:
            raise Damaged("it ends before its rows do")
        target, offset = target[count:], offset + count
