"""Features of many images as one matrix, held in memory if it fits, else read from the cache in blocks."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

_SHARE = 0.5  # of the machine's memory that one matrix may use
_BLOCK = 1 << 24  # bytes of float32 in a block
_PIECES = 4  # a matrix that must be converted or concatenated is read in so many pieces, to limit the extra memory


class RowReader(Protocol):
    """A source of rows: `TapFeatures` in the cache, or `FileRowReader` for a feature file."""

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Return rows (n, ...) of `view`, or (n, columns) of the flattened rows."""


@dataclass(frozen=True)
class TapColumns:
    """The rows of one tap: image `keys` (rows,), each in the view given by `views` (rows,)."""

    reader: RowReader
    keys: np.ndarray
    views: np.ndarray

    def read(self, rows: np.ndarray, columns: slice | None = None) -> np.ndarray:
        """Return rows (len(rows), ...) as stored."""
        keys, views = self.keys[rows], self.views[rows]
        view_numbers = np.unique(views).tolist()
        if len(view_numbers) == 1:
            return self.reader.read(keys, view_numbers[0], columns)
        rows_by_view = {
            view_number: self.reader.read(keys[views == view_number], view_number, columns) for view_number in view_numbers
        }
        first = next(iter(rows_by_view.values()))
        out = np.empty(
            (len(rows), *first.shape[1:]), np.result_type(*(view_rows.dtype for view_rows in rows_by_view.values()))
        )
        for view_number, view_rows in rows_by_view.items():
            out[views == view_number] = view_rows
        return out


class FeatureMatrix:
    """Float32 features (rows, d): one or more taps side by side, maps flattened in row-major order.

    shape: (rows, d). row_shape: shape of a row before flattening; (d,) if several taps lie side by side.
    """

    def __init__(self, tap_columns: Sequence[TapColumns], row_shapes: Sequence[tuple[int, ...]], n_rows: int) -> None:
        self._tap_columns, self._widths = list(tap_columns), [math.prod(shape) for shape in row_shapes]
        self.row_shape = tuple(row_shapes[0]) if len(row_shapes) == 1 else (sum(self._widths),)
        self.shape = (n_rows, sum(self._widths))
        self._array: np.ndarray | None = None
        self._allow_in_memory = True

    @classmethod
    def from_tap_columns(cls, tap_columns: Sequence[TapColumns]) -> FeatureMatrix:
        """Concatenate the rows of `tap_columns` side by side; all must have the same number of rows, at least one."""
        shapes = [tap.read(np.zeros(1, np.intp)).shape[1:] for tap in tap_columns]
        return cls(tap_columns, shapes, len(tap_columns[0].keys))

    @classmethod
    def from_array(cls, array: np.ndarray) -> FeatureMatrix:
        """Return the matrix of an array (rows, ...), without a copy if it is float32."""
        rows = array.reshape(len(array), -1).astype(np.float32, copy=False)
        matrix = cls([], [array.shape[1:]], len(array))
        matrix._array = rows
        return matrix

    @property
    def nbytes(self) -> int:
        """Size in bytes of the whole matrix in float32."""
        return 4 * self.shape[0] * self.shape[1]

    @property
    def fits_in_memory(self) -> bool:
        """Whether the whole matrix may be held in memory."""
        return self._array is not None or (self._allow_in_memory and self.nbytes <= _SHARE * _get_total_memory())

    def to_streaming(self) -> FeatureMatrix:
        """Return the same rows read in blocks and never held in memory, unless they already are or fit in one block."""
        if self._array is not None or self.nbytes <= _BLOCK:
            return self
        streaming_matrix = copy.copy(self)
        streaming_matrix._allow_in_memory = False
        return streaming_matrix

    def to_array(self) -> np.ndarray:
        """Return the whole matrix (rows, d) in memory. The array is shared between calls: do not modify it."""
        if self._array is None:
            self._array = self._read_rows(np.arange(self.shape[0]))
        return self._array

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return rows (m, d) for an index array, a mask or a slice."""
        if self.fits_in_memory:
            return np.asarray(self.to_array()[rows])
        return self._read_rows(np.arange(self.shape[0])[rows])

    def iter_blocks(self, rows: np.ndarray | None = None, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (positions, values) for `rows` (default: all) in blocks of `size`; positions count within `rows`."""
        rows = np.arange(self.shape[0]) if rows is None else rows
        size = size or max(1, _BLOCK // (4 * max(1, self.shape[1])))
        for start in range(0, len(rows), size):
            yield slice(start, min(start + size, len(rows))), self[rows[start : start + size]]

    def read_columns(self, start: int, stop: int) -> np.ndarray:
        """Return the columns from `start` to `stop` of every row, (rows, stop - start)."""
        if self._array is not None:
            return self._array[:, start:stop]
        rows, out, offset = np.arange(self.shape[0]), [], 0
        for tap, width in zip(self._tap_columns, self._widths, strict=True):
            column_slice = slice(max(0, start - offset), min(width, stop - offset))
            if column_slice.start < column_slice.stop:
                out.append(tap.read(rows, column_slice).astype(np.float32, copy=False))
            offset += width
        return out[0] if len(out) == 1 else np.hstack(out)

    def iter_column_blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield (columns, values): all rows, `size` columns at a time."""
        size = size or max(1, _BLOCK // (4 * max(1, self.shape[0])))
        for start in range(0, self.shape[1], size):
            stop = min(start + size, self.shape[1])
            yield slice(start, stop), self.read_columns(start, stop)

    def _read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Read rows (m, d) in float32; buffers for conversion or concatenation take at most a quarter of their size."""
        first_tap = self._tap_columns[0]
        is_small = 4 * len(rows) * self.shape[1] <= _BLOCK
        can_read_directly = is_small or (
            len(np.unique(first_tap.views[rows])) == 1 and first_tap.read(rows[:1]).dtype == np.float32
        )
        if len(self._tap_columns) == 1 and can_read_directly:
            return first_tap.read(rows).reshape(len(rows), -1).astype(np.float32, copy=False)
        out, size = np.empty((len(rows), self.shape[1]), np.float32), max(1, _BLOCK // (4 * max(1, self.shape[1])))
        size = max(size, -(-len(rows) // _PIECES))
        for start in range(0, len(rows), size):
            block_rows, offset = rows[start : start + size], 0
            for tap, width in zip(self._tap_columns, self._widths, strict=True):
                out[start : start + size, offset : offset + width] = tap.read(block_rows).reshape(len(block_rows), -1)
                offset += width
        return out


def _get_total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
