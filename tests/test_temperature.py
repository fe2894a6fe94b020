"""One temperature for decisions that are no probabilities, and the options of heads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from humeris.cache.errors import HeadError
from humeris.classify.family import parse
from humeris.classify.heads.temperature import factor, present, scored
from humeris.classify.problem import Problem


def decisions(classes: int = 4, rows: int = 400, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, rows)
    return scale * (random.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[labels]), labels


def loss(times: float, rows: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(times * rows, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_no_other_temperature_has_a_lower_log_loss(scale: float) -> None:
    rows, labels = decisions(scale=scale)
    found = factor([rows[:150], rows[150:]], [labels[:150], labels[150:]])
    least = loss(found, rows, labels)
    assert least < loss(0, rows, labels) - 0.1
    assert all(least <= loss(found * change, rows, labels) + 1e-6 for change in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


def test_decisions_that_are_all_right_or_tell_nothing_have_a_finite_temperature() -> None:
    labels = np.arange(30) % 3
    for rows in (np.eye(3)[labels], -np.eye(3)[labels], np.zeros((30, 3))):
        assert 0 < factor([rows], [labels]) < np.inf


def test_the_score_keeps_the_temperature_and_the_accuracy() -> None:
    rows, labels = decisions()
    some = Problem.of(rows, labels, [(np.arange(200), np.arange(200, 400)), (np.arange(200, 400), np.arange(200))])
    score = scored(some, [rows[200:].astype(np.float32), rows[:200].astype(np.float32)], 1.0)
    assert score.accuracy == pytest.approx((rows.argmax(axis=1) == labels).mean())
    assert score.log_loss == pytest.approx(loss(1 / score.detail["temperature"], rows, labels), rel=1e-5)


def test_a_class_without_rows_is_never_first() -> None:
    found = present(np.array([[-2.0, -1.0, -3.0]]), np.array([3, 0, 2]))
    assert found.tolist() == [[-2.0, -3.0, -3.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ridge,c=1", "head ridge: expected the option alpha; found 'c'"),
        ("ridge,alpha=0", "head ridge: expected alpha as numbers above 0, one or as a/b/c; found '0'"),
        ("ridge,alpha=inf", "head ridge: expected alpha as numbers above 0"),
        ("ridge,alpha=nan/1", "found 'nan/1'"),
        ("ridge,alpha=1/", "found '1/'"),
        (
            "lda,shrinkage=1.5",
            "head lda: expected shrinkage as numbers between 0 and 1 or auto, one or as a/b/c; found '1.5'",
        ),
        ("lda,shrinkage=-0.1", "head lda: expected shrinkage"),
        ("lda,shrinkage=Auto", "head lda: expected shrinkage"),
        ("knn,n_neighbors=0", "head knn: expected n_neighbors as whole numbers of at least 1, one or as a/b/c; found '0'"),
        ("knn,n_neighbors=2.5", "found '2.5'"),
        ("knn,weights=rank", "head knn: expected weights as uniform or distance, one or as a/b/c; found 'rank'"),
        ("knn,k=3", "head knn: expected an option of n_neighbors, weights; found 'k'"),
        ("centroid,metric=manhattan", "head centroid: expected metric as euclidean or cosine"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(text: str, message: str) -> None:
    with pytest.raises(HeadError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ridge", "lda", "knn", "centroid"])
def test_linear_heads_and_neighbours_need_no_keras(name: str) -> None:
    family = parse(name)
    assert not family.uses_keras
    assert len(family.settings) == len({str(setting) for setting in family.settings}) > 1
