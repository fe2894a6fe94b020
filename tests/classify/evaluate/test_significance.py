"""The winner against the runner-up: exact, on the same images, with an interval that holds."""

from __future__ import annotations

import json
from itertools import product
from math import comb, lgamma

import numpy as np
import pytest

from humeris.cache.typed_json import from_json, to_json
from humeris.classify.evaluate.confidence_intervals import grouped_difference_ci, paired_difference_ci
from humeris.classify.evaluate.significance import Comparison, compare_with_runner_up, find_runner_up, sign_flip_test
from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.heads.training_data import TrainingData
from humeris.extract.backbones.tap_ref import TapRef

DEEP, SHALLOW = TapRef("nano", "nano-1", "block5_out", "avg"), TapRef("nano", "nano-1", "block2_out", "avg")


def trial(source: TapRef, head: str = "logreg", c: float = 1.0) -> Trial:
    return Trial((source,), head, {"C": c})


def scored(right: str, accuracy: float | None = None, log_loss: float = 0.5) -> Score:
    """The score of a trial that answered the images marked 1 rightly."""
    bits = np.array([each == "1" for each in right])
    share = bits.mean() if accuracy is None else accuracy
    return Score(float(share), log_loss, (float(share),), correct=np.packbits(bits).tobytes().hex())


def by_hand(first: int, second: int) -> float:
    """Twice the smaller tail of a fair coin."""
    total = first + second
    tail = sum(comb(total, number) for number in range(min(first, second) + 1)) / 2**total
    return float(min(1.0, 2 * tail))


def test_the_counts_and_the_difference_are_of_the_same_images() -> None:
    scores = {trial(DEEP): scored("1111111100"), trial(SHALLOW): scored("1111000010")}
    found = compare_with_runner_up(scores, 10)
    assert found is not None
    assert (found.winner, found.runner_up, found.images) == (trial(DEEP).id, trial(SHALLOW).id, 10)
    assert (found.only_winner, found.only_runner_up) == (4, 1)
    assert found.difference == pytest.approx(0.3)
    assert found.p_value == pytest.approx(0.375)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 0), (6, 0), (9, 3), (7, 7), (21, 4), (60, 41)])
def test_the_p_value_is_mcnemars_exact_one(first: int, second: int) -> None:
    rest = 130 - first - second
    winner, other = "1" * first + "0" * second + "1" * rest, "0" * first + "1" * second + "1" * rest
    found = compare_with_runner_up({trial(DEEP): scored(winner), trial(SHALLOW): scored(other, accuracy=0.0)}, 130)
    assert found is not None
    assert (found.only_winner, found.only_runner_up) == (first, second)
    assert found.p_value == pytest.approx(by_hand(first, second))


def test_a_winner_that_these_images_put_behind_has_a_negative_difference() -> None:
    found = compare_with_runner_up(
        {trial(DEEP): scored("1000", accuracy=0.9), trial(SHALLOW): scored("0111", accuracy=0.8)}, 4
    )
    assert found is not None
    assert (found.winner, found.difference) == (trial(DEEP).id, -0.5)
    low, high = found.difference_95
    assert low < -0.5 < high


def test_the_test_never_calls_equals_different_more_than_one_time_in_twenty() -> None:
    for total in range(1, 60):
        level = sum(comb(total, first) / 2**total for first in range(total + 1) if by_hand(first, total - first) <= 0.05)
        assert level <= 0.05


def test_the_runner_up_is_another_head_or_another_source() -> None:
    best = {trial(DEEP): scored("1110"), trial(DEEP, c=2.0): scored("1110", log_loss=0.6)}
    assert find_runner_up(best) is None
    assert compare_with_runner_up(best, 4) is None
    weak = {trial(SHALLOW): scored("1000")}
    assert find_runner_up({**best, **weak}) == trial(SHALLOW)
    other_head = {trial(DEEP, "ridge"): scored("1100")}
    assert find_runner_up({**best, **weak, **other_head}) == trial(DEEP, "ridge")


