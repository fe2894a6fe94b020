"""One temperature for decisions that are no probabilities, and the options of heads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from humeris.cache.errors import HeadError
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.heads.head_grid import HeadGrid
from humeris.classify.heads.linear.temperature import (
    fit_factors,
    mask_absent_classes,
    score_decisions,
    softmax,
    split_halves,
)
from humeris.classify.heads.training_data import TrainingData


def decisions(classes: int = 4, rows: int = 400, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, rows)
    return scale * (random.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[labels]), labels


def loss(times: float, rows: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(times * rows, axis=1)[np.arange(len(labels)), labels].mean())


def smoothed(times: float, rows: np.ndarray, labels: np.ndarray) -> float:
    """The cross-entropy with smoothed labels, row by row."""
    total = 0.0
    for row, label in zip(rows, labels, strict=True):
        logs, others = log_softmax(times * row), [number for number in range(len(row)) if number != label]
        rival, lost = max(others, key=lambda number: row[number]), 2 / len(row) / ((labels == label).sum() + 2)
        total -= (1 - lost) * logs[label] + lost * logs[rival]
    return total / len(rows)


def halved(rows: int) -> np.ndarray:
    return np.arange(rows) // ((rows + 1) // 2)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_no_other_factor_has_a_lower_loss(scale: float, classes: int) -> None:
    rows, labels = decisions(classes, scale=scale)
    every, others = fit_factors(rows, labels, halved(400))
    found = [(every, slice(None)), (others[0], slice(200, None)), (others[1], slice(200))]
    for times, part in found:
        least = smoothed(times, rows[part], labels[part])
        assert least < smoothed(0, rows[part], labels[part]) - 0.03
        changes = (0.5, 0.9, 0.98, 1.02, 1.1, 2)
        assert all(least < smoothed(times * change, rows[part], labels[part]) for change in changes)


def test_the_targets_of_two_classes_are_platts() -> None:
    """Decisions that only say which class it is: the probabilities are then the targets."""
    labels = np.repeat([0, 1], 8)
    every, _ = fit_factors(np.eye(2)[labels], labels, halved(16))
    assert 1 / (1 + np.exp(-every)) == pytest.approx(9 / 10, abs=1e-3)


@pytest.mark.parametrize("classes", [2, 3, 30])
def test_decisions_that_are_all_right_give_no_certainty(classes: int) -> None:
    labels = np.arange(10 * classes) % classes
    rows = np.eye(classes)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(len(labels), classes))
    some = TrainingData.from_arrays(
        rows, labels, [(np.arange(0), part) for part in np.array_split(np.arange(len(labels)), 5)]
    )
    score = score_decisions(some, np.array_split(rows, 5), 0.0)
    assert score.accuracy == 1
    assert 1 / len(labels) < score.log_loss < 0.3
    assert score.fit_info["temperature"] > 0.05


def test_decisions_that_are_all_wrong_or_tell_nothing_have_a_factor_next_to_0() -> None:
    labels = np.arange(30) % 3
    for rows in (-np.eye(3)[labels], np.zeros((30, 3))):
        every, others = fit_factors(rows, labels, np.arange(30) % 5)
        assert all(0 < each < 1e-3 for each in (every, *others))


def test_a_fold_is_scored_with_the_temperature_of_the_others() -> None:
    rows, labels = decisions()
    rows[200:] *= 3
    some = TrainingData.from_arrays(
        rows, labels, [(np.arange(200), np.arange(200, 400)), (np.arange(200, 400), np.arange(200))]
    )
    score = score_decisions(some, [rows[200:].astype(np.float32), rows[:200].astype(np.float32)], 1.0)
    every, (first, second) = fit_factors(rows, labels, halved(400))
    assert first < second / 2
    assert score.accuracy == pytest.approx((rows.argmax(axis=1) == labels).mean())
    expected = (loss(first, rows[:200], labels[:200]) + loss(second, rows[200:], labels[200:])) / 2
    assert score.log_loss == pytest.approx(expected, rel=1e-4)
    assert score.fit_info["temperature"] == pytest.approx(1 / every, rel=1e-4)


def test_what_a_fold_says_does_not_move_its_own_temperature() -> None:
    rows, labels = decisions()
    other = labels.copy()
    other[:100] = (labels[:100] + 1) % 4
    parts = np.arange(400) // 100
    here, there = fit_factors(rows, labels, parts), fit_factors(rows, other, parts)
    assert here[1][0] == there[1][0]
    assert here[0] > 1.2 * there[0]


def test_the_halves_of_a_single_fold_are_scored_with_each_others_temperature() -> None:
    rows, labels = decisions(rows=200)
    shown = np.repeat(np.arange(200), 2)
    rows, labels = rows[shown], labels[shown]
    some = TrainingData(
        FeatureMatrix.from_array(rows), labels, SingleLabel.from_n_classes(4), ((np.arange(0), np.arange(400)),), shown
    )
    half = split_halves(labels, shown)
    assert (half[::2] == half[1::2]).all()
    for number in range(4):
        inside = half[labels == number]
        assert abs(2 * inside.sum() - len(inside)) <= 2
    rows[half == 1] *= 3
    score = score_decisions(some, [rows], 0.0)
    _, others = fit_factors(rows, labels, half)
    answers = np.exp(log_softmax(others[half][:, None] * rows, axis=1))
    assert score.log_loss == pytest.approx(some.score([answers]).log_loss, rel=1e-6)
    assert others[0] < others[1] / 2


def test_one_image_and_decisions_that_are_not_finite_have_a_score() -> None:
    one = score_decisions(
        TrainingData.from_arrays(np.eye(2), np.arange(2), [(np.array([0]), np.array([1]))]), [np.array([[0.0, 1.0]])], 0.0
    )
    assert np.isfinite([one.log_loss, one.fit_info["temperature"]]).all()
    rows, labels = decisions()
    rows[3, 2], rows[50], rows[7] = np.nan, np.inf, -np.inf
    pairs = [(np.arange(0), np.arange(200)), (np.arange(0), np.arange(200, 400))]
    some = TrainingData.from_arrays(np.zeros((400, 2)), labels, pairs)
    score = score_decisions(some, [rows[:200], rows[200:]], 0.0)
    assert score.accuracy > 0.5
    lost = score_decisions(some, [np.full_like(rows[:200], np.nan), np.full_like(rows[200:], np.nan)], 0.0)
    assert lost.log_loss == pytest.approx(np.log(4))
    assert np.isfinite([score.log_loss, score.fit_info["temperature"], lost.fit_info["temperature"]]).all()


def test_probabilities_of_decisions_that_are_not_finite_are_none_and_warn_of_nothing() -> None:
    found = softmax(np.array([[0.0, np.log(3)], [np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]]))
    assert found[0] == pytest.approx([0.25, 0.75])
    assert not np.isfinite(found[1:]).all(axis=1).any()


def test_a_class_without_rows_is_never_first() -> None:
    found = mask_absent_classes(np.array([[-2.0, -1.0, -3.0]]), np.array([3, 0, 2]))
    assert found.tolist() == [[-2.0, -3.0, -3.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ridge,c=1", "head ridge has no option 'c' (options: alpha); use one of these"),
        ("ridge,alpha=0", "head ridge: invalid alpha '0'; give a number above 0, or several as a/b/c"),
        ("ridge,alpha=inf", "head ridge: invalid alpha 'inf'; give a number above 0"),
        ("ridge,alpha=nan/1", "invalid alpha 'nan/1'; give"),
        ("ridge,alpha=1/", "invalid alpha '1/'; give"),
        (
            "lda,shrinkage=1.5",
            "head lda: invalid shrinkage '1.5'; give a number between 0 and 1 or auto, or several as a/b/c",
        ),
        ("lda,shrinkage=-0.1", "head lda: invalid shrinkage '-0.1'; give"),
        ("lda,shrinkage=Auto", "head lda: invalid shrinkage 'Auto'; give"),
        ("knn,n_neighbors=0", "head knn: invalid n_neighbors '0'; give a whole number of at least 1, or several as a/b/c"),
        ("knn,n_neighbors=2.5", "invalid n_neighbors '2.5'; give"),
        ("knn,weights=rank", "head knn: invalid weights 'rank'; give one of uniform, distance, or several as a/b/c"),
        ("knn,k=3", "head knn has no option 'k' (options: n_neighbors, weights); use one of these"),
        ("centroid,metric=manhattan", "head centroid: invalid metric 'manhattan'; give one of euclidean, cosine"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(text: str, message: str) -> None:
    with pytest.raises(HeadError) as caught:
        HeadGrid.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ridge", "lda", "knn", "centroid"])
def test_linear_heads_and_neighbours_need_no_keras(name: str) -> None:
    head_grid = HeadGrid.parse(name)
    assert not head_grid.family.uses_keras
    assert len(head_grid.hyperparameter_sets) == len({str(each) for each in head_grid.hyperparameter_sets}) > 1
