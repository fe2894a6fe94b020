"""Whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .confidence_intervals import wilson_ci

BINS = 15
_MIN_BIN_SIZE = 10  # images, at least
_DRAWS, _NUMBERS = 1000, 1 << 25  # how often chance is drawn, and how many numbers that may take


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose predictions are about equally certain: mean confidence, and accuracy with its 95 % interval."""

    images: int
    confidence: float
    accuracy: float
    accuracy_95: tuple[float, float]


def compute_reliability_bins(labels: np.ndarray, probabilities: np.ndarray, effect: float = 1.0) -> list[ReliabilityBin]:
    """How often answers are right, by how sure they are: bins of about as many images each, 15 from 150 images on.

    Of each bin the images, their mean confidence and their accuracy with its 95 % interval. Answers that are equally sure
    lie in one bin, so that the order of images decides nothing. Bins of equal width would leave most of them all but empty,
    and the error of nearly empty bins is mostly noise (Nixon et al., Measuring calibration in deep learning, 2019,
    arXiv:1904.01685); for the same reason there are ten images to a bin where there are fewer than 150. The intervals are
    those of as many fewer images as `effect` says, `confidence_intervals.design_effect`.
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
    """The expected calibration error: the mean distance between confidence and accuracy (Guo et al., ICML 2017)."""
    total = sum(row.images for row in bins)
    return float(sum(row.images * abs(row.confidence - row.accuracy) for row in bins) / total)


def calibration_error_by_chance(probabilities: np.ndarray) -> float:
    """The calibration error that perfectly honest probabilities would show on average, for want of images.

    Seeded draws of whether each answer is right, as often as it says (Vaicenavicius et al., AISTATS 2019).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    rng, draws = np.random.default_rng(0), max(20, min(_DRAWS, _NUMBERS // len(confidence)))
    gap = 0.0
    for indices in _split_into_bins(confidence):
        n_correct = (rng.random((draws, len(indices))) < confidence[indices]).sum(axis=1)
        gap += float(np.abs(n_correct - confidence[indices].sum()).mean())
    return gap / len(confidence)


def _split_into_bins(confidence: np.ndarray) -> list[np.ndarray]:
    """Places (m,) of the images in each bin of confidence, least sure first."""
    count = max(1, min(BINS, len(confidence) // _MIN_BIN_SIZE))
    edges = np.quantile(confidence, np.arange(1, count) / count, method="higher")
    bin_ids = np.searchsorted(edges, confidence, side="right")
    return [np.nonzero(bin_ids == bin_id)[0] for bin_id in np.unique(bin_ids)]
