"""What people read of a result: no more sure than it is."""

from __future__ import annotations

from typing import Any

import pytest

from humeris.commands.render import classify


def runner_up(winner: int, other: int, p_value: float) -> dict[str, Any]:
    difference = (winner - other) / 100
    compared = {
        "only_winner": winner,
        "only_runner_up": other,
        "difference": difference,
        "difference_95": [difference - 0.1, difference + 0.1],
        "p_value": p_value,
    }
    source = {"backbone": "nano", "layer": "block5_out", "pool": "avg"}
    return {"id": "0123abcd", "head": "ridge", "sources": [source], "score": {"accuracy": 0.9}, "compared": compared}


@pytest.mark.parametrize(
    ("winner", "other", "p_value", "verdict"),
    [
        (20, 2, 0.001, "more than chance would do"),
        (5, 4, 0.9, "these images do not tell them apart"),
        (2, 20, 0.001, "the runner-up did better on these images"),
        (4, 5, 0.9, "the runner-up did better on these images"),
    ],
)
def test_the_runner_up_is_told_of_as_the_images_have_it(winner: int, other: int, p_value: float, verdict: str) -> None:
    found = classify._format_runner_up(runner_up(winner, other, p_value))
    verdicts = ("more than chance", "do not tell them apart", "did better")
    assert verdict in found
    assert sum(each in found for each in verdicts) == 1
    assert "the winner was chosen on these same images, which favours it" in found


def test_the_text_says_whether_images_or_groups_were_counted() -> None:
    found = runner_up(20, 2, 0.001)
    assert "McNemar p = 0.001" in classify._format_runner_up(found)
    assert "group" not in classify._format_runner_up(found)
    found["compared"]["groups"] = 40
    assert "by 40 groups: sign flips, p = 0.001" in classify._format_runner_up(found)
    assert "McNemar" not in classify._format_runner_up(found)
    test = {"accuracy": 0.9, "accuracy_95": [0.8, 0.95], "images": 100, "groups": 12}
    assert "100 images in 12 groups, by groups)" in classify._format_accuracy(test)
    assert classify._format_accuracy({**test, "groups": None}).endswith("100 images)")


def copies(pairs: int, cannot_tell: bool) -> str:
    named = [{"test": f"t{number}", "development": f"d{number}", "similarity": 1.0} for number in range(pairs)]
    return classify._format_near_duplicates(
        {"pairs": named, "test_images": pairs, "accuracy_without": 0.5, "cannot_tell": cannot_tell}
    )


def test_no_near_duplicates_and_no_telling_are_two_things() -> None:
    assert copies(0, cannot_tell=False).endswith("none found")
    for number in (0, 2):
        assert "none found" not in copies(number, cannot_tell=True)
        assert "there is no telling" in copies(number, cannot_tell=True)
    assert "no telling" not in copies(2, cannot_tell=False)
