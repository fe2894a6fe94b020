"""Intervals that hold: as published, and as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from humeris.classify.evaluate.confidence_intervals import design_effect, macro_average_ci, proportion_ci, wilson_ci


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I: the score method without continuity correction
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_the_published_one(right: int, total: int, low: float, high: float) -> None:
    assert wilson_ci(right, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_interval_stays_inside_zero_and_one_and_is_symmetric() -> None:
    for total in (1, 7, 300):
        for right in range(total + 1):
            low, high = wilson_ci(right, total)
            mirrored = wilson_ci(total - right, total)
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
        found = macro_average_ci(confusion_of(counts, accuracy, random))
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
    assert np.array(macro_average_ci(confusion)) == pytest.approx(slow, abs=0.006)


def test_a_class_that_is_always_right_still_has_an_interval() -> None:
    for low, high in macro_average_ci(np.diag([6, 6, 6])):
        assert low < 0.95
        assert high == 1


def test_more_images_make_intervals_of_means_narrower() -> None:
    confusion = np.array([[8, 2], [3, 7]])
    few, many = (np.diff(macro_average_ci(confusion * times), axis=1) for times in (1, 25))
    assert (many < few / 3).all()


def test_classes_that_do_not_occur_take_no_part_in_the_means() -> None:
    confusion = np.array([[80, 20, 0], [10, 90, 0], [0, 0, 0]])
    wide, narrow = np.array(macro_average_ci(confusion)), np.array(macro_average_ci(confusion[:2, :2]))
    assert wide == pytest.approx(narrow, abs=0.01)
    assert (wide[:, 0] > 0.7).all()


def test_the_same_answers_have_the_same_interval() -> None:
    confusion = np.array([[80, 20], [10, 90]])
    assert macro_average_ci(confusion) == macro_average_ci(confusion)


def alike(random: np.random.Generator, groups: int, each: int, share: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Which images were answered rightly, and their groups; each image goes its own way as often as `noise` says."""
    group, count = np.repeat(np.arange(groups), each), groups * each
    return np.where(
        random.random(count) < noise, random.random(count) < share, (random.random(groups) < share)[group]
    ), group


@pytest.mark.parametrize(
    ("groups", "each", "share", "noise"),
    [(40, 10, 0.85, 0.1), (40, 10, 0.97, 0.1), (12, 10, 0.85, 0.1), (6, 20, 0.8, 0.3), (40, 10, 0.85, 1.0)],
)
def test_the_interval_by_groups_holds_about_95_times_in_100(groups: int, each: int, share: float, noise: float) -> None:
    random, held, by_image = np.random.default_rng(0), 0, 0
    for _ in range(300):
        right, group = alike(random, groups, each, share, noise)
        low, high = proportion_ci(right, group)
        held += low <= share <= high
        low, high = wilson_ci(int(right.sum()), len(right))
        by_image += low <= share <= high
    assert held >= 276
    assert noise == 1 or by_image < 200


def test_groups_of_one_image_are_images() -> None:
    right = np.arange(50) % 5 > 0
    assert proportion_ci(right, np.arange(50)) == proportion_ci(right, None) == wilson_ci(40, 50)
    assert design_effect(right, np.arange(50)) == 1


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_where_all_images_are_right_groups_are_counted(share: float) -> None:
    right = np.full(200, bool(share))
    assert proportion_ci(right, np.arange(200) // 10) == pytest.approx(wilson_ci(20 * share, 20))
    assert proportion_ci(right, np.zeros(200, int)) == pytest.approx(wilson_ci(share, 1))


def test_an_interval_by_groups_is_never_narrower_than_one_by_images_nor_wider_than_groups_all_alike() -> None:
    random = np.random.default_rng(0)
    for noise in (0.0, 0.5, 1.0):
        for groups in (2, 5, 40):
            right, group = alike(random, groups, 6, 0.7, noise)
            effect = design_effect(right, group)
            assert 1 <= effect <= 6
            low, high = proportion_ci(right, group)
            assert 0 <= low <= right.mean() <= high <= 1


def test_intervals_of_means_by_groups_are_as_wide_as_those_of_fewer_images() -> None:
    confusion = np.array([[340, 60], [80, 320]])
    by_groups, fewer = macro_average_ci(confusion, 10.0), macro_average_ci(confusion // 10)
    assert np.array(by_groups) == pytest.approx(np.array(fewer), abs=0.01)
    assert macro_average_ci(confusion, 1.0) == macro_average_ci(confusion)
