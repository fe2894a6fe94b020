"""Intervals that hold: as published, and as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from humeris.classify.intervals import of_means, wilson


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


def confusion_of(counts: list[int], accuracy: list[float], random: np.random.Generator) -> np.ndarray:
    """Answers to so many images of each class, wrong ones spread evenly."""
    return np.stack([random.multinomial(count, share) for count, share in zip(counts, shares_of(accuracy), strict=True)])


def shares_of(accuracy: list[float]) -> np.ndarray:
    wrong = (1 - np.array(accuracy)[:, None]) / (len(accuracy) - 1)
    return np.where(np.eye(len(accuracy), dtype=bool), np.array(accuracy)[:, None], wrong)


def true_means(counts: list[int], accuracy: list[float]) -> tuple[float, float]:
    """Balanced accuracy and macro-F1 of the expected confusion matrix."""
    expected = np.array(counts)[:, None] * shares_of(accuracy)
    f1 = 2 * expected.diagonal() / (expected.sum(axis=0) + expected.sum(axis=1))
    return float(np.mean(accuracy)), float(f1.mean())


@pytest.mark.parametrize(
    ("counts", "accuracy"),
    [
        ([40, 40], [0.9, 0.9]),
        ([15, 15], [0.93, 0.93]),
        ([6, 6, 6], [0.97, 0.97, 0.97]),
        ([60, 15, 6], [0.95, 0.8, 0.6]),
        ([10] * 8, [0.8] * 8),
    ],
)
def test_intervals_of_means_hold_about_95_times_in_100(counts: list[int], accuracy: list[float]) -> None:
    random = np.random.default_rng(0)
    truth, trials = true_means(counts, accuracy), 200
    held = np.zeros(2)
    for _ in range(trials):
        found = of_means(confusion_of(counts, accuracy, random))
        held += [low <= value <= high for (low, high), value in zip(found, truth, strict=True)]
    assert (held / trials > 0.9).all()


def test_intervals_of_means_are_those_of_images_drawn_again_within_each_class() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [400, 250, 150])
    predicted = np.where(random.random(800) < 0.75, labels, random.integers(0, 3, 800))
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels, predicted), 1)
    drawn = []
    for _ in range(600):
        rows = np.concatenate(
            [random.choice(np.nonzero(labels == number)[0], (labels == number).sum()) for number in range(3)]
        )
        drawn.append(
            (
                balanced_accuracy_score(labels[rows], predicted[rows]),
                f1_score(labels[rows], predicted[rows], average="macro"),
            )
        )
    slow = np.quantile(drawn, [0.025, 0.975], axis=0).T
    assert np.array(of_means(confusion)) == pytest.approx(slow, abs=0.006)


def test_a_class_that_is_always_right_still_has_an_interval() -> None:
    for low, high in of_means(np.diag([6, 6, 6])):
        assert low < 0.95
        assert high == 1


def test_more_images_make_intervals_of_means_narrower() -> None:
    confusion = np.array([[8, 2], [3, 7]])
    few, many = (np.diff(of_means(confusion * times), axis=1) for times in (1, 25))
    assert (many < few / 3).all()


def test_classes_that_do_not_occur_take_no_part_in_the_means() -> None:
    confusion = np.array([[80, 20, 0], [10, 90, 0], [0, 0, 0]])
    wide, narrow = np.array(of_means(confusion)), np.array(of_means(confusion[:2, :2]))
    assert wide == pytest.approx(narrow, abs=0.01)
    assert (wide[:, 0] > 0.7).all()


def test_the_same_answers_have_the_same_interval() -> None:
    confusion = np.array([[80, 20], [10, 90]])
    assert of_means(confusion) == of_means(confusion)
