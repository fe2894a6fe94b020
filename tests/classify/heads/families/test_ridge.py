"""Ridge classification: scikit-learn's pipeline is the oracle, in all columns, on the same folds."""

from __future__ import annotations

import numpy as np
import pytest
from problems import KINDS, SHAPES, make_problem
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.classify.heads.layers import Dense
from humeris.classify.heads.linear import cv_fold as fold_module
from humeris.classify.heads.linear.cv_fold import iter_folds
from humeris.classify.heads.linear.ridge_solution import RidgeSolution
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

ridge = get_head_family("ridge")

ALPHAS = (1e-1, 1e2, 1e4)


def peer(alpha: float, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=alpha, solver="svd"))
    return model.fit(features.astype(float), labels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_ridge_equals_scikit_learn_for_every_penalty(kind: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem(kind, shape)
    some = TrainingData.from_arrays(features, labels, pairs)
    for fold in iter_folds(some):
        solution = RidgeSolution.from_fold(fold)
        for alpha in ALPHAS:
            model = peer(alpha, features[fold.fit_rows], labels[fold.fit_rows])
            theirs = model.decision_function(features[fold.score_rows].astype(float))
            mine = fold.compute_decisions(solution.compute_weights(alpha), solution.bias)
            if mine.shape[1] == 2:
                assert np.abs(mine.sum(axis=1)).max() < 1e-5 * np.abs(mine).max()
                mine = mine[:, 1]
            assert np.abs(mine - theirs).max() < 1e-4 * np.abs(theirs).max()
    found = ridge.cross_validate(some, [{"alpha": alpha} for alpha in ALPHAS], 0)
    for alpha, score in zip(ALPHAS, found, strict=True):
        for right, (fit, held) in zip(score.folds, pairs, strict=True):
            theirs = peer(alpha, features[fit], labels[fit]).score(features[held].astype(float), labels[held])
            assert right == pytest.approx(theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fitted_head_orders_raw_rows_as_the_pipeline_at_its_temperature(shape: tuple[int, int]) -> None:
    features, labels, _ = make_problem("many classes", shape)
    head = ridge.fit(TrainingData.from_arrays(features, labels, []), {"alpha": 10.0}, {"temperature": 0.25}, 0)
    (layer,) = head.layers
    assert isinstance(layer, Dense)
    theirs = peer(10.0, features, labels).decision_function(features.astype(float)) / 0.25
    expected = np.exp(theirs) / np.exp(theirs).sum(axis=1, keepdims=True)
    assert np.abs(head.predict_proba(features) - expected).max() < 1e-4


def test_a_class_that_is_absent_from_a_fold_scores_as_wrong_there() -> None:
    features, labels, _ = make_problem("unbalanced", (120, 12))
    pairs = [(np.nonzero(labels != 2)[0], np.nonzero(labels == 2)[0]), (np.arange(0, 120, 2), np.arange(1, 120, 2))]
    for score in ridge.cross_validate(TrainingData.from_arrays(features, labels, pairs), ridge.expand_grid({}), 0):
        assert score.folds[0] == 0
        assert np.isfinite(score.log_loss)


def test_one_decomposition_serves_every_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, pairs = make_problem("binary", (120, 12))
    calls = []
    plain = fold_module.decompose_symmetric
    monkeypatch.setattr(fold_module, "decompose_symmetric", lambda matrix: calls.append(matrix.shape) or plain(matrix))
    ridge.cross_validate(TrainingData.from_arrays(features, labels, pairs), ridge.expand_grid({}), 0)
    assert calls == [(12, 12)] * 3


def test_the_path_is_in_order_of_alpha() -> None:
    tried = [setting["alpha"] for setting in ridge.expand_grid({})]
    assert tried == sorted(tried)
    assert ridge.expand_grid({"alpha": "10/0.1"}) == [{"alpha": 0.1}, {"alpha": 10.0}]
