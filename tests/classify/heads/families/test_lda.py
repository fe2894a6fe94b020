"""Linear discriminant analysis: scikit-learn's pipeline is the oracle, in all columns, on the same folds."""

from __future__ import annotations

import numpy as np
import pytest
from problems import KINDS, make_problem
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

lda = get_head_family("lda")

SHAPES = ((120, 12), (120, 130), (90, 300))
SHARES: tuple[float | str, ...] = (0.01, 0.5, 1.0, "auto")


def peer(share: float | str, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share))
    return model.fit(features.astype(float), labels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_equal_scikit_learns_for_every_shrinkage(kind: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem(kind, shape)
    some = TrainingData.from_arrays(features, labels, pairs)
    scores = lda.cross_validate(some, [{"shrinkage": share} for share in SHARES], 0)
    for share, score in zip(SHARES, scores, strict=True):
        answers = []
        for right, (fit, held) in zip(score.folds, pairs, strict=True):
            model = peer(share, features[fit], labels[fit])
            answers.append(model.predict_proba(features[held].astype(float)))
            assert right == pytest.approx(model.score(features[held].astype(float), labels[held]))
        expected = some.score(answers)
        assert score.log_loss == pytest.approx(expected.log_loss, rel=2e-3, abs=1e-5)
        assert score.correct == expected.correct


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", SHARES)
def test_decisions_of_a_fitted_head_equal_scikit_learns(share: float | str, shape: tuple[int, int]) -> None:
    for kind in ("many classes", "unbalanced", "constant", "sparse"):
        features, labels, _ = make_problem(kind, shape)
        (layer,) = lda.fit(TrainingData.from_arrays(features, labels, []), {"shrinkage": share}, {}, 0).layers
        theirs = peer(share, features, labels).decision_function(features.astype(float))
        mine = features.astype(float) @ layer.weights.astype(float) + layer.bias  # type: ignore[attr-defined]
        mine, theirs = mine - mine.mean(axis=1, keepdims=True), theirs - theirs.mean(axis=1, keepdims=True)
        assert np.abs(mine - theirs).max() < 2e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("kind", ["binary", "unbalanced", "scaled"])
def test_without_shrinkage_it_equals_scikit_learns_where_the_covariance_can_be_inverted(kind: str) -> None:
    features, labels, pairs = make_problem(kind, (120, 12))
    some = TrainingData.from_arrays(features, labels, pairs)
    (score,) = lda.cross_validate(some, [{"shrinkage": 0.0}], 0)
    answers = [peer(0.0, features[fit], labels[fit]).predict_proba(features[held].astype(float)) for fit, held in pairs]
    assert score.log_loss == pytest.approx(some.score(answers).log_loss, rel=1e-4)


@pytest.mark.parametrize("share", [0.1, "auto"])
@pytest.mark.parametrize("columns", [12, 300])
def test_a_class_that_is_absent_from_a_fold_scores_as_wrong_there(share: float | str, columns: int) -> None:
    features, labels, _ = make_problem("unbalanced", (120, columns))
    some = TrainingData.from_arrays(features, labels, [(np.nonzero(labels != 2)[0], np.nonzero(labels == 2)[0])])
    (score,) = lda.cross_validate(some, [{"shrinkage": share}], 0)
    assert score.accuracy == 0
    assert np.isfinite(score.log_loss)


@pytest.mark.parametrize("columns", [12, 300])
def test_a_class_of_one_row_has_no_covariance_of_its_own(columns: int) -> None:
    features, labels, _ = make_problem("many classes", (60, columns))
    labels[labels == 11] = 0
    labels[7] = 11
    (layer,) = lda.fit(TrainingData.from_arrays(features, labels, []), {"shrinkage": "auto"}, {}, 0).layers
    with pytest.warns(UserWarning, match="Only one sample"):
        theirs = peer("auto", features, labels).decision_function(features.astype(float))
    mine = features.astype(float) @ layer.weights.astype(float) + layer.bias  # type: ignore[attr-defined]
    assert np.abs(mine - mine.mean(axis=1, keepdims=True) - theirs + theirs.mean(axis=1, keepdims=True)).max() < 2e-3 * (
        np.abs(theirs).max()
    )


def test_shares_come_in_order_and_auto_last() -> None:
    tried = lda.expand_grid({"shrinkage": "auto/0.5/0"})
    assert [setting["shrinkage"] for setting in tried] == [0.0, 0.5, "auto"]
