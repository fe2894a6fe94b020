"""Images whose label is likely to be wrong, by classifiers that have not seen it."""

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
    """An image whose given label is doubted.

    row: its place. given_label, likely_label: class numbers; probabilities: their probabilities.
    votes: how many of its `N_NEIGHBORS` nearest other images have the given and the likely label, where that was counted.
    """

    row: int
    given_label: int
    likely_label: int
    probabilities: tuple[float, float]
    votes: tuple[int, int] | None = None


def find_label_issues(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelIssue]:
    """Images that count as another class by confident learning, those least like their label first.

    labels (n,): class numbers as given; probabilities (n, classes) by a classifier that has not learnt from the image.

    The threshold of a class is the mean probability of it among the images labelled so. An image counts as that class, of
    those whose threshold its probability reaches, that is the most probable (the confident joint of Northcutt, Jiang,
    Chuang, Confident learning: estimating uncertainty in dataset labels, Journal of Artificial Intelligence Research 70
    (2021), arXiv 1911.00068, section 3.1). It is suspected where that is not the given one, and the given label is below its
    own threshold and less probable. They are ranked by the given label's probability. A class without an image has no
    threshold and is never likely; rows that are not finite are passed over.
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
    """Probabilities (n, classes) of each row by a ridge classifier fitted on the four fifths that its group is not in.

    features (n, d), labels (n,), groups (n,): numbers. The penalty is the one of a few with the least log-loss, and the
    temperature of a fifth is that of the others. Ridge, because all penalties cost one eigendecomposition of a fold.
    """
    import scipy.linalg  # noqa: F401 - its BLAS is a library of its own, limited only where it is loaded by then
    from threadpoolctl import threadpool_limits

    fold_ids = assign_folds(labels, groups, _N_FOLDS, seed)
    splits = [(np.nonzero(fold_ids != fold_id)[0], np.nonzero(fold_ids == fold_id)[0]) for fold_id in np.unique(fold_ids)]
    splits = [(fit_rows, score_rows) for fit_rows, score_rows in splits if len(np.unique(labels[fit_rows])) > 1]
    decisions = np.zeros((len(_PENALTIES), len(labels), n_classes))
    training_data = TrainingData(
        features, labels, SingleLabel.from_n_classes(n_classes), tuple(splits), np.arange(len(labels))
    )
    with threadpool_limits(1):  # the folds are small: threads would wait for each other more than they work
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
    """The suspects with their neighbours' votes: the labels of the nearest other rows of `features` (n, d), by cosine."""
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
    """Probabilities (n, classes) of decisions, each part at the temperature of the others."""
    _, temperatures = fit_factors(decisions, labels, fold_ids)
    return softmax(temperatures[fold_ids][:, None] * decisions)
