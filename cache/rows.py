"""Rows from a shard's file straight to where they are wanted, without a memory map and with one descriptor at a time.

A read into the place that is wanted costs one copy and no page faults, and a file that shrank is a short read, where a
memory map would be a SIGBUS.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .damage import Damaged, Unreadable

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
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored rows as numbers."""
        return (stored.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else stored


def read(path: Path | str, layout: Layout, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
    """Put the rows numbered `rows` (m,) at `out[places]`; `out` (n, ...) is contiguous and `places` ascends.

    Raises `FileNotFoundError` when the file is gone, `Damaged` when it is not what it was and `Unreadable` when it may be.
    """
    if layout.compression == "blosc2":
        with _unreadable(), h5py.File(path, "r", locking=False) as file:
            _scatter(_blosc2_blocks(file["features"], layout, rows), layout, rows, out, places)
        return
    with _unreadable(), _opened(path) as descriptor:
        if layout.compression == "gzip":
            _scatter(_gzip_blocks(descriptor, layout, rows), layout, rows, out, places)
        elif len(rows) * 4 < layout.shape[0] or layout.row_bytes >= 4096:
            _by_runs(descriptor, layout, rows, out, places)
        else:
            _scatter(_plain_blocks(descriptor, layout, rows), layout, rows, out, places)


def _by_runs(descriptor: int, layout: Layout, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
    """A system call per run of rows that follow each other both in the file and in `out`."""
    if layout.served == out.dtype and not layout.bfloat16:
        target = _bytes(out)
        width, offset = layout.row_bytes, layout.offset
        for row, place, count in _runs(rows, places):
            _fill(descriptor, target[place * width : (place + count) * width], offset + row * width)
        return
    step = max(1, _BLOCK // layout.row_bytes)
    plain = Layout(layout.shape, layout.dtype, offset=layout.offset)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        stored = np.empty((len(part), *layout.shape[1:]), layout.dtype)
        _by_runs(descriptor, plain, part, stored, np.arange(len(part)))
        out[places[start : start + step]] = layout.values(stored)


def _runs(rows: np.ndarray, places: np.ndarray) -> list[tuple[int, int, int]]:
    breaks = np.nonzero((np.diff(rows) != 1) | (np.diff(places) != 1))[0] + 1
    starts = np.concatenate([[0], breaks])
    counts = np.diff(np.concatenate([starts, [len(rows)]]))
    return list(zip(rows[starts].tolist(), places[starts].tolist(), counts.tolist(), strict=True))


def _scatter(
    blocks: Iterator[tuple[int, np.ndarray]], layout: Layout, rows: np.ndarray, out: np.ndarray, places: np.ndarray
) -> None:
    """Copy from blocks (number of the first row, rows as stored), which come in the order of the file."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    for first, block in blocks:
        begin, end = np.searchsorted(ordered, [first, first + len(block)])
        out[places[order[begin:end]]] = layout.values(block[ordered[begin:end] - first])


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


@contextmanager
def _opened(path: Path | str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise
        if error.errno is None:  # h5py's own
            raise Damaged(f"compressed rows that cannot be decoded: {error}") from error
        raise Unreadable(f"cannot be read: {error.strerror}") from error
