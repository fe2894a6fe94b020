"""Index from keys to rows of shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_STEPS = 16


class RowIndex:
    """Index of the rows of one view in a list of shards, by key.

    Keys are digests, so their first 8 bytes are uniform: a table of where each prefix of leading bits begins is off by a
    row or two, where a binary search over 32-byte strings would miss the CPU cache seventeen times.

    Parameters
    ----------
    keys : sequence of np.ndarray
        The keys (n,) S32 of each shard.
    views : sequence of np.ndarray
        The view numbers (n,) of each shard's rows.
    view : int
        The view to index.
    """

    def __init__(self, keys: Sequence[np.ndarray], views: Sequence[np.ndarray], view: int) -> None:
        rows_by_shard = [np.nonzero(each == view)[0] for each in views]
        all_keys = np.concatenate(
            [each[rows] for each, rows in zip(keys, rows_by_shard, strict=True)] or [np.zeros(0, "S32")]
        )
        prefixes = _to_words(all_keys)[:, 0].astype(np.uint64)
        order = np.argsort(prefixes, kind="stable")
        self._key_words, self._prefixes = _to_words(all_keys)[order], prefixes[order]
        self._shard_numbers = np.repeat(np.arange(len(rows_by_shard)), [len(rows) for rows in rows_by_shard])[order]
        self._rows = np.concatenate([*rows_by_shard, np.zeros(0, np.int64)])[order]
        is_same_prefix = self._prefixes[1:] == self._prefixes[:-1]
        self._has_equal_prefixes = bool((is_same_prefix & ~_are_equal(self._key_words[1:], self._key_words[:-1])).any())
        self._shift = np.uint64(64 - max(1, len(order).bit_length()))
        boundaries = np.arange(1 << (64 - int(self._shift)), dtype=np.uint64) << self._shift
        self._starts = np.searchsorted(self._prefixes, boundaries)
        self._padded_prefixes = np.append(self._prefixes, np.uint64(2**64 - 1))

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard number (n,) and row (n,) of each of `keys` (n,) S32, -1 for missing keys."""
        if not len(self._prefixes):
            return np.full(len(keys), -1), np.full(len(keys), -1)
        words = _to_words(keys)
        prefixes = words[:, 0].astype(np.uint64)
        positions = np.minimum(self._find_first(prefixes), len(self._prefixes) - 1)
        is_hit = _are_equal(self._key_words[positions], words)
        if self._has_equal_prefixes:  # keys with the same first 8 bytes: never by chance, only if constructed
            self._search_all(words, prefixes, positions, is_hit)
        return np.where(is_hit, self._shard_numbers[positions], -1), np.where(is_hit, self._rows[positions], -1)

    def _find_first(self, prefixes: np.ndarray) -> np.ndarray:
        """Return the position of the first row whose prefix is not below each of `prefixes` (n,)."""
        positions: np.ndarray = self._starts[prefixes >> self._shift]
        for _ in range(_STEPS):
            is_below = self._padded_prefixes[positions] < prefixes
            if not is_below.any():
                return positions
            positions += is_below
        return np.searchsorted(self._prefixes, prefixes)

    def _search_all(self, words: np.ndarray, prefixes: np.ndarray, positions: np.ndarray, is_hit: np.ndarray) -> None:
        ends = np.searchsorted(self._prefixes, prefixes, side="right")
        for query in np.nonzero(~is_hit & (positions < ends))[0]:
            matches = np.nonzero(_are_equal(self._key_words[positions[query] : ends[query]], words[query]))[0]
            if len(matches):
                positions[query] += matches[0]
                is_hit[query] = True


def _to_words(keys: np.ndarray) -> np.ndarray:
    """Return keys (n,) S32 as big-endian words (n, 4), which sort like the keys."""
    return np.ascontiguousarray(keys).view(">u8").reshape(-1, 4)


def _are_equal(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the mask (n,) of equal rows of words (n, 4)."""
    is_same = np.ascontiguousarray(left == right)
    return np.equal(is_same.view(np.uint32).reshape(-1), 0x01010101)
