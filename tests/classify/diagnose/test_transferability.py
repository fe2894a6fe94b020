"""Scores without training: textbook formulas written out densely, and scikit-learn's own classifiers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from humeris.classify.data import nearest_neighbors
from humeris.classify.data.feature_matrix import FeatureMatrix, TapColumns
from humeris.classify.diagnose.transferability import Moments, centroid_accuracy, h_score, knn_accuracy, log_me

Data = tuple[np.ndarray, np.ndarray]


def drawn(rows: int, columns: int, classes: int = 3, signal: float = 1.0, seed: int = 0) -> Data:
    """Features whose classes differ in their means, like activations: positive, of unequal scales."""
    random = np.random.default_rng([rows, columns, classes, seed])
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, rows - classes)])
    means = signal * random.normal(size=(classes, columns))
    values = np.maximum(means[labels] + random.normal(size=(rows, columns)), -0.5) + 0.5
    return (values * random.uniform(0.2, 3, columns)).astype(np.float32), labels


SHAPES = {
    "tall": drawn(60, 7),
    "wide": drawn(24, 90),
    "square": drawn(30, 30),
    "two classes": drawn(50, 5, classes=2),
    "many classes": drawn(90, 12, classes=30),
    "no signal": drawn(40, 9, signal=0.0),
    "one column": drawn(30, 1),
}


def moments(data: Data) -> Moments:
    return Moments.from_features(FeatureMatrix.from_array(data[0]), data[1])


def dense_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """The largest log N(y; 0, F F' / alpha + I / beta), from the covariance itself."""
    outer = features.astype(np.float64) @ features.astype(np.float64).T

    def loss(logs: np.ndarray) -> float:
        covariance = outer * np.exp(-logs[0]) + np.eye(len(target)) * np.exp(-logs[1])
        sign, determinant = np.linalg.slogdet(covariance)
        assert sign > 0
        return 0.5 * float(target @ np.linalg.solve(covariance, target) + determinant + len(target) * np.log(2 * np.pi))

    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}
    starts = [(a, b) for a in (-3.0, 3.0, 9.0) for b in (0.0, 3.0)]
    found = [minimize(loss, start, method="Nelder-Mead", options=options).fun for start in starts]
    return -min(found)


def published_log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """The fixed point of the extended paper: alpha = gamma / m'm, beta = (n - gamma) / |Fm - y|^2."""
    features = features.astype(np.float64)
    count = len(features)
    scores = []
    values, vectors = np.linalg.eigh(features.T @ features)
    values = np.maximum(values, 0)
    for number in range(labels.max() + 1):
        target = (labels == number).astype(np.float64)
        alpha, beta = 1.0, 1.0
        for _ in range(5000):
            mean = vectors @ (vectors.T @ (features.T @ target) * beta / (alpha + beta * values))
            gamma = (beta * values / (alpha + beta * values)).sum()
            residual = ((features @ mean - target) ** 2).sum()
            alpha, beta = gamma / (mean @ mean), (count - gamma) / residual
        mean = vectors @ (vectors.T @ (features.T @ target) * beta / (alpha + beta * values))
        residual = ((features @ mean - target) ** 2).sum()
        evidence = count / 2 * np.log(beta) + len(values) / 2 * np.log(alpha) - count / 2 * np.log(2 * np.pi)
        evidence -= beta / 2 * residual + alpha / 2 * mean @ mean + np.log(alpha + beta * values).sum() / 2
        scores.append(evidence / count)
    return float(np.mean(scores))


def dense_h_score(features: np.ndarray, labels: np.ndarray, covariance: np.ndarray, shrinkage: float) -> float:
    features = features.astype(np.float64)
    means = np.empty_like(features)
    for number in np.unique(labels):
        means[labels == number] = features[labels == number].mean(axis=0)
    between = np.atleast_2d(np.cov(means, rowvar=False, bias=True))
    return float(np.trace(np.linalg.pinv(covariance, rcond=1e-11) @ ((1 - shrinkage) * between)))


@pytest.mark.parametrize("name", SHAPES)
def test_log_me_is_the_largest_evidence_found_from_the_dense_covariance(name: str) -> None:
    features, labels = SHAPES[name]
    expected = [dense_evidence(features, labels == number) / len(labels) for number in range(labels.max() + 1)]
    assert log_me(moments((features, labels))) == pytest.approx(np.mean(expected), abs=2e-7)