def test_the_runner_up_is_the_next_in_the_ranking_not_the_most_different() -> None:
    scores = {trial(DEEP): scored("1111"), trial(DEEP, "ridge"): scored("1110"), trial(SHALLOW): scored("1000")}
    assert find_runner_up(scores) == trial(DEEP, "ridge")


def test_the_bits_are_those_that_a_problem_keeps() -> None:
    labels = np.arange(23) % 2
    folds = [(np.arange(12, 23), np.arange(12)), (np.arange(12), np.arange(12, 23))]
    problem = TrainingData.from_arrays(np.zeros((23, 1)), labels, folds)
    random = np.random.default_rng(0)
    guesses = [random.integers(0, 2, 23) for _ in range(2)]
    scores = {
        trial(source): problem.score([np.eye(2)[guess[rows]] for _, rows in folds])
        for source, guess in zip((DEEP, SHALLOW), guesses, strict=True)
    }
    found = compare_with_runner_up(scores, 23)
    assert found is not None
    first, second = (guess == labels for guess in guesses)
    if found.winner != trial(DEEP).id:
        first, second = second, first
    assert (found.only_winner, found.only_runner_up) == ((first & ~second).sum(), (second & ~first).sum())
    assert found.only_winner != found.only_runner_up


def test_only_images_that_were_scored_count() -> None:
    """With a validation split the training images have bits too, all of them 0."""
    scores = {trial(DEEP): scored("0000" + "1111"), trial(SHALLOW): scored("0000" + "1100")}
    found = compare_with_runner_up(scores, 4)
    assert found is not None
    assert found.difference == 0.5


def test_a_comparison_is_json() -> None:
    found = compare_with_runner_up({trial(DEEP): scored("11"), trial(SHALLOW): scored("10")}, 2)
    assert found is not None
    assert from_json(Comparison, json.loads(json.dumps(to_json(found)))) == found
    low, high = found.difference_95
    assert low < found.difference < high


def coverage(total: int, first: float, second: float) -> float:
    """The exact chance that the interval holds the true difference, over every outcome of `total` images."""
    held = 0.0
    for b, c in product(range(total + 1), repeat=2):
        if b + c <= total:
            low, high = paired_difference_ci(b, c, total)
            if low <= first - second <= high:
                ways = lgamma(total + 1) - lgamma(b + 1) - lgamma(c + 1) - lgamma(total - b - c + 1)
                logs = b * np.log(first) + c * np.log(second) + (total - b - c) * np.log(1 - first - second)
                held += float(np.exp(ways + logs))
    return held


@pytest.mark.parametrize(("first", "second"), [(0.03, 0.03), (0.08, 0.02), (0.1, 0.1), (0.2, 0.05), (0.3, 0.25)])
@pytest.mark.parametrize("total", [30, 80])
def test_the_interval_of_the_difference_holds_about_95_times_in_100(total: int, first: float, second: float) -> None:
    assert 0.935 < coverage(total, first, second) < 1


def test_the_interval_of_the_difference_is_agresti_and_mins() -> None:
    b, c, n = 7.5, 1.5, 23.0  # 7 and 1 of 21, half an image added to each of four cells
    middle, error = (b - c) / n, np.sqrt((b + c) / n - ((b - c) / n) ** 2) / np.sqrt(n)
    expected = (middle - 1.959963984540054 * error, middle + 1.959963984540054 * error)
    assert paired_difference_ci(7, 1, 21) == pytest.approx(expected)
    assert paired_difference_ci(1, 7, 21) == pytest.approx((-expected[1], -expected[0]))
    assert paired_difference_ci(1, 0, 1)[1] == 1.0


def bits(right: np.ndarray) -> str:
    return "".join("1" if each else "0" for each in right)


