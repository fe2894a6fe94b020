"""Rows on their way from the network to the cache, stored by the handful in a thread of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..backbones.taps import Tap
from .serial_executor import Stage
from .tap_rows import Rows

_BYTES = 64 << 20
_SECONDS = 20.0
_SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class _Batch:
    keys: np.ndarray
    views: np.ndarray
    features: Mapping[Tap, np.ndarray]
    wanted: Mapping[Tap, np.ndarray]

    def of(self, tap: Tap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys, views and rows of a tap that are to be stored."""
        use = self.wanted[tap]
        return self.keys[use], self.views[use], self.features[tap][use]


class Writer:
    """Gathers rows and stores a shard per tap every 64 MB or 20 s, so that an interruption costs at most that.

    stored: rows stored per tap; wide: those of them whose values overflow float16 and that are kept in float32;
    bytes: written.
    """

    def __init__(self, rows: Rows, storing: Stage, compression: str = "none") -> None:
        self._rows, self._storing, self._compression = rows, storing, compression
        self._waiting: list[_Batch] = []
        self._size, self._since = 0, time.monotonic()
        self.stored: dict[Tap, int] = dict.fromkeys(rows.taps, 0)
        self.wide: dict[Tap, int] = dict.fromkeys(rows.taps, 0)
        self.bytes = 0

    def add(
        self, keys: np.ndarray, views: np.ndarray, features: Mapping[Tap, np.ndarray], wanted: Mapping[Tap, np.ndarray]
    ) -> None:
        """Take rows (n, ...) of each tap for `keys` (n,) and `views` (n,), but only those in the masks `wanted` (n,)."""
        self._waiting.append(_Batch(keys, views, features, wanted))
        self._size += sum(rows.nbytes for rows in features.values())
        if self._size >= _BYTES or time.monotonic() - self._since >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Give everything that waits to the storing stage."""
        if self._waiting:
            self._storing(self._store, self._waiting)
            self._waiting = []
        self._size, self._since = 0, time.monotonic()

    def _store(self, waiting: Sequence[_Batch]) -> None:
        for tap in waiting[0].features:
            columns = zip(*(batch.of(tap) for batch in waiting), strict=True)
            keys, views, rows = (np.concatenate(parts) for parts in columns)
            if not len(keys):
                continue
            finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
            if not finite.all():
                self._rows.reject(tap, keys[~finite], views[~finite])
                keys, views, rows = keys[finite], views[finite], rows[finite]
            for part, where in _by_width(rows, narrow=tap.pool == "map"):
                many = max(1, _SHARD_BYTES // (part.dtype.itemsize * math.prod(part.shape[1:])))
                for start in range(0, len(part), many):
                    at = where[start : start + many]
                    compression = self._compression if tap.pool == "map" else "none"
                    self.bytes += self._rows.add(tap, keys[at], views[at], part[start : start + many], compression)
                    self.stored[tap] += len(at)
                if part.dtype == np.float32 and tap.pool == "map":
                    self.wide[tap] += len(part)


def _by_width(rows: np.ndarray, narrow: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows, where) pairs: float32 as float16 if `narrow`, the rows that would overflow it kept as they are."""
    everywhere = np.arange(len(rows))
    if not narrow or rows.dtype != np.float32:
        return [(rows, everywhere)]
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16)
    fits = np.isfinite(half).reshape(len(rows), -1).all(axis=1)
    parts = [(half[fits], everywhere[fits]), (rows[~fits], everywhere[~fits])]
    return [part for part in parts if len(part[1])]
