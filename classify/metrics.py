"""How good predictions are, with how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927): it stays inside [0, 1] and holds near both ends."""
    z = 1.959963984540054
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log p(true class), natural logarithm; probabilities (n, classes) are clipped at float32's resolution."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(true, np.finfo(np.float32).eps, 1.0)).mean())


def report(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Scores of probabilities (n, classes) against labels (n,), as JSON values.

    Accuracy with its 95 % interval, balanced accuracy (over the classes that occur), macro-F1, log-loss, per class
    precision, recall, F1 and count, and the confusion matrix (rows are true classes).
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    right = int((predicted == labels).sum())
    precision, recall, f1, count = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0.0)
    occurs = count > 0
    return {
        "images": len(labels),
        "accuracy": right / len(labels),
        "accuracy_95": list(wilson(right, len(labels))),
        "balanced_accuracy": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "log_loss": log_loss(labels, probabilities),
        "per_class": [
            {
                "class": name,
                "images": int(count[number]),
                "precision": float(precision[number]),
                "recall": float(recall[number]),
                "f1": float(f1[number]),
            }
            for number, name in enumerate(classes)
        ],
        "confusion": confusion_matrix(labels, predicted, labels=numbers).tolist(),
    }
