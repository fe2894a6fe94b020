"""Text output of results claims no more than the scores support."""

from __future__ import annotations

from dataclasses import replace

import pytest
from run_values import TEST_SCORES

from humeris.classify.evaluate.significance import Comparison
from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.runs.result import NearDuplicatePair, NearDuplicateSummary, RunnerUp
from humeris.commands.render import classify
from humeris.extract.backbones.tap_ref import TapRef


def runner_up(winner: int, other: int, p_value: float, groups: int | None = None) -> RunnerUp:
    difference = (winner - other) / 100
    comparison = Comparison(
        winner="89abcdef",
        runner_up="01234567",
        images=100,
        only_winner=winner,
        only_runner_up=other,
        difference=difference,
        difference_95=(difference - 0.1, difference + 0.1),
        p_value=p_value,
        groups=groups,
    )
    trial = Trial((TapRef("nano", "nano-64", "block5_out", "avg"),), "ridge", {})
    return RunnerUp.from_trial(trial, Score(0.9, 0.5, (0.9,)), comparison)


@pytest.mark.parametrize(
    ("winner", "other", "p_value", "verdict"),
    [
        (20, 2, 0.001, "the difference is significant"),
        (5, 4, 0.9, "the difference is not significant"),
        (2, 20, 0.001, "the runner-up is more accurate on these images"),
        (4, 5, 0.9, "the runner-up is more accurate on these images"),
    ],
)
def test_the_verdict_on_the_runner_up_follows_the_comparison(winner: int, other: int, p_value: float, verdict: str) -> None:
    found = classify._format_runner_up(runner_up(winner, other, p_value))
    verdicts = ("difference is significant", "not significant", "is more accurate")
    assert verdict in found
    assert sum(each in found for each in verdicts) == 1
    assert "biased in favor of the winner, which was selected on these images" in found


def test_the_text_says_whether_images_or_groups_were_counted() -> None:
    found = runner_up(20, 2, 0.001)
    assert "McNemar p = 0.001" in classify._format_runner_up(found)
    assert "group" not in classify._format_runner_up(found)
    grouped = runner_up(20, 2, 0.001, groups=40)
    assert "sign-flip test on 40 groups, p = 0.001" in classify._format_runner_up(grouped)
    assert "McNemar" not in classify._format_runner_up(grouped)
    test = replace(TEST_SCORES, images=100, groups=12)
    assert "), 100 images in 12 groups (CI by groups)" in classify._format_accuracy(test)
    assert classify._format_accuracy(replace(test, groups=None)).endswith("), 100 images")


def copies(pairs: int, cannot_tell: bool) -> str:
    named = tuple(NearDuplicatePair(f"t{number}", f"d{number}", 1.0) for number in range(pairs))
    return classify._format_near_duplicates(NearDuplicateSummary(named, cannot_tell, pairs, 0.5, (0.25, 0.75)))


def test_no_near_duplicates_and_unknown_near_duplicates_read_differently() -> None:
    assert copies(0, cannot_tell=False).endswith("none found")
    for number in (0, 2):
        assert "none found" not in copies(number, cannot_tell=True)
        assert "only equal features count as near-duplicates" in copies(number, cannot_tell=True)
    assert "only equal features" not in copies(2, cannot_tell=False)
