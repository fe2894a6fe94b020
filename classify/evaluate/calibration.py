"""Calibration of probabilities: reliability bins and expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .confidence_intervals import wilson_ci

BINS = 15
_MIN_BIN_SIZE = 10  # images per bin, at least
_DRAWS, _NUMBERS = 1000, 1 << 25  # number of simulations, and the limit of random numbers for them


@dataclass(frozen=True)
class ReliabilityBin:
    """Images with similar confidence: their mean confidence, and accuracy with its 95 % interval."""

    images: int
    confidence: float
    accuracy: float
    accuracy_95: tuple[float, float]


def compute_reliability_bins(labels: np.ndarray, probabilities: np.ndarray, effect: float = 1.0) -> list[ReliabilityBin]:
    """Divide predictions by confidence into bins of about equal size, 15 bins from 150 images on.

    Predictions with equal confidence are in one bin, so that the order of images does not matter. With bins of equal
    width most would be almost empty, and the error of nearly empty bins is mostly noise (Nixon et al., Measuring
    calibration in deep learning, 2019, arXiv:1904.01685); for the same reason bins have ten images if there are fewer
    than 150.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Class numbers.
    probabilities : ndarray of shape (n, classes)
        Predicted probabilities.
    effect : float
        The `confidence_intervals.design_effect`, by which the number of images is divided for the intervals.

    Returns
    -------
    list of ReliabilityBin
        The bins, least confident first.
    """
    confidence, correct = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    rows = []
    for indices in _split_into_bins(confidence):
        n_correct = int(correct[indices].sum())
        rows.append(
            ReliabilityBin(
                images=len(indices),
                confidence=float(confidence[indices].mean()),
                accuracy=n_correct / len(indices),
                accuracy_95=wilson_ci(n_correct / effect, len(indices) / effect),
            )
        )
    return rows


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error: the mean distance between confidence and accuracy (Guo et al., ICML 2017)."""
    total = sum(row.images for row in bins)
    return float(sum(row.images * abs(row.confidence - row.accuracy) for row in bins) / total)


def calibration_error_by_chance(probabilities: np.ndarray) -> float:
    """Return the calibration error that perfectly calibrated probabilities would have on average on so few images.

    By seeded simulation of correct predictions from their confidence (Vaicenavicius et al., AISTATS 2019).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    rng, draws = np.random.default_rng(0), max(20, min(_DRAWS, _NUMBERS // len(confidence)))
    gap = 0.0
    for indices in _split_into_bins(confidence):
        n_correct = (rng.random((draws, len(indices))) < confidence[indices]).sum(axis=1)
        gap += float(np.abs(n_correct - confidence[indices].sum()).mean())
    return gap / len(confidence)


def _split_into_bins(confidence: np.ndarray) -> list[np.ndarray]:
    """Return the positions (m,) of the images in each bin of confidence, least confident first."""
    count = max(1, min(BINS, len(confidence) // _MIN_BIN_SIZE))
    edges = np.quantile(confidence, np.arange(1, count) / count, method="higher")
    bin_ids = np.searchsorted(edges, confidence, side="right")
    return [np.nonzero(bin_ids == bin_id)[0] for bin_id in np.unique(bin_ids)]
