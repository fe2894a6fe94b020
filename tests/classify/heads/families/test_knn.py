"""Nearest neighbours: scikit-learn's pipeline is the oracle, on the same folds."""

from __future__ import annotations

import numpy as np
import pytest
from problems import SHAPES, make_problem
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.classify.heads.families.knn import find_neighbors
from humeris.classify.heads.linear.cv_fold import iter_folds
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

knn = get_head_family("knn")

# Without those where rows are equally near: there scikit-learn takes any.
KINDS = ("binary", "many classes", "unbalanced", "scaled", "constant", "separable")


def peer(count: int, weights: str, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(count, weights=weights, metric="cosine"))
    return model.fit(features.astype(float), labels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_votes_equal_scikit_learns_for_every_setting(kind: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem(kind, shape)
    some, tried = TrainingData.from_arrays(features, labels, pairs), knn.expand_grid({})
    for setting, score in zip(tried, knn.cross_validate(some, tried, 0), strict=True):
        count, answers = setting["n_neighbors"], []
        for fit, held in pairs:
            theirs = peer(*setting.values(), features[fit], labels[fit]).predict_proba(features[held].astype(float))
            answers.append((theirs * count + 1 / some.n_classes) / (count + 1))
        expected = some.score(answers)
        assert score.correct == expected.correct
        assert score.log_loss == pytest.approx(expected.log_loss, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_a_fitted_head_votes_as_the_pipeline_on_raw_rows(weights: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem("many classes", shape)
    fit, held = pairs[0]
    some = TrainingData.from_arrays(features[fit], labels[fit], [])
    head = knn.fit(some, {"n_neighbors": 5, "weights": weights}, {}, 0)
    theirs = peer(5, weights, features[fit], labels[fit]).predict_proba(features[held].astype(float))
    assert np.abs(head.predict_proba(features[held]) - (theirs * 5 + 1 / 12) / 6).max() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_stored_rows_do_not_change_the_neighbours(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, pairs = make_problem("many classes", shape)
    (fold, *_) = iter_folds(TrainingData.from_arrays(features, labels, pairs))
    similarity, nearest = find_neighbors(fold, 7)
    blocks = list(fold.iter_fit_blocks(3))
    monkeypatch.setattr(type(fold), "iter_fit_blocks", lambda *_: iter(blocks))
    again = find_neighbors(fold, 7)
    assert len(blocks) == 27
    assert np.array_equal(again[1], nearest)
    assert np.abs(again[0] - similarity).max() < 1e-6
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_where_there_are_fewer_rows_than_neighbours_all_of_them_vote() -> None:
    features, labels, _ = make_problem("binary", (30, 12))
    pairs = [(np.arange(8), np.arange(8, 30))]
    tried = [{"n_neighbors": count, "weights": "uniform"} for count in (8, 20)]
    eight, twenty = knn.cross_validate(TrainingData.from_arrays(features, labels, pairs), tried, 0)
    assert twenty.log_loss == eight.log_loss
    head = knn.fit(TrainingData.from_arrays(features[:8], labels[:8], []), tried[1], {}, 0)
    assert np.allclose(head.predict_proba(features), (0.5 * 8 + 0.5) / 9)


def test_settings_are_every_combination() -> None:
    assert knn.expand_grid({"n_neighbors": "5/1", "weights": "distance"}) == [
        {"n_neighbors": 1, "weights": "distance"},
        {"n_neighbors": 5, "weights": "distance"},
    ]
    assert knn.expand_grid({"n_neighbors": [5, 1], "weights": ("distance",)}) == knn.expand_grid(
        {"n_neighbors": "5/1", "weights": "distance"}
    )
    assert len(knn.expand_grid({})) == 6
