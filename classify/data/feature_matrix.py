"""Features of many images as one matrix: held in memory where it fits, else read from the cache a block at a time."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

_SHARE = 0.5  # of the machine's memory that one matrix may take
_BLOCK = 1 << 24  # bytes of float32 in a block
_PIECES = 4  # that a whole matrix is read in where what is stored is not what is held


class Stored(Protocol):
    """Where rows are: `Features` in the cache, or `FileRows` in a file of the user's."""

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Rows (n, ...) of `view`, or (n, columns) of the flattened rows."""


@dataclass(frozen=True)
class Part:
    """Rows of one tap: of the images `keys` (rows,), each in the view of `views` (rows,)."""

    stored: Stored
    keys: np.ndarray
    views: np.ndarray

    def read(self, rows: np.ndarray, columns: slice | None = None) -> np.ndarray:
        """Rows (len(rows), ...) as stored."""
        keys, views = self.keys[rows], self.views[rows]
        numbers = np.unique(views).tolist()
        if len(numbers) == 1:
            return self.stored.read(keys, numbers[0], columns)
        parts = {number: self.stored.read(keys[views == number], number, columns) for number in numbers}
        first = next(iter(parts.values()))
        out = np.empty((len(rows), *first.shape[1:]), np.result_type(*(part.dtype for part in parts.values())))
        for number, part in parts.items():
            out[views == number] = part
        return out


class Matrix:
    """Rows of float32 features (rows, d): those of several taps side by side, maps flattened in row-major order.

    shape: (rows, d). row_shape: what a row was before it was flattened, (d,) where several taps lie side by side.
    """

    def __init__(self, parts: Sequence[Part], row_shapes: Sequence[tuple[int, ...]], count: int) -> None:
        self._parts, self._widths = list(parts), [math.prod(shape) for shape in row_shapes]
        self.row_shape = tuple(row_shapes[0]) if len(row_shapes) == 1 else (sum(self._widths),)
        self.shape = (count, sum(self._widths))
        self._array: np.ndarray | None = None
        self._holds = True

    @classmethod
    def stored(cls, parts: Sequence[Part]) -> Matrix:
        """The rows of `parts` side by side; every part has as many rows, at least one."""
        shapes = [part.read(np.zeros(1, np.intp)).shape[1:] for part in parts]
        return cls(parts, shapes, len(parts[0].keys))

    @classmethod
    def of(cls, array: np.ndarray) -> Matrix:
        """The matrix of an array (rows, ...), which is not copied where it is float32."""
        rows = array.reshape(len(array), -1).astype(np.float32, copy=False)
        matrix = cls([], [array.shape[1:]], len(array))
        matrix._array = rows
        return matrix

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix in float32."""
        return 4 * self.shape[0] * self.shape[1]

    @property
    def held(self) -> bool:
        """Whether the matrix may be held in memory as a whole."""
        return self._array is not None or (self._holds and self.nbytes <= _SHARE * _memory())

    def streamed(self) -> Matrix:
        """The same rows, read a block at a time and never held, unless they already are or take no more than a block."""
        if self._array is not None or self.nbytes <= _BLOCK:
            return self
        other = copy.copy(self)
        other._holds = False
        return other

    def array(self) -> np.ndarray:
        """The whole matrix (rows, d) in memory: always the same array, so do not write into it."""
        if self._array is None:
            self._array = self._read(np.arange(self.shape[0]))
        return self._array

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Rows (m, d) of an index array, a mask or a slice."""
        if self.held:
            return np.asarray(self.array()[rows])
        return self._read(np.arange(self.shape[0])[rows])

    def blocks(self, rows: np.ndarray | None = None, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """(positions, values): the rows (all by default) a block of `size` at a time, positions counting within `rows`."""
        rows = np.arange(self.shape[0]) if rows is None else rows
        size = size or max(1, _BLOCK // (4 * max(1, self.shape[1])))
        for start in range(0, len(rows), size):
            yield slice(start, min(start + size, len(rows))), self[rows[start : start + size]]

    def columns(self, start: int, stop: int) -> np.ndarray:
        """The columns from `start` to `stop` of every row, (rows, stop - start)."""
        if self._array is not None:
            return self._array[:, start:stop]
        rows, out, first = np.arange(self.shape[0]), [], 0
        for part, width in zip(self._parts, self._widths, strict=True):
            here = slice(max(0, start - first), min(width, stop - first))
            if here.start < here.stop:
                out.append(part.read(rows, here).astype(np.float32, copy=False))
            first += width
        return out[0] if len(out) == 1 else np.hstack(out)

    def column_blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """(columns, values): every row, `size` columns at a time."""
        size = size or max(1, _BLOCK // (4 * max(1, self.shape[0])))
        for start in range(0, self.shape[1], size):
            stop = min(start + size, self.shape[1])
            yield slice(start, stop), self.columns(start, stop)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Rows (m, d) in float32; what is read besides, to be converted or put side by side, is a quarter of it at most."""
        first = self._parts[0]
        small = 4 * len(rows) * self.shape[1] <= _BLOCK
        straight = small or (len(np.unique(first.views[rows])) == 1 and first.read(rows[:1]).dtype == np.float32)
        if len(self._parts) == 1 and straight:
            return first.read(rows).reshape(len(rows), -1).astype(np.float32, copy=False)
        out, size = np.empty((len(rows), self.shape[1]), np.float32), max(1, _BLOCK // (4 * max(1, self.shape[1])))
        size = max(size, -(-len(rows) // _PIECES))
        for start in range(0, len(rows), size):
            here, left = rows[start : start + size], 0
            for part, width in zip(self._parts, self._widths, strict=True):
                out[start : start + size, left : left + width] = part.read(here).reshape(len(here), -1)
                left += width
        return out


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
