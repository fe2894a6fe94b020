"""Which row of which shard holds a key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_STEPS = 16


class Index:
    """The rows of one view in a list of shards, by key.

    keys: for each shard the keys (n,) S32; views: the views (n,) of its rows. Keys are digests, so their first 8 bytes
    are spread evenly: a table of where each of their leading bits begins leads to within a row or two of the place, where
    a binary search over 32-byte strings would miss the processor's cache seventeen times on the way.
    """

    def __init__(self, keys: Sequence[np.ndarray], views: Sequence[np.ndarray], view: int) -> None:
        where = [np.nonzero(each == view)[0] for each in views]
        known = np.concatenate([each[rows] for each, rows in zip(keys, where, strict=True)] or [np.zeros(0, "S32")])
        heads = _words(known)[:, 0].astype(np.uint64)
        order = np.argsort(heads, kind="stable")
        self._known, self._heads = _words(known)[order], heads[order]
        self._numbers = np.repeat(np.arange(len(where)), [len(rows) for rows in where])[order]
        self._rows = np.concatenate([*where, np.zeros(0, np.int64)])[order]
        same = self._heads[1:] == self._heads[:-1]
        self._alike = bool((same & ~_equal(self._known[1:], self._known[:-1])).any())
        self._shift = np.uint64(64 - max(1, len(order).bit_length()))
        leading = np.arange(1 << (64 - int(self._shift)), dtype=np.uint64) << self._shift
        self._starts = np.searchsorted(self._heads, leading)
        self._padded = np.append(self._heads, np.uint64(2**64 - 1))

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of `keys` (n,) S32: shard number (n,) and row (n,), or -1 where there is none."""
        if not len(self._heads):
            return np.full(len(keys), -1), np.full(len(keys), -1)
        wanted = _words(keys)
        heads = wanted[:, 0].astype(np.uint64)
        at = np.minimum(self._first(heads), len(self._heads) - 1)
        hit = _equal(self._known[at], wanted)
        if self._alike:  # two keys that begin alike: not in this universe, unless somebody made them so
            self._search_all(wanted, heads, at, hit)
        return np.where(hit, self._numbers[at], -1), np.where(hit, self._rows[at], -1)

    def _first(self, heads: np.ndarray) -> np.ndarray:
        """Where the first row lies whose head is not below each of `heads` (n,)."""
        at: np.ndarray = self._starts[heads >> self._shift]
        for _ in range(_STEPS):
            behind = self._padded[at] < heads
            if not behind.any():
                return at
            at += behind
        return np.searchsorted(self._heads, heads)

    def _search_all(self, wanted: np.ndarray, heads: np.ndarray, at: np.ndarray, hit: np.ndarray) -> None:
        ends = np.searchsorted(self._heads, heads, side="right")
        for number in np.nonzero(~hit & (at < ends))[0]:
            same = np.nonzero(_equal(self._known[at[number] : ends[number]], wanted[number]))[0]
            if len(same):
                at[number] += same[0]
                hit[number] = True


def _words(keys: np.ndarray) -> np.ndarray:
    """Keys (n,) S32 as big-endian words (n, 4), which sort as the keys do."""
    return np.ascontiguousarray(keys).view(">u8").reshape(-1, 4)


def _equal(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask (n,) of equal rows of words (n, 4)."""
    same = np.ascontiguousarray(some == others)
    return np.equal(same.view(np.uint32).reshape(-1), 0x01010101)
