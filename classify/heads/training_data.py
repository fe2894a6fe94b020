"""What heads are trained on and scored by: rows with labels, and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data.feature_matrix import FeatureMatrix
from ..evaluate import metrics
from ..evaluate.trial import Score

Folds = tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True)
class TrainingData:
    """Rows that heads may be trained on; they never include the test split.

    Parameters
    ----------
    features
        Rows (n, d).
    labels : ndarray of shape (n,)
        Class numbers.
    n_classes
        How many there are, those without a row included.
    folds
        (fit, score) row numbers; an image is scored in one fold at most.
    images : ndarray of shape (n,)
        The number of the image that each row shows, the same for its views.
    threads
        Processor threads to use.
    cache
        What one head family computed from the rows and the next may use.
    """

    features: FeatureMatrix
    labels: np.ndarray
    n_classes: int
    folds: Folds
    images: np.ndarray
    threads: int = 1
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_arrays(
        cls, features: np.ndarray, labels: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> TrainingData:
        """Training data of arrays: features (n, ...), labels (n,) and folds, with one row for each image."""
        return cls(FeatureMatrix.from_array(features), labels, int(labels.max()) + 1, tuple(folds), np.arange(len(labels)))

    def select_rows(self, rows: np.ndarray) -> TrainingData:
        """Copy some rows (m,) into memory, without folds."""
        features = self.features[rows].reshape(len(rows), *self.features.row_shape)
        return replace(
            self,
            features=FeatureMatrix.from_array(features),
            labels=self.labels[rows],
            images=self.images[rows],
            folds=(),
            cache={},
        )

    def score(
        self, predictions: Sequence[np.ndarray], seconds: float = 0.0, fit_info: Mapping[str, Any] | None = None
    ) -> Score:
        """Score predictions over all images that folds hold out, each counted once.

        The probabilities of an image's views are averaged; a row that is not finite counts as the same probability for every
        class. Accuracy is the share of all images, not a mean over folds, which may differ much in size, as groups do.

        Parameters
        ----------
        predictions
            For each fold the probabilities (rows to score, classes).
        seconds
            How long training took.
        fit_info
            What ``HeadFamily.fit`` needs to know, as JSON values.
        """
        correct = np.zeros(int(self.images.max()) + 1, bool)
        accuracy, loss, counts = [], [], []
        for (_, rows), probabilities in zip(self.folds, predictions, strict=True):
            images, first, inverse = np.unique(self.images[rows], return_index=True, return_inverse=True)
            is_finite = np.isfinite(probabilities).all(axis=1, keepdims=True)
            mean = np.zeros((len(images), self.n_classes))
            np.add.at(mean, inverse, np.where(is_finite, probabilities, 1 / self.n_classes))
            mean /= np.bincount(inverse)[:, None]
            labels = self.labels[rows][first]
            correct[images] = mean.argmax(axis=1) == labels
            accuracy.append(float(correct[images].mean()))
            loss.append(metrics.log_loss(labels, mean))
            counts.append(len(images))
        return Score(
            accuracy=float(correct.sum() / sum(counts)),
            log_loss=float(np.average(loss, weights=counts)),
            folds=tuple(accuracy),
            seconds=seconds,
            correct=np.packbits(correct).tobytes().hex(),
            fit_info=dict(fit_info or {}),
        )
