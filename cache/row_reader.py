"""Reads rows of a shard directly into an output array, without a memory map and with one descriptor at a time.

A read into the output costs one copy and no page faults, and a truncated file is a short read, where a memory map would
raise SIGBUS.
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

from .errors import CorruptFile, UnreadableFile

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Layout:
    """Layout of the rows of one shard in its file.

    Parameters
    ----------
    shape : tuple of int
        (n, ...).
    dtype : np.dtype
        As stored; bfloat16 is stored as the upper 16 bits of a float32 in a uint16.
    bfloat16 : bool
        Whether the rows are bfloat16.
    compression : str
        One of `compression.METHODS`.
    offset : int
        Byte at which contiguous rows begin.
    rows_per_chunk : int
        Rows per chunk of compressed rows.
    chunk_table : np.ndarray, optional
        For gzip the byte offset, size in bytes and filter mask of each chunk, (chunks, 3).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    bfloat16: bool = False
    compression: str = "none"
    offset: int = 0
    rows_per_chunk: int = 1
    chunk_table: np.ndarray | None = None

    @property
    def read_dtype(self) -> np.dtype:
        """The dtype of rows after reading."""
        return np.dtype(np.float32) if self.bfloat16 else self.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as stored, before compression."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def to_values(self, stored: np.ndarray) -> np.ndarray:
        """Convert stored rows to floating-point values."""
        return (stored.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else stored


def read(
    path: Path | str,
    layout: Layout,
    rows: np.ndarray,
    out: np.ndarray,
    positions: np.ndarray,
    columns: slice | None = None,
) -> None:
    """Read rows of a shard into `out[positions]`.

    Parameters
    ----------
    path : Path or str
        The shard.
    layout : Layout
        Its layout.
    rows : np.ndarray
        Row numbers (m,).
    out : np.ndarray
        Output (n, ...), contiguous; (n, columns) if `columns` is given.
    positions : np.ndarray
        Where in `out` each row goes (m,), ascending.
    columns : slice, optional
        Columns of the flattened rows; no other bytes of uncompressed rows are read.

    Raises
    ------
    FileNotFoundError
        If the file is gone.
    CorruptFile
        If the file has changed.
    UnreadableFile
        If the file cannot be read but may be intact.
    """
    try:
        if layout.compression == "blosc2":
            with h5py.File(path, "r", locking=False) as file:
                _scatter(_read_blosc2_blocks(file["features"], layout, rows), layout, rows, out, positions, columns)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _read(descriptor, layout, rows, out, positions, columns)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None:  # h5py's own
            raise CorruptFile(f"compressed rows cannot be decoded: {error}") from error
        raise UnreadableFile(f"cannot be read: {error.strerror}") from error


def _read(
    descriptor: int, layout: Layout, rows: np.ndarray, out: np.ndarray, positions: np.ndarray, columns: slice | None
) -> None:
    if layout.compression == "gzip":
        _scatter(_read_gzip_blocks(descriptor, layout, rows), layout, rows, out, positions, columns)
        return
    if columns is not None:
        _fill_columns(descriptor, layout, rows, out, positions, columns)
        return
    segments = _find_segments(rows, positions)
    if len(segments) * _BLOCK > len(rows) * layout.row_bytes * 16 and len(rows) * 4 > layout.shape[0]:
        _scatter(_read_plain_blocks(descriptor, layout, rows), layout, rows, out, positions)
    elif layout.read_dtype == out.dtype and not layout.bfloat16:
        _fill_segments(descriptor, layout, segments, out)
    else:
        rows_per_block = max(1, _BLOCK // layout.row_bytes)
        for start in range(0, len(rows), rows_per_block):
            part = rows[start : start + rows_per_block]
            stored = np.empty((len(part), *layout.shape[1:]), layout.dtype)
            _fill_segments(descriptor, layout, _find_segments(part, np.arange(len(part))), stored)
            out[positions[start : start + rows_per_block]] = layout.to_values(stored)


def _find_segments(rows: np.ndarray, positions: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (row, position, count) of each run of rows that is consecutive both in the file and in the output."""
    breaks = np.nonzero((rows[1:] - rows[:-1] != 1) | (positions[1:] - positions[:-1] != 1))[0] + 1
    starts = [0, *breaks.tolist()]
    counts = [end - start for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]
    return list(zip(rows[starts].tolist(), positions[starts].tolist(), counts, strict=True))


def _fill_segments(descriptor: int, layout: Layout, segments: list[tuple[int, int, int]], out: np.ndarray) -> None:
    target, width = _to_memoryview(out), layout.row_bytes
    for row, position, count in segments:
        _fill(descriptor, target[position * width : (position + count) * width], layout.offset + row * width)


def _fill_columns(
    descriptor: int, layout: Layout, rows: np.ndarray, out: np.ndarray, positions: np.ndarray, columns: slice
) -> None:
    size = layout.dtype.itemsize
    stored = np.empty(columns.stop - columns.start, layout.dtype)
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        _fill(descriptor, _to_memoryview(stored), layout.offset + row * layout.row_bytes + columns.start * size)
        out[position] = layout.to_values(stored)


def _scatter(
    blocks: Iterator[tuple[int, np.ndarray]],
    layout: Layout,
    rows: np.ndarray,
    out: np.ndarray,
    positions: np.ndarray,
    columns: slice | None = None,
) -> None:
    """Copy rows from blocks (first row number, stored rows), which are in file order, to `out`."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    for first, block in blocks:
        begin, end = np.searchsorted(ordered, [first, first + len(block)])
        if columns is not None:
            block = block.reshape(len(block), -1)[:, columns]
        block_positions, block_rows = positions[order[begin:end]], ordered[begin:end] - first
        is_whole = len(block_rows) == len(block) and bool((block_rows == np.arange(len(block))).all())
        out[block_positions] = layout.to_values(block if is_whole else block[block_rows])


def _read_plain_blocks(descriptor: int, layout: Layout, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows_per_block = max(1, _BLOCK // layout.row_bytes)
    for block_number in np.unique(rows // rows_per_block).tolist():
        count = min(rows_per_block, layout.shape[0] - block_number * rows_per_block)
        block = np.empty((count, *layout.shape[1:]), layout.dtype)
        _fill(descriptor, _to_memoryview(block), layout.offset + block_number * rows_per_block * layout.row_bytes)
        yield block_number * rows_per_block, block


def _read_gzip_blocks(descriptor: int, layout: Layout, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield chunks decoded here and not by HDF5, whose inflate grows its buffer without a limit."""
    assert layout.chunk_table is not None
    size, width = layout.rows_per_chunk * layout.row_bytes, layout.dtype.itemsize
    for chunk_number in np.unique(rows // layout.rows_per_chunk).tolist():
        offset, n_bytes, mask = layout.chunk_table[chunk_number].tolist()
        data = bytearray(n_bytes)
        _fill(descriptor, memoryview(data), offset)
        try:
            decoded = bytes(data) if mask & 2 else zlib.decompressobj().decompress(data, size + 1)
        except zlib.error as error:
            raise CorruptFile(f"compressed rows cannot be decoded: {error}") from error
        if len(decoded) != size:
            raise CorruptFile(f"compressed rows: a chunk does not decode to the expected {size} bytes")
        values = np.frombuffer(decoded, np.uint8)
        if not mask & 1:
            values = np.ascontiguousarray(values.reshape(width, -1).T)
        count = min(layout.rows_per_chunk, layout.shape[0] - chunk_number * layout.rows_per_chunk)
        yield (
            chunk_number * layout.rows_per_chunk,
            values.view(layout.dtype).reshape(layout.rows_per_chunk, *layout.shape[1:])[:count],
        )


def _read_blosc2_blocks(dataset: h5py.Dataset, layout: Layout, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for chunk_number in np.unique(rows // layout.rows_per_chunk).tolist():
        first = chunk_number * layout.rows_per_chunk
        yield first, dataset[first : first + layout.rows_per_chunk]


def _to_memoryview(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(descriptor: int, target: memoryview, offset: int) -> None:
    while target:
        count = os.preadv(descriptor, [target], offset)
        if not count:
            raise CorruptFile("file is truncated: it ends before its rows do")
        target, offset = target[count:], offset + count
