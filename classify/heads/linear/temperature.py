"""Probabilities from decisions: a softmax at the temperature with the lowest log-loss on rows held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...evaluate.trial import Score
from ..training_data import TrainingData

_LOG_MIN, _LOG_MAX = np.log(1e-4), np.log(1e4)  # of the factor, where decisions spread by 1 on average
_N_POINTS = 401  # between them, 5 % apart; the derivative is interpolated linearly


def softmax(decisions: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes); NaN in rows with a decision that is not finite, as `TrainingData.score` accepts."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(decisions - decisions.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def score_decisions(data: TrainingData, decisions: Sequence[np.ndarray], seconds: float) -> Score:
    """Score the decisions of every fold as probabilities.

    The decisions of a fold are divided by the temperature that fits the other folds, so that no row is scored with one
    fitted on it; with a single fold, each half of its images has the temperature of the other. Rows with decisions that
    are not finite get the same probability for every class.

    Parameters
    ----------
    data
        Labels and folds.
    decisions
        For each fold an array (rows to score, classes).
    seconds
        How long training took.

    Returns
    -------
    Score
        ``detail["temperature"]`` fits all folds, and is for the head that is fitted on all rows.
    """
    all_decisions = np.concatenate(decisions).astype(np.float64)
    all_decisions[~np.isfinite(all_decisions).all(axis=1)] = 0
    labels = np.concatenate([data.labels[held_out] for _, held_out in data.folds])
    lengths = [len(held_out) for _, held_out in data.folds]
    if len(lengths) > 1:
        part_ids = np.repeat(np.arange(len(lengths)), lengths)
    else:
        part_ids = split_halves(labels, data.images[data.folds[0][1]])
    overall_factor, other_factors = fit_factors(all_decisions, labels, part_ids)
    predictions = softmax(other_factors[part_ids][:, None] * all_decisions)
    return data.score(np.split(predictions, np.cumsum(lengths)[:-1]), seconds, {"temperature": 1 / overall_factor})


def mask_absent_classes(decisions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Give classes without fit rows the lowest decision of the others; decisions (n, classes), counts (classes,)."""
    minimum = decisions[:, counts > 0].min(axis=1, keepdims=True)
    return np.asarray(np.where(counts > 0, decisions, minimum))


def split_halves(labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Divide rows into halves 0 and 1: the images of a class alternate in their order, and views stay with their image."""
    _, first, inverse = np.unique(images, return_index=True, return_inverse=True)
    half_ids = np.empty(len(first), np.intp)
    half_ids[np.argsort(labels[first], kind="stable")] = np.arange(len(first)) % 2
    return half_ids[inverse]


def fit_factors(decisions: np.ndarray, labels: np.ndarray, part_ids: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit the factor (one over the temperature) by which decisions are multiplied before a softmax.

    It minimises the mean cross-entropy on rows that the decisions were not fitted to, which is convex in it (Guo, Pleiss,
    Sun, Weinberger: On calibration of modern neural networks, ICML 2017, arXiv:1706.04599). If all rows are classified
    correctly it would be infinite, so that labels are smoothed as Platt smooths those of two classes (Probabilistic outputs
    for support vector machines, 1999): a row's own class has the target (n + 1) / (n + 2), where n rows are of that class.
    With k classes the remainder is 2 / k of that for two, because all classes share one factor: about two rows in all count
    as errors. The remainder is the target of the highest of the other decisions, so that classes far below have no effect.
    If no factor above 0 is better than another, as for uninformative decisions, it is almost 0.

    Parameters
    ----------
    decisions : ndarray of shape (n, classes)
        Of rows held out.
    labels : ndarray of shape (n,)
        Class numbers.
    part_ids : ndarray of shape (n,)
        The part of each row, from 0 on.

    Returns
    -------
    overall_factor : float
        Of all rows.
    other_factors : ndarray of shape (parts,)
        For each part that of the rows of all other parts, or of its own if there is one part.
    """
    sums = _SlopeSums(decisions.astype(np.float64), labels, part_ids)
    all_parts = np.ones(sums.n_parts, bool)
    other_factors = [
        sums.find_factor(all_parts if sums.n_parts == 1 else np.arange(sums.n_parts) != part) for part in range(sums.n_parts)
    ]
    return sums.find_factor(all_parts), np.array(other_factors)


class _SlopeSums:
    """The terms of the derivative of the loss for each part of the rows, so that a union of parts is their sum."""

    def __init__(self, decisions: np.ndarray, labels: np.ndarray, part_ids: np.ndarray) -> None:
        self.n_parts = int(part_ids.max()) + 1
        self._part_ids, self._centered = part_ids, decisions - decisions.max(axis=1, keepdims=True)
        positions, shape = np.arange(len(labels)), (self.n_parts, decisions.shape[1])
        label_values = self._centered[positions, labels]
        rivals = self._centered.copy()
        rivals[positions, labels] = -np.inf
        self._label_sums, self._gap_sums, self._row_counts = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for sums, values in (
            (self._label_sums, label_values),
            (self._gap_sums, rivals.max(axis=1) - label_values),
            (self._row_counts, 1),
        ):
            np.add.at(sums, (part_ids, labels), values)
        self._scale = float(-self._centered.mean()) or 1.0
        self._slopes: dict[int, np.ndarray] = {}

    def find_factor(self, part_mask: np.ndarray) -> float:
        """The factor at which the derivative of the loss over the chosen parts is 0."""
        row_counts = self._row_counts[part_mask].sum(axis=0)
        weights = 2 / len(row_counts) / (row_counts + 2)
        target = float((self._label_sums[part_mask].sum(axis=0) + weights * self._gap_sums[part_mask].sum(axis=0)).sum())

        def slope(point: int) -> float:
            return float(self._compute_means(point)[part_mask].sum()) - target

        low, high = 0, _N_POINTS - 1
        if slope(low) >= 0:
            return self._to_factor(low)
        if slope(high) <= 0:
            return self._to_factor(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        return self._to_factor(low + slope(low) / (slope(low) - slope(high)))

    def _compute_means(self, point: int) -> np.ndarray:
        """For each part, the sum over rows of the mean decision under the softmax at a factor."""
        if point not in self._slopes:
            powers = np.exp(self._to_factor(point) * self._centered)
            means = np.einsum("ij,ij->i", powers, self._centered) / powers.sum(axis=1)
            self._slopes[point] = np.bincount(self._part_ids, means, self.n_parts)
        return self._slopes[point]

    def _to_factor(self, point: float) -> float:
        return float(np.exp(_LOG_MIN + (_LOG_MAX - _LOG_MIN) * point / (_N_POINTS - 1)) / self._scale)
