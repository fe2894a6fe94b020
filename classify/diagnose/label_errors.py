"""Images whose label is likely wrong, according to classifiers not trained on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..data.feature_matrix import FeatureMatrix
from ..data.group_sampling import assign_folds
from ..data.nearest_neighbors import find_neighbors
from ..evaluate import metrics
from ..evaluate.single_label import SingleLabel
from ..heads.linear.cv_fold import iter_folds
from ..heads.linear.ridge_solution import RidgeSolution
from ..heads.linear.temperature import fit_factors, mask_absent_classes, softmax
from ..heads.training_data import TrainingData

N_NEIGHBORS = 10
_PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)
_N_FOLDS = 5


@dataclass(frozen=True)
class LabelIssue:
    """An image with a doubtful label.

    row: its position. given_label, likely_label: class numbers; given_probability, likely_probability: their
    probabilities. votes: how many of its `N_NEIGHBORS` nearest other images have the given and the likely label, if that
    was counted.
    """

    row: int
    given_label: int
    likely_label: int
    probabilities: tuple[float, float]
    votes: tuple[int, int] | None = None


def find_label_issues(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelIssue]:
    """Find images that count as another class by confident learning, in ascending order of the given label's probability.

    The threshold of a class is its mean probability among the images labeled so. An image counts as the most probable
    class whose threshold its probability reaches (the confident joint of Northcutt, Jiang, Chuang, Confident learning:
    estimating uncertainty in dataset labels, Journal of Artificial Intelligence Research 70 (2021), arXiv 1911.00068,
    section 3.1). Its label is suspected if this is another class, and the given label is less probable and below its own
    threshold. A class without images has no threshold and is never likely; rows that are not finite are ignored.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Class numbers as given.
    probabilities : ndarray of shape (n, classes)
        Probabilities from classifiers not trained on the image.

    Returns
    -------
    list of LabelIssue
        The suspected images.
    """
    finite_mask = np.isfinite(probabilities).all(axis=1)
    finite_probabilities = np.where(finite_mask[:, None], probabilities, 0).astype(np.float64)
    given_probabilities = finite_probabilities[np.arange(len(labels)), labels]
    thresholds = np.full(finite_probabilities.shape[1], np.inf)
    for label in np.unique(labels[finite_mask]).tolist():
        thresholds[label] = given_probabilities[finite_mask & (labels == label)].mean()
    reached_probabilities = np.where(finite_probabilities >= thresholds, finite_probabilities, -1.0)
    likely_labels, likely_probabilities = reached_probabilities.argmax(axis=1), reached_probabilities.max(axis=1)
    rows = np.nonzero(
        finite_mask & (likely_probabilities > given_probabilities) & (given_probabilities < thresholds[labels])
    )[0]
    order = rows[np.lexsort((-likely_probabilities[rows], given_probabilities[rows]))]
    return [
        LabelIssue(
            row,
            int(labels[row]),
            int(likely_labels[row]),
            (float(given_probabilities[row]), float(likely_probabilities[row])),
        )
        for row in order.tolist()
    ]


def predict_out_of_fold(
    features: FeatureMatrix, labels: np.ndarray, groups: np.ndarray, n_classes: int, seed: int = 0
) -> np.ndarray:
    """Predict probabilities (n, classes) of each row with ridge classifiers fitted on the four fifths without its group.

    features (n, d), labels (n,), groups (n,): numbers. The penalty is the one of several with the lowest log-loss; the
    temperature of a fifth is fitted on the others. Ridge is used since all penalties share one eigendecomposition per
    fold.
    """
    import scipy.linalg  # noqa: F401 - its BLAS is a separate library, whose threads are limited only if it is loaded by then
    from threadpoolctl import threadpool_limits

    fold_ids = assign_folds(labels, groups, _N_FOLDS, seed)
    splits = [(np.nonzero(fold_ids != fold_id)[0], np.nonzero(fold_ids == fold_id)[0]) for fold_id in np.unique(fold_ids)]
    splits = [(fit_rows, score_rows) for fit_rows, score_rows in splits if len(np.unique(labels[fit_rows])) > 1]
    decisions = np.zeros((len(_PENALTIES), len(labels), n_classes))
    training_data = TrainingData(
        features, labels, SingleLabel.from_n_classes(n_classes), tuple(splits), np.arange(len(labels))
    )
    with threadpool_limits(1):  # folds are small: threads would wait for each other more than they compute
        for fold in iter_folds(training_data):
            solution = RidgeSolution.from_fold(fold)
            weights = np.hstack([solution.compute_weights(penalty) for penalty in _PENALTIES])
            fold_decisions = fold.compute_decisions(weights, np.tile(solution.bias, len(_PENALTIES)))
            for index, values in enumerate(np.split(fold_decisions, len(_PENALTIES), axis=1)):
                decisions[index, fold.score_rows] = mask_absent_classes(values, solution.counts)
    probabilities = [_to_probabilities(values, labels, fold_ids) for values in decisions]
    losses = [metrics.log_loss(labels, values) for values in probabilities]
    return probabilities[int(np.argmin(losses))]


def add_neighbor_votes(issues: list[LabelIssue], features: FeatureMatrix, labels: np.ndarray) -> list[LabelIssue]:
    """Add the votes of neighbors: labels of the nearest other rows of `features` (n, d), by cosine."""
    rows = np.array([issue.row for issue in issues], np.intp)
    all_rows = np.arange(len(labels))
    _, neighbor_rows = find_neighbors(features, rows, features, all_rows, min(N_NEIGHBORS + 1, len(labels)))
    issues_with_votes = []
    for issue, neighbors in zip(issues, neighbor_rows, strict=True):
        neighbor_labels = labels[neighbors[neighbors != issue.row][:N_NEIGHBORS]]
        votes = int((neighbor_labels == issue.given_label).sum()), int((neighbor_labels == issue.likely_label).sum())
        issues_with_votes.append(replace(issue, votes=votes))
    return issues_with_votes


def _to_probabilities(decisions: np.ndarray, labels: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
    """Return probabilities (n, classes) for decisions, each fold with the temperature fitted on the others."""
    _, temperatures = fit_factors(decisions, labels, fold_ids)
    return softmax(temperatures[fold_ids][:, None] * decisions)
