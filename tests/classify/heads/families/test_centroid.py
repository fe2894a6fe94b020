"""Nearest centroids: scikit-learn's pipeline is the oracle for distances, plain NumPy for angles."""

from __future__ import annotations

import numpy as np
import pytest
from problems import KINDS, SHAPES, make_problem
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

centroid = get_head_family("centroid")


def by_angle(features: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    scaler = StandardScaler().fit(features)
    rows, asked = scaler.transform(features.astype(float)), scaler.transform(asked.astype(float))
    means = np.array([rows[labels == number].mean(axis=0) for number in np.unique(labels)])
    return asked @ means.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(means, axis=1)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_centroid_is_scikit_learns(kind: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem(kind, shape)
    some = TrainingData.from_arrays(features, labels, pairs)
    euclidean, cosine = centroid.cross_validate(some, centroid.expand_grid({}), 0)
    for number, (fit, held) in enumerate(pairs):
        peer = make_pipeline(StandardScaler(), NearestCentroid()).fit(features[fit].astype(float), labels[fit])
        assert euclidean.folds[number] == pytest.approx(peer.score(features[held].astype(float), labels[held]))
        angles = by_angle(features[fit], labels[fit], features[held]).argmax(axis=1)
        assert cosine.folds[number] == pytest.approx((angles == labels[held]).mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fitted_head_gives_a_softmax_of_distances_or_angles_on_raw_rows(shape: tuple[int, int]) -> None:
    features, labels, _ = make_problem("unbalanced", shape)
    some = TrainingData.from_arrays(features, labels, [])
    rows = StandardScaler().fit_transform(features.astype(float))
    means = np.array([rows[labels == number].mean(axis=0) for number in range(3)])
    squared = ((rows[:, None] - means) ** 2).sum(axis=2)
    for metric, logits in (("euclidean", -squared / 2), ("cosine", by_angle(features, labels, features))):
        head = centroid.fit(some, {"metric": metric}, {"temperature": 0.5}, 0)
        expected = np.exp(2 * (logits - logits.max(axis=1, keepdims=True)))
        expected /= expected.sum(axis=1, keepdims=True)
        assert np.abs(head.predict_proba(features) - expected).max() < 1e-3


def test_a_class_that_is_absent_from_a_fold_scores_as_wrong_there() -> None:
    features, labels, _ = make_problem("unbalanced", (120, 12))
    pairs = [(np.nonzero(labels != 2)[0], np.nonzero(labels == 2)[0])]
    for score in centroid.cross_validate(TrainingData.from_arrays(features, labels, pairs), centroid.expand_grid({}), 0):
        assert score.accuracy == 0
        assert np.isfinite(score.log_loss)
