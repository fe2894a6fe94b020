"""Logistic regression: scikit-learn is the oracle, on the same folds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.classify.heads.linear import regularization_path
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

logreg = get_head_family("logreg")

Folds = list[tuple[np.ndarray, np.ndarray]]
C = (1e-3, 1e-1)


def problem(kind: str) -> tuple[np.ndarray, np.ndarray, Folds]:
    """Features (n, d) float32 of quite different scales, labels, and five stratified folds."""
    random = np.random.default_rng(7)
    shares = {"binary": (1, 1), "multiclass": (1, 1, 1, 1), "unbalanced": (12, 4, 1), "constant columns": (1, 1, 1)}[kind]
    rows = 120
    labels = np.sort(random.choice(len(shares), rows, p=np.array(shares) / sum(shares)))
    labels[:5], labels[-10:] = 0, len(shares) - 1
    features = 1.5 * random.normal(size=(rows, 12)) + random.normal(size=(len(shares), 12))[labels]
    features = (features + 3 * random.normal(size=12)) * np.logspace(-2, 2, 12)
    if kind == "constant columns":
        features[:, [0, 5]] = 0, 3.3
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels)
    return features.astype(np.float32), labels, list(folds)


def peer(value: float) -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(C=value, max_iter=5000))


KINDS = ("binary", "multiclass", "unbalanced", "constant columns")


@pytest.mark.parametrize("kind", KINDS)
def test_cross_validation_equals_grid_search_on_the_same_folds(kind: str) -> None:
    features, labels, folds = problem(kind)
    found = logreg.cross_validate(TrainingData.from_arrays(features, labels, folds), [{"C": value} for value in C], seed=0)
    grid = GridSearchCV(peer(1.0), {"logisticregression__C": C}, cv=folds).fit(features, labels)
    for row, score in enumerate(found):
        theirs = [grid.cv_results_[f"split{fold}_test_score"][row] for fold in range(5)]
        one_image = max(1 / len(rows) for _, rows in folds)
        assert np.abs(np.array(score.folds) - theirs).max() <= one_image + 1e-9
        assert score.accuracy == pytest.approx(grid.cv_results_["mean_test_score"][row], abs=one_image / 5 + 1e-9)
        assert score.accuracy == pytest.approx(np.mean(score.folds))
        assert score.fit_info == {"converged": True}


@pytest.mark.parametrize("kind", KINDS)
def test_log_loss_equals_the_peers(kind: str) -> None:
    features, labels, folds = problem(kind)
    found = logreg.cross_validate(TrainingData.from_arrays(features, labels, folds), [{"C": value} for value in C], seed=0)
    for value, score in zip(C, found, strict=True):
        theirs = []
        for fit, held in folds:
            model = peer(value).fit(features[fit], labels[fit])  # type: ignore[attr-defined]
            theirs.append(log_loss(labels[held], model.predict_proba(features[held]), labels=np.unique(labels)))
        assert score.log_loss == pytest.approx(np.mean(theirs), rel=5e-3)


def test_the_scaler_is_fitted_inside_each_fold() -> None:
    features, labels, folds = problem("multiclass")
    features[folds[0][1]] *= 1e4  # held-out rows of another scale must not move the scaler that fits
    found = logreg.cross_validate(TrainingData.from_arrays(features, labels, folds[:1]), [{"C": 0.1}], seed=0)
    theirs = cross_val_score(peer(0.1), features, labels, cv=folds[:1])
    assert found[0].folds == pytest.approx(theirs.tolist())


def test_settings_do_not_depend_on_what_was_tried_before_them() -> None:
    features, labels, folds = problem("multiclass")
    path = logreg.cross_validate(TrainingData.from_arrays(features, labels, folds), [{"C": value} for value in C], seed=0)
    alone = logreg.cross_validate(TrainingData.from_arrays(features, labels, folds), [{"C": C[-1]}], seed=0)
    assert path[-1].accuracy == pytest.approx(alone[0].accuracy, abs=0.01)
    assert path[-1].log_loss == pytest.approx(alone[0].log_loss, rel=5e-3)


def test_a_class_that_is_absent_from_a_fold_scores_as_wrong_there() -> None:
    features, labels, _ = problem("multiclass")
    fit = np.nonzero(labels != 2)[0]
    held = np.nonzero(labels == 2)[0]
    (found,) = logreg.cross_validate(TrainingData.from_arrays(features, labels, [(fit, held)]), [{"C": 0.1}], seed=0)
    assert found.accuracy == 0
    assert np.isfinite(found.log_loss)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_head_answers_as_the_pipeline_on_raw_rows(kind: str) -> None:
    features, labels, _ = problem(kind)
    classes = [str(number) for number in np.unique(labels)]
    head = logreg.fit(TrainingData.from_arrays(features, labels, []), {"C": 0.1}, {}, seed=0)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=5000)).fit(features, labels)
    assert head.class_names == tuple(classes)
    assert np.abs(head.predict_proba(features) - theirs.predict_proba(features)).max() < 2e-4


def test_columns_far_from_zero_keep_their_precision_when_the_scaler_is_folded_in() -> None:
    random = np.random.default_rng(1)
    labels = np.arange(80) % 2
    features = (1000 + random.normal(size=(80, 8)) + labels[:, None]).astype(np.float32)
    head = logreg.fit(TrainingData.from_arrays(features, labels, []), {"C": 1.0}, {}, seed=0)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=5000)).fit(features, labels)
    assert np.abs(head.predict_proba(features) - theirs.predict_proba(features)).max() < 5e-3


def test_a_fit_that_does_not_converge_is_recorded_and_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, folds = problem("multiclass")
    monkeypatch.setattr(regularization_path, "MAX_ITER", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = logreg.cross_validate(TrainingData.from_arrays(features, labels, folds), [{"C": 1e-9}, {"C": 10.0}], seed=0)
        logreg.fit(TrainingData.from_arrays(features, labels, []), {"C": 10.0}, {}, seed=0)
    assert found[1].fit_info == {"converged": False}


def test_more_columns_than_rows_are_no_obstacle() -> None:
    random = np.random.default_rng(2)
    labels = np.arange(30) % 3
    features = (random.normal(size=(30, 400)) + 0.5 * np.eye(3).repeat(134, axis=1)[:, :400][labels]).astype(np.float32)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(features, labels))
    found = logreg.cross_validate(TrainingData.from_arrays(features, labels, folds), [{"C": 0.01}], seed=0)
    theirs = cross_val_score(peer(0.01), features, labels, cv=folds)
    assert found[0].folds == pytest.approx(theirs.tolist(), abs=0.101)


def test_the_default_path_is_in_order_of_c() -> None:
    tried = [setting["C"] for setting in logreg.expand_grid({})]
    assert tried == sorted(tried)
    assert [setting["C"] for setting in logreg.expand_grid({"C": "10/0.1/1"})] == [0.1, 1.0, 10.0]
