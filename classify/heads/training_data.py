"""What heads are trained on and compared by: rows with labels, and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.feature_matrix import Matrix
from ..evaluate import metrics
from ..evaluate.trial import Score

Folds = tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True)
class Problem:
    """Rows that may be learnt from; the test split never gets here.

    features (rows, d); labels (rows,): class numbers; classes: how many; folds: (fit, score) row numbers, an image scored in
    one of them at most; images (rows,): the number of the image that each row shows, the same for its views; threads:
    processor threads to use.
    memo: what one head family made of the rows and the next may use.
    """

    features: Matrix
    labels: np.ndarray
    classes: int
    folds: Folds
    images: np.ndarray
    threads: int = 1
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> Problem:
        """The problem of arrays: features (n, ...), labels (n,), a row an image."""
        return cls(Matrix.of(features), labels, int(labels.max()) + 1, tuple(folds), np.arange(len(labels)))

    def score(self, answers: Sequence[np.ndarray], seconds: float = 0.0, detail: Mapping[str, Any] | None = None) -> Score:
        """The score of probabilities (rows to score, classes) for each fold, over all images held out, each counted once.

        The probabilities of one image's views are averaged; a row of them that is not finite counts as the same for all.
        Folds may differ much in size, as groups do, so that no mean is taken over them: accuracy is the share of `right`,
        which is what intervals and paired tests count.
        """
        right = np.zeros(int(self.images.max()) + 1, bool)
        accuracy, loss, counts = [], [], []
        for (_, rows), probabilities in zip(self.folds, answers, strict=True):
            images, first, places = np.unique(self.images[rows], return_index=True, return_inverse=True)
            known = np.isfinite(probabilities).all(axis=1, keepdims=True)
            mean = np.zeros((len(images), self.classes))
            np.add.at(mean, places, np.where(known, probabilities, 1 / self.classes))
            mean /= np.bincount(places)[:, None]
            labels = self.labels[rows][first]
            right[images] = mean.argmax(axis=1) == labels
            accuracy.append(float(right[images].mean()))
            loss.append(metrics.log_loss(labels, mean))
            counts.append(len(images))
        return Score(
            accuracy=float(right.sum() / sum(counts)),
            log_loss=float(np.average(loss, weights=counts)),
            folds=tuple(accuracy),
            seconds=seconds,
            right=np.packbits(right).tobytes().hex(),
            detail=dict(detail or {}),
        )
