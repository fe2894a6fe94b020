"""Probabilities from decisions: a softmax with the temperature of lowest log-loss on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...evaluate.trial import Score
from ..training_data import TrainingData

_LOG_MIN, _LOG_MAX = np.log(1e-4), np.log(1e4)  # of the factor, for decisions with a mean spread of 1
_N_POINTS = 401  # between them, 5 % apart; the derivative is interpolated linearly


def softmax(decisions: np.ndarray) -> np.ndarray:
    """Return probabilities (n, classes); NaN for rows with a decision that is not finite (see `TrainingData.score`)."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(decisions - decisions.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def score_decisions(data: TrainingData, decisions: Sequence[np.ndarray], seconds: float) -> Score:
    """Score the decisions of every fold as probabilities.

    The decisions of a fold are divided by the temperature fitted on the other folds, so that no row is scored with a
    temperature fitted on it; with a single fold, each half of its images uses the temperature of the other half. Rows
    with decisions that are not finite get equal probabilities for all classes.

    Parameters
    ----------
    data
        Labels and folds.
    decisions
        For each fold an array (rows to score, classes).
    seconds
        Elapsed time of training.

    Returns
    -------
    Score
        ``fit_info["temperature"]`` is fitted on all folds, for the head that is fitted on all rows.
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
    """Set the decisions of classes without fit rows to the lowest of the others.

    decisions: (n, classes). counts: fit rows of each class, (classes,).
    """
    minimum = decisions[:, counts > 0].min(axis=1, keepdims=True)
    return np.asarray(np.where(counts > 0, decisions, minimum))


def split_halves(labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Divide rows into halves 0 and 1: the images of a class alternate, and views stay with their image."""
    _, first, inverse = np.unique(images, return_index=True, return_inverse=True)
    half_ids = np.empty(len(first), np.intp)
    half_ids[np.argsort(labels[first], kind="stable")] = np.arange(len(first)) % 2
    return half_ids[inverse]


def fit_factors(decisions: np.ndarray, labels: np.ndarray, part_ids: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit the factor (inverse temperature) by which decisions are multiplied before a softmax.

    It minimizes the mean cross-entropy on held-out rows, which is convex in the factor (Guo, Pleiss, Sun, Weinberger: On
    calibration of modern neural networks, ICML 2017, arXiv:1706.04599). It would be infinite if all rows are classified
    correctly, so labels are smoothed as Platt does for two classes (Probabilistic outputs for support vector machines,
    1999): the target of a row's own class is (n + 1) / (n + 2), for n rows of that class. With k classes the remainder is
    2 / k of that for two, since all classes share one factor: about two rows in total count as errors. The remainder is
    the target of the highest other decision, so that classes far below have no effect. If no positive factor is better
    than another, as for uninformative decisions, it is almost 0.

    Parameters
    ----------
    decisions : ndarray of shape (n, classes)
        Decisions for held-out rows.
    labels : ndarray of shape (n,)
        Class numbers.
    part_ids : ndarray of shape (n,)
        The part of each row, starting at 0.

    Returns
    -------
    overall_factor : float
        Factor of all rows.
    other_factors : ndarray of shape (parts,)
        For each part, the factor of all other parts, or its own if there is only one part.
    """
    sums = _SlopeSums(decisions.astype(np.float64), labels, part_ids)
    all_parts = np.ones(sums.n_parts, bool)
    other_factors = [
        sums.find_factor(all_parts if sums.n_parts == 1 else np.arange(sums.n_parts) != part) for part in range(sums.n_parts)
    ]
    return sums.find_factor(all_parts), np.array(other_factors)


class _SlopeSums:
    """The terms of the derivative of the loss for each part of the rows; those of a union of parts add up."""

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
        """Return the factor at which the derivative of the loss over the selected parts is 0."""
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
        """Return for each part the sum over rows of the mean decision under the softmax with a factor."""
        if point not in self._slopes:
            powers = np.exp(self._to_factor(point) * self._centered)
            means = np.einsum("ij,ij->i", powers, self._centered) / powers.sum(axis=1)
            self._slopes[point] = np.bincount(self._part_ids, means, self.n_parts)
        return self._slopes[point]

    def _to_factor(self, point: float) -> float:
        return float(np.exp(_LOG_MIN + (_LOG_MAX - _LOG_MIN) * point / (_N_POINTS - 1)) / self._scale)
