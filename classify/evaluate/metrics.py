"""Scores of predictions, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .calibration import ReliabilityBin, calibration_error, calibration_error_by_chance, compute_reliability_bins
from .confidence_intervals import design_effect, macro_average_ci, proportion_ci


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class: number of its `images`, precision, recall and F1."""

    class_name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class ClassificationScores:
    """Scores of predictions, as computed by `classification_report`.

    groups: number of groups of the images, None without groups. Fields that end in `_95` are 95 % intervals.
    top_5_accuracy: None for five classes or fewer. reliability: the bins that the calibration error is computed from.
    confusion: number of images by true class (rows) and predicted class (columns).
    """

    images: int
    groups: int | None
    accuracy: float
    accuracy_95: tuple[float, float]
    balanced_accuracy: float
    balanced_accuracy_95: tuple[float, float]
    macro_f1: float
    macro_f1_95: tuple[float, float]
    top_5_accuracy: float | None = None
    log_loss: float
    brier_score: float
    calibration_error: float
    calibration_error_by_chance: float
    reliability: tuple[ReliabilityBin, ...]
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of -log p(true class); probabilities (n, classes) are clipped at float32's resolution."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(true, np.finfo(np.float32).eps, 1.0)).mean())


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean squared distance of probabilities (n, classes) from the one-hot labels, 0 to 2 (Brier, 1950)."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(((probabilities.astype(np.float64) ** 2).sum(axis=1) - 2 * true + 1).mean())


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Return the proportion of images whose class is among the `k` most probable; ties go to the first classes."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def classification_report(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], groups: np.ndarray | None = None
) -> ClassificationScores:
    """Compute all scores of class probabilities.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Class numbers.
    probabilities : ndarray of shape (n, classes)
        Predicted probabilities.
    classes : sequence of str
        Class names.
    groups : ndarray of shape (n,), optional
        Group numbers, if images are not independent: the intervals of accuracy, balanced accuracy and macro-F1 are by
        groups, and those of the reliability bins are widened as that of accuracy is.

    Returns
    -------
    ClassificationScores
        Accuracy, balanced accuracy and macro-F1 (over the classes that occur) with their 95 % intervals, log-loss, Brier
        score, top-5 accuracy for more than five classes, expected calibration error with its bins and its value by
        chance, precision, recall, F1 and count of each class, and the confusion matrix.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    class_indices = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    effect = design_effect(correct, groups)
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predicted, labels=class_indices, zero_division=0.0
    )
    occurs = count > 0
    confusion = confusion_matrix(labels, predicted, labels=class_indices)
    balanced_95, f1_95 = macro_average_ci(confusion, effect)
    bins = compute_reliability_bins(labels, probabilities, effect)
    return ClassificationScores(
        images=len(labels),
        groups=None if groups is None else len(np.unique(groups)),
        accuracy=float(correct.mean()),
        accuracy_95=proportion_ci(correct, groups),
        balanced_accuracy=float(recall[occurs].mean()),
        balanced_accuracy_95=balanced_95,
        macro_f1=float(f1[occurs].mean()),
        macro_f1_95=f1_95,
        top_5_accuracy=top_k_accuracy(labels, probabilities, 5) if len(classes) > 5 else None,
        log_loss=log_loss(labels, probabilities),
        brier_score=brier_score(labels, probabilities),
        calibration_error=calibration_error(bins),
        calibration_error_by_chance=calibration_error_by_chance(probabilities),
        reliability=tuple(bins),
        per_class=tuple(
            ClassScores(name, int(n_images), float(class_precision), float(class_recall), float(class_f1))
            for name, n_images, class_precision, class_recall, class_f1 in zip(
                classes, count, precision, recall, f1, strict=True
            )
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
    )
