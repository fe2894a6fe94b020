"""Trials: values with a stable name, and the order they are ranked in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from humeris.classify.evaluate.trial import Score, Trial, TrialScores, rank_trials
from humeris.extract.backbones.tap_ref import TapRef

SOURCE = TapRef("nano", "nano-64-0123456789abcdef", "block3_out", "avg")
TRIAL = Trial((SOURCE,), "logreg", {"C": 0.1})


def test_a_trial_survives_json() -> None:
    again = Trial.from_dict(json.loads(json.dumps(TRIAL.to_dict())))
    assert again == TRIAL
    assert hash(again) == hash(TRIAL)
    assert again.id == TRIAL.id


def test_an_id_is_the_same_in_every_process() -> None:
    assert TRIAL.id == "1b29e58f"


def test_what_a_backbone_is_called_beside_others_changes_neither_trial_nor_id() -> None:
    called = Trial((TapRef("nano,image_size=64x64", SOURCE.extraction, SOURCE.layer, SOURCE.pool),), "logreg", {"C": 0.1})
    assert called.id == TRIAL.id
    assert {TRIAL: 1}[called] == 1


def test_the_order_in_which_a_setting_is_written_does_not_matter() -> None:
    one, other = Trial((SOURCE,), "mlp", {"hidden": 8, "epochs": 2}), Trial((SOURCE,), "mlp", {"epochs": 2, "hidden": 8})
    assert one.id == other.id
    assert {one: 1}[other] == 1


def test_everything_that_decides_a_trial_is_in_its_id() -> None:
    elsewhere = [
        TapRef("nano", "nano-64-0123456789abcdef", "block2_out", "avg"),
        TapRef("nano", "nano-64-0123456789abcdef", "block3_out", "max"),
        TapRef("nano", "nano-64-fedcba9876543210", "block3_out", "avg"),
    ]
    trials = [
        TRIAL,
        Trial((SOURCE,), "logreg", {"C": 1.0}),
        Trial((SOURCE,), "mlp", {"C": 0.1}),
        Trial((SOURCE, SOURCE), "logreg", {"C": 0.1}),
        *(Trial((source,), "logreg", {"C": 0.1}) for source in elsewhere),
    ]
    assert len({trial.id for trial in trials}) == len(trials)


def test_a_score_survives_json() -> None:
    score = Score(0.875, 0.3, (0.75, 1.0), 1.5, "a0", {"epochs": 3, "curves": {"loss": [1.0, 0.5]}})
    assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracy": "high"}, "score.accuracy: expected a number, found 'high'"),
        ({"folds": [0.5, None]}, r"score.folds\[1\]: expected a number, found None"),
        ({"correct": 7}, "score.correct: expected text, found 7"),
        ({"seconds": 10**400}, "score.seconds: expected a number, found 1000"),
        ({"right": ""}, "score: expected the keys accuracy, .*, found also 'right'"),
    ],
)
def test_a_score_of_other_values_is_refused_in_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Score.from_dict(Score(0.5, 0.3, (0.5,)).to_dict() | change)
    assert "\n" not in str(caught.value)


def test_a_score_without_a_value_is_refused() -> None:
    value = Score(0.5, 0.3, (0.5,)).to_dict()
    del value["log_loss"]
    with pytest.raises(ValueError, match=r"score.log_loss: expected a number, found nothing"):
        Score.from_dict(value)


def test_settings_of_a_head_are_ranked_by_log_loss_and_heads_by_the_accuracy_of_their_best_setting() -> None:
    strong, right, weak = (Trial((SOURCE,), "logreg", {"C": value}) for value in (0.001, 0.1, 10.0))
    other = Trial((SOURCE,), "mlp", {"hidden": 8})
    third = Trial((TapRef("nano", "nano-64-0123456789abcdef", "block1_out", "avg"),), "logreg", {"C": 0.1})
    scores = {
        strong: Score(0.95, 0.6, (0.95,)),
        right: Score(0.94, 0.2, (0.94,)),
        weak: Score(0.93, 0.4, (0.93,)),
        other: Score(0.90, 0.1, (0.90,)),
        third: Score(0.94, 0.3, (0.94,)),
    }
    assert rank_trials(scores) == [right, weak, strong, third, other]
    assert rank_trials(dict(reversed(scores.items()))) == rank_trials(scores) == list(TrialScores(scores).ranked)


def test_equal_scores_are_ranked_by_id() -> None:
    trials = [Trial((SOURCE,), "logreg", {"C": value}) for value in (0.1, 1.0, 10.0)]
    scores = dict.fromkeys(trials, Score(0.9, 0.4, (0.9,)))
    assert rank_trials(scores) == sorted(trials, key=lambda trial: trial.id)


def test_a_trial_reads_as_head_setting_and_source() -> None:
    assert str(TRIAL) == "logreg(C=0.1) on nano/block3_out:avg"
