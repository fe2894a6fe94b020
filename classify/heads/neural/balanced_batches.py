"""Batches with balanced classes, so that every row has positives and negatives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MIN_ROWS_PER_CLASS = 4  # per batch, if the class has as many


class BalancedBatches:
    """Batches of P classes with K rows each, both drawn without replacement until too few are left.

    P is as large as possible for K of at least `MIN_ROWS_PER_CLASS`. A class with fewer than K rows contributes each of
    them once; no batch has a row twice. Views of one image are rows like any other, and so are positives of each other.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Class numbers.
    size
        Maximum number of rows per batch.
    rng
        Random generator for classes and rows.
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
        """Yield the row numbers of batches, as many as would cover all rows once."""
        for _ in range(-(-self._n_rows // self._batch_size)):
            yield np.concatenate([self._row_decks[index].deal() for index in self._class_deck.deal()])


class _Deck:
    """Numbers drawn `count` at a time without replacement; all are reshuffled when fewer are left."""

    def __init__(self, numbers: np.ndarray, count: int, rng: np.random.Generator) -> None:
        self._numbers, self._count, self._rng = numbers, min(count, len(numbers)), rng
        self._remaining = numbers[:0]

    def deal(self) -> np.ndarray:
        if len(self._remaining) < self._count:
            self._remaining = self._rng.permutation(self._numbers)
        hand, self._remaining = self._remaining[: self._count], self._remaining[self._count :]
        return hand