@pytest.mark.parametrize("name", ["tall", "two classes", "square", "wide"])
def test_log_me_is_where_the_published_iteration_ends(name: str) -> None:
    features, labels = SHAPES[name]
    assert log_me(moments((features, labels))) == pytest.approx(published_log_me(features, labels), abs=1e-6)


def test_log_me_does_not_depend_on_the_scale_of_all_features() -> None:
    features, labels = SHAPES["tall"]
    found = [log_me(moments((features * scale, labels))) for scale in (1e-6, 1, 1e6)]
    assert found == pytest.approx([found[1]] * 3, abs=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_the_h_score_without_shrinkage_is_the_trace_of_the_original(name: str) -> None:
    features, labels = SHAPES[name]
    covariance = np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False, bias=True))
    assert h_score(moments((features, labels)), 0.0) == pytest.approx(
        dense_h_score(features, labels, covariance, 0.0), rel=1e-7
    )


@pytest.mark.parametrize("name", SHAPES)
def test_the_h_score_is_regularised_with_scikit_learns_ledoit_wolf(name: str) -> None:
    features, labels = SHAPES[name]
    peer = LedoitWolf().fit(features.astype(np.float64))
    expected = dense_h_score(features, labels, peer.covariance_, peer.shrinkage_)
    assert h_score(moments((features, labels))) == pytest.approx(expected, rel=1e-7)


def test_only_the_regularised_h_score_tells_wide_features_apart() -> None:
    plain, shrunk = [], []
    for signal in (0.0, 0.3, 1.0):
        found = moments(drawn(40, 300, signal=signal))
        plain.append(h_score(found, 0.0))
        shrunk.append(h_score(found))
    assert plain == pytest.approx([2.0] * 3)  # classes less one, whatever the features
    assert shrunk[0] < 0.7 * shrunk[2]
    assert shrunk[0] < shrunk[1] < shrunk[2]


@pytest.mark.parametrize("score", [log_me, h_score])
def test_more_signal_scores_higher(score: Callable[[Moments], float]) -> None:
    for columns in (10, 200):
        found = [score(moments(drawn(100, columns, signal=signal))) for signal in (0.0, 0.4, 1.5)]
        assert found[0] < found[1] < found[2]


AWKWARD = {
    "all zero": (np.zeros((12, 4)), np.arange(12) % 3),
    "all zero and wide": (np.zeros((6, 40)), np.arange(6) % 2),
    "constant columns": (np.hstack([drawn(30, 4)[0], np.full((30, 3), 7.0)]), drawn(30, 4)[1]),
    "only constant columns": (np.full((10, 3), 2.5), np.arange(10) % 2),
    "collinear": (drawn(40, 3)[0] @ np.array([[1, 0, 0, 1, 2], [0, 1, 0, 1, 0], [0, 0, 1, 0, 1]]), drawn(40, 3)[1]),
    "repeated rows": (np.repeat(drawn(5, 20, 2)[0], 4, axis=0), np.repeat(drawn(5, 20, 2)[1], 4)),
    "wildly scaled": (drawn(40, 6)[0] * [1e-18, 1e-6, 1, 1e6, 1e12, 1e18], drawn(40, 6)[1]),
    "wildly scaled and wide": (drawn(12, 60)[0] * np.logspace(-18, 18, 60), drawn(12, 60)[1]),
    "far from zero": (drawn(40, 6)[0] + 1e5, drawn(40, 6)[1]),
    "fits exactly": (np.eye(3)[np.arange(30) % 3], np.arange(30) % 3),
    "fits exactly and wide": (np.eye(3, 50)[np.arange(30) % 3], np.arange(30) % 3),
    "one image of a class": (drawn(20, 5)[0], np.array([0] * 19 + [1])),
    "a class number without images": (drawn(20, 5)[0], np.array([0, 2] * 10)),
    "two images": (np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), np.array([0, 1])),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_scores_of_awkward_features_are_finite(name: str) -> None:
    features, labels = AWKWARD[name]
    matrix = FeatureMatrix.from_array(np.asarray(features, np.float32))
    found = Moments.from_features(matrix, labels)
    assert np.isfinite(log_me(found))
    assert 0 <= h_score(found) <= len(np.unique(labels)) - 1 + 1e-6
    rows = np.arange(len(labels))
    for each in (matrix, found.reduce_features(matrix)):
        assert 0 <= knn_accuracy(each, labels, [(rows[1:], rows[:1])]) <= 1
        assert 0 <= centroid_accuracy(each, labels, [(rows[1:], rows[:1])]) <= 1


