"""One class for each image: class numbers, softmax, accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ...cache.errors import DataError
from . import metrics
from .target import Target


@dataclass(frozen=True)
class SingleLabel(Target):
    """One class per image; predictions are class probabilities.

    Labels are encoded as class numbers (n,), as scikit-learn's ``LabelEncoder`` does: class names are sorted.
    """

    name: ClassVar[str] = "single_label"
    activation: ClassVar[str] = "softmax"
    loss: ClassVar[str] = "CategoricalCrossentropy"

    @classmethod
    def matches(cls, labels: Sequence[str]) -> bool:  # noqa: ARG003 - any text is the name of a class
        """Return True: all labels that no other target accepts are classes."""
        return True

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> Self:
        """Return the target whose classes are the distinct labels, sorted."""
        return cls(tuple(sorted(set(labels))))

    @classmethod
    def from_n_classes(cls, n_classes: int) -> Self:
        """Return a target whose class names are numbers."""
        return cls(tuple(map(str, range(n_classes))))

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """Return class numbers (n,); raises `DataError` for a class that is not in the data set."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        unknown_label = next((label for label in labels if label not in numbers), None)
        if unknown_label is not None:
            raise DataError(f"label {unknown_label!r}: no such class (classes: {', '.join(self.class_names)})")
        return np.array([numbers[label] for label in labels], np.int64)

    def decode(self, labels: np.ndarray) -> list[str]:
        """Return the class names of class numbers (n,)."""
        return [self.class_names[number] for number in labels.tolist()]

    def to_matrix(self, labels: np.ndarray) -> np.ndarray:
        """Return class numbers (n,) one-hot encoded, (n, classes) float32."""
        return np.asarray(np.eye(len(self.class_names), dtype=np.float32)[labels])

    def stratify(self, labels: np.ndarray) -> np.ndarray:
        """Return the class numbers themselves."""
        return labels

    def decide(self, predictions: np.ndarray) -> np.ndarray:
        """Return the most probable class (n,); ties go to the first."""
        return np.asarray(predictions.argmax(axis=-1))

    def find_correct(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Return a mask (n,) of the images whose most probable class is their own."""
        return np.asarray(self.decide(predictions) == labels)

    def find_disagreements(self, reference: np.ndarray, predictions: np.ndarray, margin: float = -math.inf) -> np.ndarray:
        """Return a mask (n,) of the images with another class that is also less probable by more than `margin`."""
        classes = self.decide(predictions)
        gaps = reference.max(axis=1) - reference[np.arange(len(reference)), classes]
        return np.asarray((self.decide(reference) != classes) & (gaps > margin))

    def replace_non_finite(self, predictions: np.ndarray) -> np.ndarray:
        """Return predictions with equal probabilities for rows that are not finite."""
        is_finite = np.isfinite(predictions).all(axis=-1, keepdims=True)
        return np.where(is_finite, predictions, 1 / predictions.shape[-1])

    def compute_loss(self, labels: np.ndarray, predictions: np.ndarray) -> float:
        """Return the log-loss."""
        return metrics.log_loss(labels, predictions)

    def score(
        self, labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray | None = None
    ) -> metrics.ClassificationScores:
        """Return the scores of `metrics.classification_report`."""
        return metrics.classification_report(labels, predictions, self.class_names, groups)

    def rank_classes(self, prediction: np.ndarray, top: int) -> tuple[tuple[str, float], ...]:
        """Return the `top` most probable classes with their probabilities."""
        best = np.argsort(-prediction, kind="stable")[:top]
        return tuple((self.class_names[number], float(prediction[number])) for number in best.tolist())
