"""The data that heads are trained and scored on: rows with labels, and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data.feature_matrix import FeatureMatrix
from ..evaluate.single_label import SingleLabel
from ..evaluate.target import Target
from ..evaluate.trial import Score

Folds = tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True)
class TrainingData:
    """Rows that heads may be trained on; they never include the test split.

    Parameters
    ----------
    features
        Rows (n, d).
    labels : ndarray of shape (n, …)
        Labels as encoded by `target`: class numbers (n,) for single labels.
    target
        The kind of labels; its class names include classes without rows.
    folds
        (fit, score) row numbers; an image is scored in one fold at most.
    images : ndarray of shape (n,)
        The image number of each row, the same for all its views.
    threads
        Number of threads.
    cache
        Results computed from the rows by one head family that the next may use.
    """

    features: FeatureMatrix
    labels: np.ndarray
    target: Target
    folds: Folds
    images: np.ndarray
    threads: int = 1
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_arrays(
        cls, features: np.ndarray, labels: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> TrainingData:
        """Return training data for features (n, ...), class numbers (n,) and folds, with one row per image."""
        target = SingleLabel.from_n_classes(int(labels.max()) + 1)
        return cls(FeatureMatrix.from_array(features), labels, target, tuple(folds), np.arange(len(labels)))

    @property
    def n_classes(self) -> int:
        """The number of classes, or of other outputs."""
        return self.target.n_outputs

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
        """Score predictions over all held-out images of the folds, each counted once.

        The probabilities of an image's views are averaged; a row that is not finite counts as equal probabilities for all
        classes. Accuracy is computed over all images instead of averaging folds, which may differ much in size if there
        are groups.

        Parameters
        ----------
        predictions
            For each fold the probabilities (rows to score, classes).
        seconds
            Elapsed time of training.
        fit_info
            What ``HeadFamily.fit`` needs to know, as JSON values.
        """
        correct = np.zeros(int(self.images.max()) + 1, bool)
        accuracy, loss, counts = [], [], []
        for (_, rows), probabilities in zip(self.folds, predictions, strict=True):
            images, first, inverse = np.unique(self.images[rows], return_index=True, return_inverse=True)
            mean = np.zeros((len(images), self.target.n_outputs))
            np.add.at(mean, inverse, self.target.replace_non_finite(probabilities))
            mean /= np.bincount(inverse)[:, None]
            labels = self.labels[rows][first]
            correct[images] = self.target.find_correct(labels, mean)
            accuracy.append(float(correct[images].mean()))
            loss.append(self.target.compute_loss(labels, mean))
            counts.append(len(images))
        return Score(
            accuracy=float(correct.sum() / sum(counts)),
            log_loss=float(np.average(loss, weights=counts)),
            folds=tuple(accuracy),
            seconds=seconds,
            correct=np.packbits(correct).tobytes().hex(),
            fit_info=dict(fit_info or {}),
        )
