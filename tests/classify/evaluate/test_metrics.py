"""Scores: scikit-learn's, and an interval that holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as peer

from humeris.cache.typed_json import from_json, to_json
from humeris.classify.evaluate.calibration import calibration_error, calibration_error_by_chance, compute_reliability_bins
from humeris.classify.evaluate.confidence_intervals import design_effect, macro_average_ci, proportion_ci, wilson_ci
from humeris.classify.evaluate.metrics import (
    ClassificationScores,
    ClassScores,
    brier_score,
    classification_report,
    log_loss,
    top_k_accuracy,
)


def answers(rows: int = 80, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.choice(classes, rows, p=np.linspace(1, 3, classes) / np.linspace(1, 3, classes).sum())
    scores = random.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels]
    powers = np.exp(scores)
    return labels, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def test_scores_equal_scikit_learns() -> None:
    labels, probabilities = answers()
    predicted = probabilities.argmax(axis=1)
    found = classification_report(labels, probabilities, list("abcd"))
    assert found.images == 80
    assert found.accuracy == pytest.approx(peer.accuracy_score(labels, predicted))
    assert found.accuracy_95 == wilson_ci((labels == predicted).sum(), 80)
    assert found.balanced_accuracy == pytest.approx(peer.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(peer.f1_score(labels, predicted, average="macro"))
    means = macro_average_ci(peer.confusion_matrix(labels, predicted))
    assert (found.balanced_accuracy_95, found.macro_f1_95) == means
    assert found.log_loss == pytest.approx(peer.log_loss(labels, probabilities), abs=1e-5)
    assert found.confusion == tuple(map(tuple, peer.confusion_matrix(labels, predicted).tolist()))
    columns = peer.precision_recall_fscore_support(labels, predicted)
    for number, each in enumerate(found.per_class):
        assert each.class_name == "abcd"[number]
        assert [each.precision, each.recall, each.f1, each.images] == pytest.approx([column[number] for column in columns])


def test_classes_without_test_images_do_not_lower_the_means() -> None:
    labels, probabilities = answers(classes=3)
    wider = np.hstack([probabilities, np.zeros((80, 1), np.float32)])
    found, narrow = (
        classification_report(labels, wider, list("abcd")),
        classification_report(labels, probabilities, list("abc")),
    )
    assert found.balanced_accuracy == narrow.balanced_accuracy
    assert found.macro_f1 == narrow.macro_f1
    assert found.per_class[3] == ClassScores("d", 0, 0.0, 0.0, 0.0)
    assert len(found.confusion) == 4


def test_a_class_that_is_predicted_but_never_true_counts_in_no_mean() -> None:
    labels, probabilities = np.array([0, 0, 1, 1]), np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    found = classification_report(labels, probabilities, list("abc"))
    assert found.balanced_accuracy == 0.75
    assert found.accuracy == 0.75


def test_log_loss_of_a_sure_and_wrong_answer_is_finite_and_large() -> None:
    assert log_loss(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(-np.log(np.finfo(np.float32).eps))
    assert log_loss(np.array([1]), np.array([[0.0, 1.0]])) == 0


def test_a_report_is_json() -> None:
    labels, probabilities = answers()
    found = classification_report(labels, probabilities, list("abcd"))
    assert from_json(ClassificationScores, json.loads(json.dumps(to_json(found)))) == found


@pytest.mark.parametrize("classes", [2, 4, 9])
def test_the_brier_score_is_scikit_learns(classes: int) -> None:
    labels, probabilities = answers(classes=classes)
    probabilities = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    given = probabilities if classes > 2 else probabilities[:, 1]
    expected = peer.brier_score_loss(labels, given, scale_by_half=False)
    assert brier_score(labels, probabilities) == pytest.approx(expected)
    found = classification_report(labels, probabilities, [str(number) for number in range(classes)])
    assert found.brier_score == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_accuracy_is_scikit_learns(k: int) -> None:
    labels, probabilities = answers(classes=9)
    assert top_k_accuracy(labels, probabilities, k) == peer.top_k_accuracy_score(labels, probabilities, k=k)


def test_of_equally_probable_classes_the_first_come_first_as_in_answers_and_predictions() -> None:
    labels, tied = np.arange(8), np.full((8, 8), 1 / 8, np.float32)
    assert [top_k_accuracy(labels, tied, k) for k in (1, 5)] == [1 / 8, 5 / 8]
    assert top_k_accuracy(np.zeros(8, int), tied, 5) == top_k_accuracy(np.zeros(8, int), tied, 1) == 1
    labels, probabilities = answers(classes=9)
    coarse = np.round(probabilities, 1)
    assert top_k_accuracy(labels, coarse, 1) == (coarse.argmax(axis=1) == labels).mean()
    # scikit-learn puts the last class first: its answer for the classes in reverse
    assert top_k_accuracy(labels, coarse, 3) == peer.top_k_accuracy_score(8 - labels, coarse[:, ::-1], k=3)


def test_top_5_accuracy_is_reported_where_there_are_more_than_five_classes() -> None:
    labels, probabilities = answers(classes=9)
    found = classification_report(labels, probabilities, list("abcdefghi"))
    assert found.top_5_accuracy == peer.top_k_accuracy_score(labels, probabilities, k=5)
    assert found.accuracy < found.top_5_accuracy < 1
    assert "top_5_accuracy" not in to_json(classification_report(*answers(classes=5), list("abcde")))


def test_a_report_holds_its_table_of_calibration() -> None:
    labels, probabilities = answers(rows=200)
    found = classification_report(labels, probabilities, list("abcd"))
    assert found.reliability == tuple(compute_reliability_bins(labels, probabilities))
    assert found.calibration_error == calibration_error(found.reliability)
    assert found.calibration_error_by_chance == calibration_error_by_chance(probabilities)


def test_intervals_of_a_report_hold_their_estimates() -> None:
    for seed in range(20):
        labels, probabilities = answers(rows=25, seed=seed)
        found = classification_report(labels, probabilities, list("abcd"))
        for name in ("accuracy", "balanced_accuracy", "macro_f1"):
            low, high = getattr(found, f"{name}_95")
            assert 0 <= low <= getattr(found, name) <= high <= 1
            assert high - low > 0.1


def test_a_report_of_groups_has_intervals_by_groups_and_says_so() -> None:
    labels, probabilities = (np.repeat(each, 10, axis=0) for each in answers(rows=40))
    groups, classes = np.repeat(np.arange(40), 10), list("abcd")
    found, by_image = (
        classification_report(labels, probabilities, classes, groups),
        classification_report(labels, probabilities, classes),
    )
    assert (found.groups, by_image.groups) == (40, None)
    right = probabilities.argmax(axis=1) == labels
    assert found.accuracy_95 == proportion_ci(right, groups)
    effect = design_effect(right, groups)
    assert found.reliability == tuple(compute_reliability_bins(labels, probabilities, effect))
    for name in ("accuracy_95", "balanced_accuracy_95", "macro_f1_95"):
        assert np.diff(getattr(found, name)) > 2 * np.diff(getattr(by_image, name))
    assert np.diff(found.reliability[5].accuracy_95) > 1.5 * np.diff(by_image.reliability[5].accuracy_95)
    apart = {name for name in vars(found) if getattr(found, name) != getattr(by_image, name)}
    assert apart == {"groups", "accuracy_95", "balanced_accuracy_95", "macro_f1_95", "reliability"}
    assert from_json(ClassificationScores, json.loads(json.dumps(to_json(found)))) == found