@pytest.mark.parametrize("name", ["constant columns", "collinear", "one image of a class"])
def test_awkward_features_are_scored_by_the_same_formulas(name: str) -> None:
    features, labels = AWKWARD[name]
    features = features.astype(np.float32).astype(np.float64)
    expected = [dense_evidence(features, labels == number) / len(labels) for number in range(labels.max() + 1)]
    found = moments((features.astype(np.float32), labels))
    assert log_me(found) == pytest.approx(np.mean(expected), abs=1e-6)
    peer = LedoitWolf().fit(features)
    assert h_score(found) == pytest.approx(dense_h_score(features, labels, peer.covariance_, peer.shrinkage_), rel=1e-6)


def test_a_mean_far_from_zero_costs_the_h_score_no_digits() -> None:
    features, labels = drawn(60, 7)
    far = (features.astype(np.float64) + 4096).astype(np.float32)  # the same numbers but for float32's own rounding
    assert h_score(moments((far, labels))) == pytest.approx(h_score(moments((far - 4096, labels))), rel=1e-9)


class Watched:
    """Rows as a cache serves them; remembers how many numbers were asked for at once."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.largest = values, 0

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        assert view == 0
        found = self.values[keys] if columns is None else self.values[keys][:, columns]
        self.largest = max(self.largest, found.size if len(keys) > 1 else 0)
        return found


@pytest.mark.parametrize("shape", [(30, 4000), (900, 20)])
def test_features_on_disk_are_read_in_blocks_and_score_the_same(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = drawn(*shape)
    whole = Moments.from_features(FeatureMatrix.from_array(features), labels)
    monkeypatch.setattr("humeris.classify.data.feature_matrix._BLOCK", features.nbytes // 10)
    monkeypatch.setattr("humeris.classify.data.feature_matrix._get_total_memory", lambda: features.nbytes)
    watched = Watched(features)
    matrix = FeatureMatrix.from_tap_columns([TapColumns(watched, np.arange(shape[0]), np.zeros(shape[0], np.uint16))])
    blockwise = Moments.from_features(matrix, labels)
    assert watched.largest <= features.size // 10
    assert log_me(blockwise) == pytest.approx(log_me(whole), abs=1e-7)
    assert h_score(blockwise) == pytest.approx(h_score(whole), rel=1e-9)


@pytest.mark.parametrize("name", ["tall", "wide", "square", "two classes", "no signal"])
@pytest.mark.parametrize("rows", [2048, 7])
def test_neighbours_and_centroids_are_scikit_learns(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "_ROWS", rows)
    features, labels = SHAPES[name]
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(features, labels))
    near, centre = [], []
    for fit, score in folds:
        near.append(
            KNeighborsClassifier(5, metric="cosine").fit(features[fit], labels[fit]).score(features[score], labels[score])
        )
        centre.append(NearestCentroid().fit(features[fit], labels[fit]).score(features[score], labels[score]))
    matrix = FeatureMatrix.from_array(features)
    turned = Moments.from_features(matrix, labels).reduce_features(matrix)
    for each in (matrix, turned):
        assert knn_accuracy(each, labels, folds) == pytest.approx(np.mean(near))
        assert centroid_accuracy(each, labels, folds) == pytest.approx(np.mean(centre))
    assert turned.shape[1] <= min(features.shape)


def test_few_rows_have_fewer_neighbours() -> None:
    features, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 1, 0])
    assert knn_accuracy(FeatureMatrix.from_array(features), labels, [(np.array([0, 1, 2]), np.array([1, 3]))]) == 0.5


def test_a_fold_that_lacks_a_class_never_answers_it() -> None:
    features, labels = np.array([[0.0], [1.0], [10.0]], np.float32), np.array([0, 1, 2])
    assert centroid_accuracy(
        FeatureMatrix.from_array(features), labels, [(np.array([0, 2]), np.array([0, 1, 2]))]
    ) == pytest.approx(2 / 3)
