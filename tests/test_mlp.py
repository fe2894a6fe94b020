"""The MLP head: repeatable, folded into plain arrays, and no disturbance to the caller."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from humeris.classify.heads import mlp
from humeris.classify.problem import Problem
from humeris.classify.trial import Score

SETTING = {"hidden": 8, "dropout": 0.2, "learning_rate": 0.01, "batch_size": 16, "epochs": 6}


def problem() -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """An exclusive or of two columns among six: no linear head solves it."""
    generator = np.random.default_rng(5)
    features = generator.normal(size=(120, 6)) * (1, 1, 30, 1, 0.01, 1) + (0, 0, 9, 0, 0, 0)
    labels = ((features[:, 0] > 0) ^ (features[:, 1] > 0)).astype(int)
    folds = StratifiedKFold(2, shuffle=True, random_state=0).split(features, labels)
    return features.astype(np.float32), labels, list(folds)


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    features, labels, folds = problem()
    longer = {**SETTING, "dropout": 0.0, "epochs": 60, "hidden": 32}
    return mlp.cross_validate(Problem.of(features, labels, folds), [SETTING, longer], seed=3)


def test_an_mlp_learns_what_no_linear_head_can(scores: list[Score]) -> None:
    assert scores[1].accuracy > 0.7


def test_a_score_is_that_of_the_epoch_with_the_lowest_log_loss(scores: list[Score]) -> None:
    for score, epochs in zip(scores, (6, 60), strict=True):
        curves = score.detail["curves"]
        assert {len(curve) for curve in curves.values()} == {epochs}
        best = int(np.argmin(curves["val_loss"]))
        assert score.detail["epochs"] == best + 1
        assert score.log_loss == pytest.approx(curves["val_loss"][best], abs=1e-4)
        assert score.accuracy == pytest.approx(curves["val_accuracy"][best], abs=1e-4)
        assert score.accuracy == pytest.approx(np.mean(score.folds))
        assert set(curves) >= {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_a_score_is_json(scores: list[Score]) -> None:
    assert Score.from_dict(json.loads(json.dumps(scores[0].to_dict()))) == scores[0]


def test_the_same_seed_gives_the_same_scores(scores: list[Score]) -> None:
    features, labels, folds = problem()
    again = mlp.cross_validate(Problem.of(features, labels, folds), [SETTING], seed=3)[0]
    assert again.folds == scores[0].folds
    assert again.detail == scores[0].detail
    other = mlp.cross_validate(Problem.of(features, labels, folds), [SETTING], seed=4)[0]
    assert other.detail["curves"] != scores[0].detail["curves"]


def test_the_same_seed_gives_the_same_head() -> None:
    features, labels, _ = problem()
    heads = [mlp.fit(Problem.of(features, labels, []), SETTING, {"epochs": 3}, ["a", "b"], seed=seed) for seed in (3, 3, 4)]
    answers = [head.predict_proba(features) for head in heads]
    assert (answers[0] == answers[1]).all()
    assert (answers[0] != answers[2]).any()


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    features, labels, folds = problem()
    random.seed(11)
    np.random.seed(11)
    python, numpy = random.getstate(), np.random.get_state()
    mlp.cross_validate(Problem.of(features, labels, folds), [{**SETTING, "epochs": 1}], seed=0)
    assert random.getstate() == python
    after: Any = np.random.get_state()
    assert all(np.array_equal(one, two) for one, two in zip(numpy, after, strict=True))


def test_a_head_answers_as_its_keras_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.preprocessing import StandardScaler

    features, labels, _ = problem()
    kept = []
    dense = mlp._Model.dense
    monkeypatch.setattr(mlp._Model, "dense", lambda self: (kept.append(self), dense(self))[1])
    head = mlp.fit(Problem.of(features, labels, []), SETTING, {"epochs": 4}, ["a", "b"], seed=0)
    scaled = StandardScaler().fit(features).transform(features)
    theirs = kept[0]._network.predict_on_batch(scaled)
    assert np.ptp(theirs, axis=0).max() > 0.05
    assert np.abs(head.predict_proba(features) - theirs).max() < 1e-5


def test_constant_columns_are_no_obstacle() -> None:
    features, labels, folds = problem()
    features[:, 3] = 7
    (found,) = mlp.cross_validate(Problem.of(features, labels, folds), [{**SETTING, "epochs": 2}], seed=0)
    head = mlp.fit(Problem.of(features, labels, []), SETTING, {"epochs": 2}, ["a", "b"], seed=0)
    assert np.isfinite(found.log_loss)
    assert np.isfinite(head.predict_proba(features)).all()


def test_every_combination_of_options_is_tried() -> None:
    found = mlp.settings({"hidden": "8/16", "dropout": "0/0.5"})
    assert [(each["hidden"], each["dropout"]) for each in found] == [(8, 0.0), (8, 0.5), (16, 0.0), (16, 0.5)]
    assert {each["epochs"] for each in found} == {40}
