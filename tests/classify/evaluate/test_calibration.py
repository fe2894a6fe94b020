"""Calibration: bins of as many images, ties together, chance told apart from dishonesty."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from humeris.classify.evaluate.calibration import (
    BINS,
    calibration_error,
    calibration_error_by_chance,
    compute_reliability_bins,
)
from humeris.classify.evaluate.confidence_intervals import wilson_ci


def sure_answers(sure: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities (n, 3) of answers that are so sure, right where the mask says."""
    places = np.arange(len(sure)) % 3
    probabilities = np.repeat(((1 - sure) / 2)[:, None], 3, axis=1)
    probabilities[np.arange(len(sure)), places] = sure
    return np.where(right, places, (places + 1) % 3), probabilities


def drawn(rows: int, honest: bool = True, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    sure = random.uniform(0.4, 1, rows)
    return sure_answers(sure, random.random(rows) < (sure if honest else sure - 0.3))


@pytest.mark.parametrize("rows", [150, 600, 1000])
def test_the_table_is_scikit_learns_curve_of_quantiles(rows: int) -> None:
    labels, probabilities = drawn(rows)
    right, sure = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    share, confidence = calibration_curve(right, sure, n_bins=BINS, strategy="quantile")
    bins = compute_reliability_bins(labels, probabilities)
    assert len(bins) == BINS
    if rows % BINS == 0:
        assert {each.images for each in bins} == {rows // BINS}
    assert [each.confidence for each in bins] == pytest.approx(confidence.tolist(), abs=2e-3)
    assert [each.accuracy for each in bins] == pytest.approx(share.tolist(), abs=0.03)
    for each in bins:
        assert each.accuracy_95 == wilson_ci(round(each.accuracy * each.images), each.images)


def test_the_error_is_the_sum_over_sorted_runs_of_images() -> None:
    labels, probabilities = drawn(300)
    right, sure = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    order = np.argsort(sure)
    expected = sum(abs((right[run].astype(float) - sure[run]).sum()) for run in order.reshape(BINS, 20)) / 300
    assert calibration_error(compute_reliability_bins(labels, probabilities)) == pytest.approx(expected)


def test_every_image_is_in_one_bin_and_no_bin_is_nearly_empty() -> None:
    for rows in (1, 9, 10, 37, 149, 150, 1001):
        bins = compute_reliability_bins(*drawn(rows))
        assert sum(each.images for each in bins) == rows
        assert len(bins) == max(1, min(BINS, rows // 10))
        assert min(each.images for each in bins) >= min(rows, 10)
        confidences = [each.confidence for each in bins]
        assert confidences == sorted(confidences)


def test_answers_that_are_equally_sure_are_never_divided() -> None:
    sure = np.repeat([0.4, 0.6, 0.8, 1.0], [100, 5, 60, 135])
    right = np.random.default_rng(0).random(300) < sure
    labels, probabilities = sure_answers(sure, right)
    order = np.random.default_rng(1).permutation(300)
    bins = compute_reliability_bins(labels, probabilities)
    shuffled = compute_reliability_bins(labels[order], probabilities[order])
    assert [each.images for each in shuffled] == [each.images for each in bins]
    assert calibration_error(shuffled) == pytest.approx(calibration_error(bins))
    edges = np.cumsum([each.images for each in bins]).tolist()
    assert set(edges) <= {100, 105, 165, 300}


def test_all_answers_equally_sure_are_one_bin() -> None:
    labels, probabilities = sure_answers(np.full(90, 0.75), np.arange(90) < 60)
    (only,) = compute_reliability_bins(labels, probabilities)
    assert (only.images, only.confidence, only.accuracy) == (90, 0.75, pytest.approx(2 / 3))
    assert calibration_error([only]) == pytest.approx(0.75 - 2 / 3)


def test_the_error_of_honest_answers_is_about_what_chance_makes_it() -> None:
    for rows in (40, 200, 1000):
        found = [
            (calibration_error(compute_reliability_bins(*data)), calibration_error_by_chance(data[1]))
            for data in (drawn(rows, seed=seed) for seed in range(60))
        ]
        error, chance = np.mean(found, axis=0)
        assert error == pytest.approx(chance, rel=0.1)


def test_the_error_of_overconfident_answers_is_far_above_chance() -> None:
    labels, probabilities = drawn(400, honest=False)
    error = calibration_error(compute_reliability_bins(labels, probabilities))
    assert error == pytest.approx(0.3, abs=0.07)
    assert error > 3 * calibration_error_by_chance(probabilities)


def test_certain_answers_leave_nothing_to_chance() -> None:
    assert calibration_error_by_chance(sure_answers(np.ones(40), np.ones(40, bool))[1]) == 0


def test_chance_needs_no_more_memory_for_more_images(monkeypatch: pytest.MonkeyPatch) -> None:
    _, probabilities = drawn(1000)
    whole = calibration_error_by_chance(probabilities)
    monkeypatch.setattr("humeris.classify.evaluate.calibration._NUMBERS", 1000 * 40)
    assert calibration_error_by_chance(probabilities) == pytest.approx(whole, rel=0.15)
    assert calibration_error_by_chance(probabilities) != whole
