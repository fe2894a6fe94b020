"""Scores of features without training: LogME, H-score, nearest neighbors and centroids.

Features are (n, d) with any n and d. LogME and H-score need only the singular values of (n, d) and the coordinates of
the classes along its left singular vectors, which come from the smaller of the two Gram matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.feature_matrix import FeatureMatrix
from ..data.nearest_neighbors import find_neighbors
from ..heads.neighbor_votes import vote
from ..heads.training_data import Folds

N_NEIGHBORS = 5
_GRID_SIZE = 128  # coarse grid over the logarithm of the ratio of precisions
_GOLDEN_STEPS = 48  # golden section steps after it: 1e-8 of a grid step
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Spectrum:
    """Squared singular values (r,) of features above rounding, and the coordinates of the classes.

    class_loadings (r, k): squared coordinates, along the left singular vectors, of the k one-hot columns of the classes.
    eigenvectors: those of the Gram matrix as columns, (n, r) or (d, r).
    """

    eigenvalues: np.ndarray
    class_loadings: np.ndarray
    eigenvectors: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Moments of features (n, d) that the scores need: one matrix of size min(n, d) squared.

    gram: of the centered features, (n, n) if d >= n, else (d, d). norms (n,): squared lengths of the centered rows.
    indicators (n, k): one-hot classes. sums (d, k), mean (d,): class sums of the centered features, and the mean, if d <
    n. shift (n,), squared_mean_norm: centered features times the mean, and its squared length, if d >= n.
    """

    n_features: int
    gram: np.ndarray
    norms: np.ndarray
    indicators: np.ndarray
    sums: np.ndarray | None = None
    mean: np.ndarray | None = None
    shift: np.ndarray | None = None
    squared_mean_norm: float = 0.0

    @classmethod
    def from_features(cls, features: FeatureMatrix, labels: np.ndarray) -> Moments:
        """Compute the moments of features (n, d) with class numbers (n,), read once or twice in blocks.

        Sums are float64 over centered columns, so that no digits are lost if the mean is far from zero.
        """
        count, n_features = features.shape
        indicators = np.eye(int(labels.max()) + 1)[labels]
        norms = np.zeros(count)
        if n_features >= count:
            gram, shift, squared_mean_norm = np.zeros((count, count)), np.zeros(count), 0.0
            for _, values in features.iter_column_blocks():
                block = values.astype(np.float64)
                mean = block.mean(axis=0)
                block -= mean
                gram += block @ block.T
                shift += block @ mean
                squared_mean_norm += float(mean @ mean)
            return cls(
                n_features, gram, gram.diagonal().copy(), indicators, shift=shift, squared_mean_norm=squared_mean_norm
            )
        mean = sum(values.sum(axis=0, dtype=np.float64) for _, values in features.iter_blocks()) / count
        gram, sums = np.zeros((n_features, n_features)), np.zeros((n_features, indicators.shape[1]))
        for rows, values in features.iter_blocks():
            block = values - mean
            gram += block.T @ block
            sums += block.T @ indicators[rows]
            norms[rows] = np.einsum("ij,ij->i", block, block)
        return cls(n_features, gram, norms, indicators, sums=sums, mean=mean)

    @property
    def counts(self) -> np.ndarray:
        """Number of images of each class (k,)."""
        return np.asarray(self.indicators.sum(axis=0))

    @cached_property
    def centered(self) -> Spectrum:
        """The spectrum of the centered features."""
        return self._compute_spectrum(self.gram, self.sums)

    @cached_property
    def uncentered(self) -> Spectrum:
        """The spectrum of the features without centering."""
        if self.sums is None:
            assert self.shift is not None
            return self._compute_spectrum(self.gram + self.shift[:, None] + self.shift + self.squared_mean_norm, None)
        assert self.mean is not None
        gram = self.gram + len(self.norms) * np.outer(self.mean, self.mean)
        return self._compute_spectrum(gram, self.sums + np.outer(self.mean, self.counts))

    def reduce_features(self, features: FeatureMatrix) -> FeatureMatrix:
        """Return the features, or for d >= n rows (n, r) with the same angles and distances: coordinates in their span."""
        return (
            features
            if self.sums is not None
            else FeatureMatrix.from_array(self.uncentered.eigenvectors * np.sqrt(self.uncentered.eigenvalues))
        )

    def _compute_spectrum(self, gram: np.ndarray, sums: np.ndarray | None) -> Spectrum:
        eigenvalues, eigenvectors = np.linalg.eigh(gram)
        is_nonzero = eigenvalues > eigenvalues[-1] * max(len(self.norms), self.n_features) * np.finfo(np.float64).eps
        eigenvalues, eigenvectors = eigenvalues[is_nonzero], eigenvectors[:, is_nonzero]
        projections = (
            eigenvectors.T @ self.indicators if sums is None else eigenvectors.T @ sums / np.sqrt(eigenvalues)[:, None]
        )
        return Spectrum(eigenvalues, projections**2, eigenvectors)


