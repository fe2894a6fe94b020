"""Scores: scikit-learn's, and an interval that holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as peer

from humeris.classify.metrics import log_loss, report, wilson


def answers(rows: int = 80, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.choice(classes, rows, p=np.linspace(1, 3, classes) / np.linspace(1, 3, classes).sum())
    scores = random.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels]
    powers = np.exp(scores)
    return labels, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I: the score method without continuity correction
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_the_published_one(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_interval_stays_inside_zero_and_one_and_is_symmetric() -> None:
    for total in (1, 7, 300):
        for right in range(total + 1):
            low, high = wilson(right, total)
            mirrored = wilson(total - right, total)
            assert 0 <= low <= right / total + 1e-12
            assert right / total - 1e-12 <= high <= 1
            assert (low, high) == (pytest.approx(1 - mirrored[1]), pytest.approx(1 - mirrored[0]))


def test_scores_equal_scikit_learns() -> None:
    labels, probabilities = answers()
    predicted = probabilities.argmax(axis=1)
    found = report(labels, probabilities, list("abcd"))
    assert found["images"] == 80
    assert found["accuracy"] == pytest.approx(peer.accuracy_score(labels, predicted))
    assert found["accuracy_95"] == list(wilson((labels == predicted).sum(), 80))
    assert found["balanced_accuracy"] == pytest.approx(peer.balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(peer.f1_score(labels, predicted, average="macro"))
    assert found["log_loss"] == pytest.approx(peer.log_loss(labels, probabilities), abs=1e-5)
    assert found["confusion"] == peer.confusion_matrix(labels, predicted).tolist()
    columns = peer.precision_recall_fscore_support(labels, predicted)
    for number, each in enumerate(found["per_class"]):
        assert each["class"] == "abcd"[number]
        assert [each["precision"], each["recall"], each["f1"], each["images"]] == pytest.approx(
            [column[number] for column in columns]
        )


def test_classes_without_test_images_do_not_lower_the_means() -> None:
    labels, probabilities = answers(classes=3)
    wider = np.hstack([probabilities, np.zeros((80, 1), np.float32)])
    found, narrow = report(labels, wider, list("abcd")), report(labels, probabilities, list("abc"))
    assert found["balanced_accuracy"] == narrow["balanced_accuracy"]
    assert found["macro_f1"] == narrow["macro_f1"]
    assert found["per_class"][3] == {"class": "d", "images": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert len(found["confusion"]) == 4


def test_a_class_that_is_predicted_but_never_true_counts_in_no_mean() -> None:
    labels, probabilities = np.array([0, 0, 1, 1]), np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    found = report(labels, probabilities, list("abc"))
    assert found["balanced_accuracy"] == 0.75
    assert found["accuracy"] == 0.75


def test_log_loss_of_a_sure_and_wrong_answer_is_finite_and_large() -> None:
    assert log_loss(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(-np.log(np.finfo(np.float32).eps))
    assert log_loss(np.array([1]), np.array([[0.0, 1.0]])) == 0


def test_a_report_is_json() -> None:
    labels, probabilities = answers()
    found = report(labels, probabilities, list("abcd"))
    assert json.loads(json.dumps(found)) == found
