"""How well features tell the classes apart, without training: LogME, H-score, nearest neighbours and centroids.

Features are (n, d) in any proportion. LogME and H-score need the features only through the singular values of (n, d) and
the classes' coordinates along its left singular vectors, which come from the smaller of the two Gram matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.feature_matrix import Matrix
from ..data.nearest_neighbors import nearest
from ..heads.layers import votes
from ..heads.training_data import Folds

NEIGHBOURS = 5
_GRID = 128  # first look at the ratio of precisions, in steps of its logarithm
_STEPS = 48  # golden sections after that: 1e-8 of a grid step
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Spectrum:
    """Squared singular values (r,) of features that are more than rounding, and where the classes lie in their space.

    classes (r, k): the squared coordinates, along the left singular vectors, of the k columns that are 1 for the images of a
    class and 0 elsewhere. vectors: those of the Gram matrix as columns, (n, r) or (d, r).
    """

    squared: np.ndarray
    classes: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Moments:
    """What the scores need of features (n, d): one matrix of min(n, d) squared numbers, whatever their size.

    gram: of the centred features, (n, n) where d >= n, else (d, d). norms (n,): squared lengths of the centred rows.
    indicators (n, k): 1 for the class of each row. sums (d, k), mean (d,): class sums of the centred features, and their
    mean, where d < n. shift (n,), level: centred features times their mean, and its squared length, where d >= n.
    """

    width: int
    gram: np.ndarray
    norms: np.ndarray
    indicators: np.ndarray
    sums: np.ndarray | None = None
    mean: np.ndarray | None = None
    shift: np.ndarray | None = None
    level: float = 0.0

    @classmethod
    def of(cls, features: Matrix, labels: np.ndarray) -> Moments:
        """The moments of features (n, d) with class numbers (n,), read once or twice, a block at a time.

        Sums are float64 of centred columns, so that a mean far from zero costs no digits.
        """
        count, width = features.shape
        indicators = np.eye(int(labels.max()) + 1)[labels]
        norms = np.zeros(count)
        if width >= count:
            gram, shift, level = np.zeros((count, count)), np.zeros(count), 0.0
            for _, values in features.column_blocks():
                block = values.astype(np.float64)
                mean = block.mean(axis=0)
                block -= mean
                gram += block @ block.T
                shift += block @ mean
                level += float(mean @ mean)
            return cls(width, gram, gram.diagonal().copy(), indicators, shift=shift, level=level)
        mean = sum(values.sum(axis=0, dtype=np.float64) for _, values in features.blocks()) / count
        gram, sums = np.zeros((width, width)), np.zeros((width, indicators.shape[1]))
        for places, values in features.blocks():
            block = values - mean
            gram += block.T @ block
            sums += block.T @ indicators[places]
            norms[places] = np.einsum("ij,ij->i", block, block)
        return cls(width, gram, norms, indicators, sums=sums, mean=mean)

    @property
    def counts(self) -> np.ndarray:
        """Images of each class (k,)."""
        return np.asarray(self.indicators.sum(axis=0))

    @cached_property
    def centred(self) -> Spectrum:
        """The spectrum of the features with their mean taken away."""
        return self._spectrum(self.gram, self.sums)

    @cached_property
    def plain(self) -> Spectrum:
        """The spectrum of the features as they are."""
        if self.sums is None:
            assert self.shift is not None
            return self._spectrum(self.gram + self.shift[:, None] + self.shift + self.level, None)
        assert self.mean is not None
        gram = self.gram + len(self.norms) * np.outer(self.mean, self.mean)
        return self._spectrum(gram, self.sums + np.outer(self.mean, self.counts))

    def rows(self, features: Matrix) -> Matrix:
        """The features, or where d >= n rows (n, r) with the same angles and distances: turned into their own span."""
        return features if self.sums is not None else Matrix.of(self.plain.vectors * np.sqrt(self.plain.squared))

    def _spectrum(self, gram: np.ndarray, sums: np.ndarray | None) -> Spectrum:
        values, vectors = np.linalg.eigh(gram)
        real = values > values[-1] * max(len(self.norms), self.width) * np.finfo(np.float64).eps
        values, vectors = values[real], vectors[:, real]
        along = vectors.T @ self.indicators if sums is None else vectors.T @ sums / np.sqrt(values)[:, None]
        return Spectrum(values, along**2, vectors)


def log_me(moments: Moments) -> float:
    """LogME: the largest evidence per image of a linear model of each class, averaged over classes; higher is better.

    For a column y of zeros and ones, evidence is log N(y; 0, F F' / alpha + I / beta) at the best alpha and beta. The best
    scale is in closed form for each ratio alpha / beta, and the ratio is found on a grid and then by golden section: the
    maximum that the published fixed point iterates to. The ratio is kept above rounding, where evidence would grow without
    bound for features that fit y exactly. The features are not centred, as published.

    You, Liu, Wang, Long: LogME: practical assessment of pre-trained models for transfer learning, ICML 2021,
    arXiv:2102.11005; You, Liu, Zhang, Wang, Jordan, Long: Ranking and tuning pre-trained models, JMLR 23 (2022).
    """
    squared, count, used = moments.plain.squared, len(moments.norms), moments.counts > 0
    inside = moments.plain.classes[:, used]
    outside = np.maximum(moments.counts[used] - inside.sum(axis=0), 0.0)
    scale = squared.max(initial=0.0) or 1.0
    squared = squared / scale

    def evidence(ratio: np.ndarray) -> np.ndarray:
        """At the ratios (k,), one for each class."""
        spread = squared[:, None] + ratio
        fit = (inside / spread).sum(axis=0) + outside / ratio
        logs = np.log(spread).sum(axis=0) + (count - len(squared)) * np.log(ratio)
        return np.asarray(-0.5 * (count * (np.log(2 * np.pi) + 1 + np.log(fit / count)) + logs))

    grid = np.linspace(np.log(count * np.finfo(np.float64).eps), np.log(1e6), _GRID)
    heights = np.array([evidence(np.full(used.sum(), np.exp(at))) for at in grid])
    best = heights.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, _GRID - 1)]
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        rising = evidence(np.exp(left)) < evidence(np.exp(right))
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    found = np.maximum(evidence(np.exp((low + high) / 2)), heights.max(axis=0))
    return float((found / count).mean())


def h_score(moments: Moments, shrinkage: float | None = None) -> float:
    """H-score: tr(cov(features)^-1 cov(class means)); higher is better.

    The covariance is shrunk towards a multiple of the identity, by Ledoit and Wolf's share unless `shrinkage` gives one:
    with 0 the score is the original one, which is the number of classes less one for *any* features of full rank with
    d >= n, and so ranks nothing there.

    Bao, Li, Huang, Zhang, Zheng, Zamir, Guibas: An information-theoretic approach to transferability in task transfer
    learning, ICIP 2019; Ibrahim, Ponomareva, Mazumder: Newer is not always better, 2021, arXiv:2110.06893; Ledoit, Wolf:
    A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis 88 (2004).
    """
    if not len(moments.centred.squared):
        return 0.0
    used = moments.counts > 0
    between = (moments.centred.classes[:, used] / moments.counts[used]).sum(axis=1)
    values = moments.centred.squared / len(moments.norms)
    mean = values.sum() / moments.width
    if shrinkage is None:
        shrinkage = _ledoit_wolf(moments, values)
    return float((between * (1 - shrinkage) * values / ((1 - shrinkage) * values + shrinkage * mean)).sum())


def _ledoit_wolf(moments: Moments, values: np.ndarray) -> float:
    """The share of the identity that makes the expected squared error of the covariance least; values (r,): its spectrum."""
    if moments.width == 1:  # a single variance is a multiple of the identity already
        return 0.0
    count, squares = len(moments.norms), float((values**2).sum())
    noise = (float((moments.norms**2).sum()) / count - squares) / count
    spread = squares - values.sum() ** 2 / moments.width
    return 1.0 if noise >= spread else max(0.0, noise / spread)


def knn_accuracy(features: Matrix, labels: np.ndarray, folds: Folds) -> float:
    """The mean accuracy over folds of the vote of the nearest rows by cosine similarity; a tie goes to the first class.

    It is scikit-learn's `KNeighborsClassifier(NEIGHBOURS, metric="cosine")`, with fewer neighbours where a fold has fewer
    rows.
    """
    classes, found = int(labels.max()) + 1, []
    for fit, score in folds:
        near, places = nearest(features, score, features, fit, NEIGHBOURS)
        answers = votes(near, labels[fit][places], classes, "uniform")
        found.append(float((answers.argmax(axis=1) == labels[score]).mean()))
    return float(np.mean(found))


def centroid_accuracy(features: Matrix, labels: np.ndarray, folds: Folds) -> float:
    """The mean accuracy over folds of the nearest class mean by Euclidean distance: scikit-learn's `NearestCentroid`."""
    classes, found = int(labels.max()) + 1, []
    for fit, score in folds:
        counts = np.bincount(labels[fit], minlength=classes)
        sums = np.zeros((classes, features.shape[1]))
        for places, values in features.blocks(fit):
            for number in np.unique(labels[fit[places]]):
                sums[number] += values[labels[fit[places]] == number].sum(axis=0, dtype=np.float64)
        present = np.nonzero(counts)[0]
        means = sums[present] / counts[present, None]
        lengths, right = (means**2).sum(axis=1) / 2, 0
        for places, values in features.blocks(score):
            nearest = (values @ means.T - lengths).argmax(axis=1)
            right += int((present[nearest] == labels[score[places]]).sum())
        found.append(right / len(score))
    return float(np.mean(found))