def log_me(moments: Moments) -> float:
    """Compute LogME: the largest evidence per image of a linear model of each class, averaged over classes.

    Higher is better. For a one-hot column y, evidence is log N(y; 0, F F' / alpha + I / beta) at the best alpha and beta.
    The best scale has a closed form for each ratio alpha / beta, and the ratio is found on a grid and then by golden
    section: the maximum that the published fixed point iterates to. The ratio is kept above rounding, since evidence
    would grow without bound for features that fit y exactly. Features are not centered, as published.

    References
    ----------
    You, Liu, Wang, Long: LogME: practical assessment of pre-trained models for transfer learning, ICML 2021,
    arXiv:2102.11005; You, Liu, Zhang, Wang, Jordan, Long: Ranking and tuning pre-trained models, JMLR 23 (2022).
    """
    eigenvalues, count, is_used = moments.uncentered.eigenvalues, len(moments.norms), moments.counts > 0
    loadings_inside = moments.uncentered.class_loadings[:, is_used]
    loadings_outside = np.maximum(moments.counts[is_used] - loadings_inside.sum(axis=0), 0.0)
    scale = eigenvalues.max(initial=0.0) or 1.0
    eigenvalues = eigenvalues / scale

    def compute_evidence(ratio: np.ndarray) -> np.ndarray:
        """Return the evidence at the ratios (k,), one for each class."""
        spread = eigenvalues[:, None] + ratio
        quadratic_form = (loadings_inside / spread).sum(axis=0) + loadings_outside / ratio
        logs = np.log(spread).sum(axis=0) + (count - len(eigenvalues)) * np.log(ratio)
        return np.asarray(-0.5 * (count * (np.log(2 * np.pi) + 1 + np.log(quadratic_form / count)) + logs))

    grid = np.linspace(np.log(count * np.finfo(np.float64).eps), np.log(1e6), _GRID_SIZE)
    grid_evidence = np.array([compute_evidence(np.full(is_used.sum(), np.exp(log_ratio))) for log_ratio in grid])
    best_index = grid_evidence.argmax(axis=0)
    low, high = grid[np.maximum(best_index - 1, 0)], grid[np.minimum(best_index + 1, _GRID_SIZE - 1)]
    for _ in range(_GOLDEN_STEPS):
        left, right = high - _GOLDEN_RATIO * (high - low), low + _GOLDEN_RATIO * (high - low)
        rising = compute_evidence(np.exp(left)) < compute_evidence(np.exp(right))
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    best_evidence = np.maximum(compute_evidence(np.exp((low + high) / 2)), grid_evidence.max(axis=0))
    return float((best_evidence / count).mean())


def h_score(moments: Moments, shrinkage: float | None = None) -> float:
    """Compute the H-score: tr(cov(features)^-1 cov(class means)); higher is better.

    The covariance is shrunk towards a multiple of the identity, by the Ledoit-Wolf estimate unless `shrinkage` is given:
    with 0 the score is the original one, which is the number of classes minus one for *any* features of full rank with
    d >= n, and so is useless for ranking there.

    References
    ----------
    Bao, Li, Huang, Zhang, Zheng, Zamir, Guibas: An information-theoretic approach to transferability in task transfer
    learning, ICIP 2019; Ibrahim, Ponomareva, Mazumder: Newer is not always better, 2021, arXiv:2110.06893; Ledoit, Wolf:
    A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis 88 (2004).
    """
    if not len(moments.centered.eigenvalues):
        return 0.0
    is_used = moments.counts > 0
    between_class = (moments.centered.class_loadings[:, is_used] / moments.counts[is_used]).sum(axis=1)
    eigenvalues = moments.centered.eigenvalues / len(moments.norms)
    mean = eigenvalues.sum() / moments.n_features
    if shrinkage is None:
        shrinkage = _ledoit_wolf(moments, eigenvalues)
    return float((between_class * (1 - shrinkage) * eigenvalues / ((1 - shrinkage) * eigenvalues + shrinkage * mean)).sum())


def _ledoit_wolf(moments: Moments, eigenvalues: np.ndarray) -> float:
    """Return the shrinkage that minimizes the expected squared error of the covariance; eigenvalues (r,)."""
    if moments.n_features == 1:  # a single variance is already a multiple of the identity
        return 0.0
    count, squares = len(moments.norms), float((eigenvalues**2).sum())
    noise = (float((moments.norms**2).sum()) / count - squares) / count
    spread = squares - eigenvalues.sum() ** 2 / moments.n_features
    return 1.0 if noise >= spread else max(0.0, noise / spread)


def knn_accuracy(features: FeatureMatrix, labels: np.ndarray, folds: Folds) -> float:
    """Return the accuracy, averaged over folds, of the vote of the nearest rows by cosine; ties go to the first class.

    As scikit-learn's `KNeighborsClassifier(NEIGHBOURS, metric="cosine")`, with fewer neighbors if a fold has fewer rows.
    """
    n_classes, accuracies = int(labels.max()) + 1, []
    for train_rows, test_rows in folds:
        similarities, neighbor_rows = find_neighbors(features, test_rows, features, train_rows, N_NEIGHBORS)
        predictions = vote(similarities, labels[train_rows][neighbor_rows], n_classes, "uniform")
        accuracies.append(float((predictions.argmax(axis=1) == labels[test_rows]).mean()))
    return float(np.mean(accuracies))


def centroid_accuracy(features: FeatureMatrix, labels: np.ndarray, folds: Folds) -> float:
    """Return the accuracy, averaged over folds, of the nearest class mean: scikit-learn's `NearestCentroid`."""
    n_classes, accuracies = int(labels.max()) + 1, []
    for train_rows, test_rows in folds:
        counts = np.bincount(labels[train_rows], minlength=n_classes)
        sums = np.zeros((n_classes, features.shape[1]))
        for rows, values in features.iter_blocks(train_rows):
            for class_index in np.unique(labels[train_rows[rows]]):
                sums[class_index] += values[labels[train_rows[rows]] == class_index].sum(axis=0, dtype=np.float64)
        present_classes = np.nonzero(counts)[0]
        means = sums[present_classes] / counts[present_classes, None]
        half_squared_norms, n_correct = (means**2).sum(axis=1) / 2, 0
        for rows, values in features.iter_blocks(test_rows):
            nearest_class = (values @ means.T - half_squared_norms).argmax(axis=1)
            n_correct += int((present_classes[nearest_class] == labels[test_rows[rows]]).sum())
        accuracies.append(n_correct / len(test_rows))
    return float(np.mean(accuracies))
