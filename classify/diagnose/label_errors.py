"""Images whose label is likely to be wrong, by classifiers that have not seen it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..data.feature_matrix import Matrix
from ..data.group_sampling import parts
from ..data.nearest_neighbors import nearest
from ..evaluate import metrics
from ..heads.families.ridge import Solution
from ..heads.linear.cv_fold import folds
from ..heads.linear.temperature import factors, present, softmax
from ..heads.training_data import Problem

NEIGHBOURS = 10
_PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)
_FOLDS = 5


@dataclass(frozen=True)
class Suspect:
    """An image whose given label is doubted. row: its place. given, likely: class numbers; shares: their probabilities.

    votes: how many of its `NEIGHBOURS` nearest other images have the given and the likely label, where that was counted.
    """

    row: int
    given: int
    likely: int
    shares: tuple[float, float]
    votes: tuple[int, int] | None = None


def by_confidence(labels: np.ndarray, probabilities: np.ndarray) -> list[Suspect]:
    """Images that count as another class by confident learning, those least like their label first.

    labels (n,): class numbers as given; probabilities (n, classes) by a classifier that has not learnt from the image.

    The threshold of a class is the mean probability of it among the images labelled so. An image counts as that class, of
    those whose threshold its probability reaches, that is the most probable (the confident joint of Northcutt, Jiang,
    Chuang, Confident learning: estimating uncertainty in dataset labels, Journal of Artificial Intelligence Research 70
    (2021), arXiv 1911.00068, section 3.1). It is suspected where that is not the given one, and the given label is below its
    own threshold and less probable. They are ranked by the given label's probability. A class without an image has no
    threshold and is never likely; rows that are not finite are passed over.
    """
    known = np.isfinite(probabilities).all(axis=1)
    shares = np.where(known[:, None], probabilities, 0).astype(np.float64)
    given = shares[np.arange(len(labels)), labels]
    thresholds = np.full(shares.shape[1], np.inf)
    for number in np.unique(labels[known]).tolist():
        thresholds[number] = given[known & (labels == number)].mean()
    reached = np.where(shares >= thresholds, shares, -1.0)
    likely, best = reached.argmax(axis=1), reached.max(axis=1)
    rows = np.nonzero(known & (best > given) & (given < thresholds[labels]))[0]
    order = rows[np.lexsort((-best[rows], given[rows]))]
    return [
        Suspect(row, int(labels[row]), int(likely[row]), (float(given[row]), float(best[row]))) for row in order.tolist()
    ]


def held_out(features: Matrix, labels: np.ndarray, groups: np.ndarray, classes: int, seed: int = 0) -> np.ndarray:
    """Probabilities (n, classes) of each row by a ridge classifier fitted on the four fifths that its group is not in.

    features (n, d), labels (n,), groups (n,): numbers. The penalty is the one of a few with the least log-loss, and the
    temperature of a fifth is that of the others. Ridge, because all penalties cost one eigendecomposition of a fold.
    """
    import scipy.linalg  # noqa: F401 - its BLAS is a library of its own, limited only where it is loaded by then
    from threadpoolctl import threadpool_limits

    number = parts(labels, groups, _FOLDS, seed)
    pairs = [(np.nonzero(number != part)[0], np.nonzero(number == part)[0]) for part in np.unique(number)]
    pairs = [(fit, score) for fit, score in pairs if len(np.unique(labels[fit])) > 1]
    decisions = np.zeros((len(_PENALTIES), len(labels), classes))
    problem = Problem(features, labels, classes, tuple(pairs), np.arange(len(labels)))
    with threadpool_limits(1):  # the folds are small: threads would wait for each other more than they work
        for fold in folds(problem):
            solution = Solution.of(fold)
            weights = np.hstack([solution.weights(penalty) for penalty in _PENALTIES])
            answers = fold.answers(weights, np.tile(solution.bias, len(_PENALTIES)))
            for place, each in enumerate(np.split(answers, len(_PENALTIES), axis=1)):
                decisions[place, fold.score_rows] = present(each, solution.counts)
    found = [_probable(each, labels, number) for each in decisions]
    losses = [metrics.log_loss(labels, each) for each in found]
    return found[int(np.argmin(losses))]


def witnessed(suspects: list[Suspect], features: Matrix, labels: np.ndarray) -> list[Suspect]:
    """The suspects with their neighbours' votes: the labels of the nearest other rows of `features` (n, d), by cosine."""
    rows = np.array([suspect.row for suspect in suspects], np.intp)
    everyone = np.arange(len(labels))
    _, places = nearest(features, rows, features, everyone, min(NEIGHBOURS + 1, len(labels)))
    told = []
    for suspect, near in zip(suspects, places, strict=True):
        others = labels[near[near != suspect.row][:NEIGHBOURS]]
        votes = int((others == suspect.given).sum()), int((others == suspect.likely).sum())
        told.append(replace(suspect, votes=votes))
    return told


def _probable(decisions: np.ndarray, labels: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of decisions, each part at the temperature of the others."""
    _, others = factors(decisions, labels, part)
    return softmax(others[part][:, None] * decisions)