def drawn(random: np.random.Generator, groups: int, each: int, shares: tuple[float, float]) -> tuple[Comparison, bool]:
    """Two trials on groups of nearly equal images, and whether the first is the winner."""
    right = []
    for share in shares:
        alike = np.repeat(random.random(groups) < share, each)
        right.append(np.where(random.random(groups * each) < 0.1, random.random(groups * each) < share, alike))
    scores = {trial(DEEP): scored(bits(right[0])), trial(SHALLOW): scored(bits(right[1]))}
    found = compare_with_runner_up(scores, groups * each, np.repeat(np.arange(groups), each))
    assert found is not None
    return found, found.winner == trial(DEEP).id


def test_images_that_are_alike_are_no_proof_that_equals_differ() -> None:
    """40 groups of 10 nearly equal images: counted one by one, more than half of equals are called different."""
    random = np.random.default_rng(0)
    found = [drawn(random, 40, 10, (0.85, 0.85))[0] for _ in range(200)]
    assert all((each.images, each.groups) == (400, 40) for each in found)
    assert sum(each.p_value <= 0.05 for each in found) <= 18  # 10 are expected
    assert sum(by_hand(each.only_winner, each.only_runner_up) <= 0.05 for each in found) > 80
    held = [each.difference_95[0] <= 0 <= each.difference_95[1] for each in found]
    assert sum(held) >= 182


def test_groups_tell_unequals_apart() -> None:
    random = np.random.default_rng(0)
    found = [drawn(random, 60, 5, (0.95, 0.7)) for _ in range(60)]
    assert sum(each.p_value <= 0.05 for each, _ in found) > 50
    held = [each.difference_95[0] <= (0.25 if first else -0.25) <= each.difference_95[1] for each, first in found]
    assert sum(held) >= 54


def test_the_p_value_by_groups_is_that_of_all_ways_to_flip_their_signs() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        sums = random.integers(-5, 6, random.integers(1, 10))
        totals = [abs(int(np.dot(signs, sums))) for signs in product((1, -1), repeat=len(sums))]
        share = np.mean([total >= abs(sums.sum()) for total in totals])
        assert sign_flip_test(sums) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (6, 0), (9, 3), (7, 7), (60, 41), (400, 300), (60, 0)])
def test_groups_of_one_differing_image_are_tested_as_mcnemar_does(first: int, second: int) -> None:
    sums = np.array([1] * first + [-1] * second + [0] * 50)
    assert sign_flip_test(sums) == pytest.approx(by_hand(first, second), abs=1e-12)


def test_the_interval_by_groups_of_one_image_is_that_of_images() -> None:
    sums = np.repeat([1, -1, 0], [70, 40, 9890])
    assert grouped_difference_ci(sums, np.ones(10000, int)) == pytest.approx(paired_difference_ci(70, 40, 10000), rel=1e-3)


def test_repeating_every_image_within_its_group_tells_no_more() -> None:
    sums, sizes = np.repeat([1, -1, 0], [12, 4, 24]), np.ones(40, int)
    assert sign_flip_test(10 * sums) == pytest.approx(sign_flip_test(sums))
    assert grouped_difference_ci(10 * sums, 10 * sizes) == pytest.approx(grouped_difference_ci(sums, sizes))


def test_one_group_tells_nothing() -> None:
    found = compare_with_runner_up({trial(DEEP): scored("1111"), trial(SHALLOW): scored("0000")}, 4, np.zeros(4, int))
    assert found is not None
    assert (found.p_value, found.difference_95, found.groups) == (1.0, (-1.0, 1.0), 1)


def test_groups_of_images_that_were_not_scored_do_not_count() -> None:
    scores = {trial(DEEP): scored("0000" + "111111"), trial(SHALLOW): scored("0000" + "110000")}
    found = compare_with_runner_up(scores, 6, np.array([-1, -1, -1, -1, 0, 0, 1, 1, 2, 2]))
    assert found is not None
    assert (found.groups, found.p_value) == (3, pytest.approx(0.5))
    assert found.difference_95 == grouped_difference_ci(np.array([0, 2, 2]), np.array([2, 2, 2]))
