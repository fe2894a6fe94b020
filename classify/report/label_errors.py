"""Images whose label is likely to be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..matrix import Matrix
from ..neighbours import nearest

MOST = 20_000  # images that are looked at, each against each
NEIGHBOURS = 10


@dataclass(frozen=True)
class Suspect:
    """An image whose given label is doubted. row: its place; given, likely: class numbers.

    margin: how much more probable the likely class is than the given one, 0 to 1.
    """

    row: int
    given: int
    likely: int
    margin: float


def by_confidence(labels: np.ndarray, probabilities: np.ndarray) -> list[Suspect]:
    """Images that count as another class by confident learning, the clearest first.

    labels (n,): class numbers as given; probabilities (n, classes) of images that the classifier has not learnt from.

    The threshold of a class is the mean probability of it among the images labelled so. An image counts as the class that
    is the most probable of those whose threshold its probability reaches, and is suspected where that is not the given one
    (equation 1 and 2 of Northcutt, Jiang, Chuang, Confident learning: estimating uncertainty in dataset labels, Journal of
    Artificial Intelligence Research 70 (2021), arXiv 1911.00068; the off-diagonal of the confident joint), and where the
    given label is below its own threshold too. They are ranked by normalised margin: the given label's probability less
    the likely one's. A class without an image has no threshold and is never likely.
    """
    known = np.isfinite(probabilities).all(axis=1)
    given = np.where(known, probabilities[np.arange(len(labels)), labels], np.nan)
    thresholds = np.full(probabilities.shape[1], np.inf)
    for number in np.unique(labels[known]).tolist():
        thresholds[number] = given[known & (labels == number)].mean(dtype=np.float64)
    reached = np.where(known[:, None] & (probabilities >= thresholds - 1e-12), probabilities, -1.0)
    likely = reached.argmax(axis=1)
    best = reached.max(axis=1)
    rows = np.nonzero((best > 0) & (likely != labels) & (given < thresholds[labels]) & (best > given))[0]
    return _ranked(rows, labels, likely, best - given)


def by_neighbours(features: Matrix, labels: np.ndarray, classes: int, count: int = NEIGHBOURS) -> list[Suspect]:
    """Images most of whose `count` nearest others, by cosine, have one other label; the clearest first.

    features (n, d), labels (n,): class numbers, of images that may have been learnt from. An image has no vote about itself.
    Votes count by class size: the share of a class among the neighbours over its share among all, so that a common class
    does not outvote a rare one for being common. Compared are all of at most `MOST` images, blocks of rows at a time.
    """
    rows = np.arange(len(labels))
    kept = min(count, len(labels) - 1)
    if kept < 1:
        return []
    _, places = nearest(features, rows, features, rows, kept + 1)
    itself = places == rows[:, None]
    itself[:, -1] |= ~itself.any(axis=1)  # behind equal rows
    neighbours = labels[places[~itself].reshape(len(rows), kept)]
    votes = np.zeros((len(rows), classes))
    np.add.at(votes, (rows[:, None], neighbours), 1.0)
    share = np.bincount(labels, minlength=classes) / len(labels)
    weighted = votes / np.where(share > 0, share, 1)
    weighted /= weighted.sum(axis=1, keepdims=True)
    likely = weighted.argmax(axis=1)
    agreed = votes[rows, likely] > kept / 2
    doubted = np.nonzero(agreed & (likely != labels))[0]
    return _ranked(doubted, labels, likely, weighted[rows, likely] - weighted[rows, labels])


def _ranked(rows: np.ndarray, labels: np.ndarray, likely: np.ndarray, margins: np.ndarray) -> list[Suspect]:
    order = rows[np.argsort(-margins[rows], kind="stable")]
    return [Suspect(row, int(labels[row]), int(likely[row]), float(margins[row])) for row in order.tolist()]
