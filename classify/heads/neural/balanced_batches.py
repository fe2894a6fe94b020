"""Batches in which classes are balanced, so that every row has positives and negatives to be compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MIN_ROWS_PER_CLASS = 4  # rows of a class in a batch, at least, where it has as many


class BalancedBatches:
    """Row numbers of P classes with K rows each (P x K no more than `size`), both dealt from shuffled decks.

    P is as large as K of at least `MIN_ROWS_PER_CLASS` lets it be. A class with fewer than K rows gives each of them once;
    no batch has a row twice. Views of one image are rows like any other, and so positives of each other where a batch has
    several.
    """

    def __init__(self, labels: np.ndarray, size: int, rng: np.random.Generator) -> None:
        present_classes = np.unique(labels)
        self._n_rows, self._batch_size = len(labels), size
        classes_per_batch = min(len(present_classes), max(2, size // MIN_ROWS_PER_CLASS))
        self._rows_per_class = max(2, size // classes_per_batch)
        self._class_deck = _Deck(np.arange(len(present_classes)), classes_per_batch, rng)
        self._row_decks = [
            _Deck(np.nonzero(labels == class_id)[0], self._rows_per_class, rng) for class_id in present_classes
        ]

    def iterate_epoch(self) -> Iterator[np.ndarray]:
        """As many batches as would hold all rows once."""
        for _ in range(-(-self._n_rows // self._batch_size)):
            yield np.concatenate([self._row_decks[index].deal() for index in self._class_deck.deal()])


class _Deck:
    """Numbers dealt `count` at a time; what is too few for a whole hand is shuffled in again."""

    def __init__(self, numbers: np.ndarray, count: int, rng: np.random.Generator) -> None:
        self._numbers, self._count, self._rng = numbers, min(count, len(numbers)), rng
        self._remaining = numbers[:0]

    def deal(self) -> np.ndarray:
        if len(self._remaining) < self._count:
            self._remaining = self._rng.permutation(self._numbers)
        hand, self._remaining = self._remaining[: self._count], self._remaining[self._count :]
        return hand
