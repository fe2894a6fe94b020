"""What a sweep ends with: notes on what makes its figures less sure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.classify.data.splits import Splits
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.sweep.finalize import list_notes as notes_of
from humeris.classify.sweep.finalize import note_constant_probabilities
from humeris.extract.backbones.tap_ref import TapRef

ROWS, NONE = np.arange(300), np.arange(0)


def splits(groups: np.ndarray | None = None, val: np.ndarray = NONE) -> Splits:
    """300 images, the last 150 to be scored on."""
    train, labels = np.setdiff1d(ROWS[:150], val), np.arange(300) % 2
    select = "val" if len(val) else "cv"
    return Splits(SingleLabel(("a", "b")), labels, groups, train, val, ROWS[150:], select, "", Path())


WINNER = Trial((TapRef("nano", "nano-1", "block5_out", "avg"),), "svm", {"C": 1e9})


@pytest.mark.parametrize(("fit_info", "count"), [({"converged": False}, 1), ({"converged": True}, 0), ({}, 0)])
def test_a_winner_whose_solver_was_stopped_short_has_a_note(fit_info: dict[str, bool], count: int) -> None:
    notes = notes_of(splits(), WINNER, Score(0.9, 0.3, (0.9,), fit_info=fit_info))
    assert len(notes) == count
    assert all("svm" in note and "did not converge" in note for note in notes)


@pytest.mark.parametrize("val", [NONE, ROWS[100:150]])
def test_few_groups_have_a_note_wherever_they_are_and_many_have_none(val: np.ndarray) -> None:
    score = Score(0.9, 0.3, (0.9,))
    few, many, alone = ROWS // 10 * 10, ROWS // 2, ROWS
    assert len(notes_of(splits(few, val), WINNER, score)) == 2
    assert notes_of(splits(many, val), WINNER, score) == []
    assert notes_of(splits(alone, val), WINNER, score) == []
    learnt = notes_of(splits(np.where(ROWS < 150, few, alone), val), WINNER, score)
    tested = notes_of(splits(np.where(ROWS < 150, alone, few), val), WINNER, score)
    assert [("selected on" in note, "test images" in note) for note in (*learnt, *tested)] == [(True, False), (False, True)]


def test_groups_are_counted_among_the_images_scored_and_only_where_images_share_one() -> None:
    names = np.array([f"g{row // 10}" for row in ROWS])
    assert splits().get_selection_group_ids() is None
    assert splits(np.array([f"g{row}" for row in ROWS])).get_selection_group_ids() is None
    found = splits(names).get_selection_group_ids()
    assert found is not None
    assert (found[:, None] == found).tolist() == (names[:150, None] == names[:150]).tolist()
    on_val = splits(names, val=ROWS[105:125]).get_selection_group_ids()
    assert on_val is not None
    assert (np.nonzero(on_val >= 0)[0] == ROWS[105:125]).all()
    assert len(set(on_val[105:125].tolist())) == 3
    mixed = np.where(ROWS < 150, ROWS, 0)  # only the test images share a group
    assert splits(mixed).get_selection_group_ids() is None
    tested = splits(mixed).get_group_ids(ROWS[150:])
    assert tested is not None
    assert set(tested.tolist()) == {0}


def test_constant_features_are_called_so(photos: Path, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    import keras

    image = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(4, 3, kernel_initializer="zeros", name="dead")(image)
    keras.Model(image, features).save(tmp_path / "dead.keras")
    result = humeris(
        "sweep", photos, "--extract", "-b", f"{tmp_path}/dead.keras,preprocessing=none", "-l", "dead", "--head",
        "logreg,C=1", "-j", "1",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert (
        "note: the winner gives all test images the same probabilities: its features are constant; use another" in result.out
    )


def test_features_that_differ_are_not() -> None:
    assert note_constant_probabilities(np.array([[0.4, 0.6], [0.5, 0.5]])) == []
    assert note_constant_probabilities(np.array([[0.4, 0.6]])) == []
