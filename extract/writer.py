"""Rows on their way from the network to the cache, stored by the handful."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from ..cache.extraction import Extraction
from ..cache.shard import as_keys
from .images import Image
from .taps import Tap

_BYTES = 64 * 1024 * 1024
_SECONDS = 20.0


class Writer:
    """Gathers rows and stores a shard per tap every 64 MB or 20 s, so that an interruption costs at most that.

    wanted: for each tap the digests whose rows are missing; others are not stored twice.
    rows: rows stored per tap; images: images seen; bytes: written; not_finite: digests whose row was refused, per tap.
    """

    def __init__(self, extraction: Extraction, wanted: Mapping[Tap, set[bytes]]) -> None:
        self._extraction, self._wanted = extraction, wanted
        self._waiting: dict[Tap, list[tuple[bytes, np.ndarray]]] = {tap: [] for tap in wanted}
        self._size, self._since = 0, time.monotonic()
        self.rows = {str(tap): 0 for tap in wanted}
        self.images = self.bytes = 0
        self.not_finite: dict[Tap, set[bytes]] = {}

    def add(self, images: Sequence[Image], features: Mapping[Tap, np.ndarray]) -> None:
        """Take rows (n, ...) float32 of each tap for n images."""
        self.images += len(images)
        for tap, rows in features.items():
            finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
            for image, row, good in zip(images, rows, finite, strict=True):
                if not good:
                    self.not_finite.setdefault(tap, set()).add(image.digest)
                elif image.digest in self._wanted[tap]:
                    self._waiting[tap].append((image.digest, row))
                    self._size += row.nbytes
        if self._size >= _BYTES or time.monotonic() - self._since >= _SECONDS:
            self.close()

    def close(self) -> None:
        """Store everything that waits; what fails to be stored is not counted."""
        for tap, waiting in self._waiting.items():
            if waiting:
                keys = as_keys([digest for digest, _ in waiting])
                for part in _by_width(np.stack([row for _, row in waiting]), narrow=tap.pool == "map"):
                    rows, where = part
                    self.bytes += self._extraction.add(tap.layer, tap.pool, keys[where], rows)
                    self.rows[str(tap)] += len(rows)
                waiting.clear()
        self._size, self._since = 0, time.monotonic()


def _by_width(rows: np.ndarray, narrow: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows, where) pairs: float32, or float16 with the rows that would overflow it kept in float32."""
    everywhere = np.arange(len(rows))
    if not narrow:
        return [(rows, everywhere)]
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16)
    fits = np.isfinite(half).reshape(len(rows), -1).all(axis=1)
    parts = [(half[fits], everywhere[fits]), (rows[~fits], everywhere[~fits])]
    return [part for part in parts if len(part[1])]
