"""Collects rows of a network and stores them as shards in a thread."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..backbones.taps import Tap
from .serial_executor import SerialExecutor
from .tap_rows import TapRows

_BYTES = 64 << 20
_SECONDS = 20.0
_SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class _Batch:
    keys: np.ndarray
    views: np.ndarray
    features: Mapping[Tap, np.ndarray]
    masks: Mapping[Tap, np.ndarray]

    def select(self, tap: Tap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the keys, views and rows of a tap that are to be stored."""
        mask = self.masks[tap]
        return self.keys[mask], self.views[mask], self.features[tap][mask]


class RowWriter:
    """Collects rows and stores a shard per tap every 64 MB or 20 s, so that a crash loses at most that.

    Parameters
    ----------
    tap_rows : TapRows
        Where rows are stored.
    store_executor : SerialExecutor
        The thread that stores them.
    compression : str
        Compression of whole maps.

    Attributes
    ----------
    stored_counts : dict
        Tap -> number of rows stored.
    kept_float32 : dict
        Tap -> number of these rows that overflow float16 and were stored in float32.
    bytes : int
        Bytes written.
    """

    def __init__(self, tap_rows: TapRows, store_executor: SerialExecutor, compression: str = "none") -> None:
        self._tap_rows, self._store_executor, self._compression = tap_rows, store_executor, compression
        self._pending_batches: list[_Batch] = []
        self._pending_bytes, self._last_flush = 0, time.monotonic()
        self.stored_counts: dict[Tap, int] = dict.fromkeys(tap_rows.taps, 0)
        self.kept_float32: dict[Tap, int] = dict.fromkeys(tap_rows.taps, 0)
        self.bytes = 0

    def add(
        self, keys: np.ndarray, views: np.ndarray, features: Mapping[Tap, np.ndarray], masks: Mapping[Tap, np.ndarray]
    ) -> None:
        """Add the rows of a batch.

        Parameters
        ----------
        keys, views : np.ndarray
            Digest (n,) S32 and view (n,) of each row.
        features : mapping
            Tap -> rows (n, ...).
        masks : mapping
            Tap -> mask (n,) of the rows to store.
        """
        self._pending_batches.append(_Batch(keys, views, features, masks))
        self._pending_bytes += sum(rows.nbytes for rows in features.values())
        if self._pending_bytes >= _BYTES or time.monotonic() - self._last_flush >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Submit all collected rows to the store executor."""
        if self._pending_batches:
            self._store_executor(self._store_batches, self._pending_batches)
            self._pending_batches = []
        self._pending_bytes, self._last_flush = 0, time.monotonic()

    def _store_batches(self, batches: Sequence[_Batch]) -> None:
        for tap in batches[0].features:
            columns = zip(*(batch.select(tap) for batch in batches), strict=True)
            keys, views, rows = (np.concatenate(parts) for parts in columns)
            if not len(keys):
                continue
            finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
            if not finite.all():
                self._tap_rows.mark_non_finite(tap, keys[~finite], views[~finite])
                keys, views, rows = keys[finite], views[finite], rows[finite]
            for part, positions in _split_by_width(rows, to_float16=tap.pool == "map"):
                rows_per_shard = max(1, _SHARD_BYTES // (part.dtype.itemsize * math.prod(part.shape[1:])))
                for start in range(0, len(part), rows_per_shard):
                    indices = positions[start : start + rows_per_shard]
                    compression = self._compression if tap.pool == "map" else "none"
                    self.bytes += self._tap_rows.add(
                        tap, keys[indices], views[indices], part[start : start + rows_per_shard], compression
                    )
                    self.stored_counts[tap] += len(indices)
                if part.dtype == np.float32 and tap.pool == "map":
                    self.kept_float32[tap] += len(part)


def _split_by_width(rows: np.ndarray, to_float16: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (rows, positions) parts; with `to_float16`, float32 rows become float16 unless they overflow it."""
    positions = np.arange(len(rows))
    if not to_float16 or rows.dtype != np.float32:
        return [(rows, positions)]
    with np.errstate(over="ignore"):
        float16_rows = rows.astype(np.float16)
    fits_float16 = np.isfinite(float16_rows).reshape(len(rows), -1).all(axis=1)
    parts = [(float16_rows[fits_float16], positions[fits_float16]), (rows[~fits_float16], positions[~fits_float16])]
    return [part for part in parts if len(part[1])]
