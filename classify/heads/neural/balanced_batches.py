"""Batches in which classes are balanced, so that every row has positives and negatives to be compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

EACH = 4  # rows of a class in a batch, at least, where it has as many


class Batches:
    """Row numbers of P classes with K rows each (P x K no more than `size`), both dealt from shuffled decks.

    P is as large as K of at least `EACH` lets it be. A class with fewer than K rows gives each of them once; no batch has a
    row twice. Views of one image are rows like any other, and so positives of each other where a batch has several.
    """

    def __init__(self, labels: np.ndarray, size: int, random: np.random.Generator) -> None:
        present = np.unique(labels)
        self._rows, self._size = len(labels), size
        together = min(len(present), max(2, size // EACH))
        self._each = max(2, size // together)
        self._classes = _Deck(np.arange(len(present)), together, random)
        self._members = [_Deck(np.nonzero(labels == number)[0], self._each, random) for number in present]

    def epoch(self) -> Iterator[np.ndarray]:
        """As many batches as would hold all rows once."""
        for _ in range(-(-self._rows // self._size)):
            yield np.concatenate([self._members[place].deal() for place in self._classes.deal()])


class _Deck:
    """Numbers dealt `count` at a time; what is too few for a whole hand is shuffled in again."""

    def __init__(self, numbers: np.ndarray, count: int, random: np.random.Generator) -> None:
        self._numbers, self._count, self._random = numbers, min(count, len(numbers)), random
        self._left = numbers[:0]

    def deal(self) -> np.ndarray:
        if len(self._left) < self._count:
            self._left = self._random.permutation(self._numbers)
        hand, self._left = self._left[: self._count], self._left[self._count :]
        return hand
