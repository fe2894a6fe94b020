"""What a sweep ends with: notes on what makes its figures less sure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from humeris.classify.conclusion import _notes
from humeris.classify.trial import Score, Source, Trial

SPLITS: Any = SimpleNamespace(classes=("a", "b"), labels=np.arange(300) % 2, groups=None, test=np.arange(150, 300))


@pytest.mark.parametrize(("detail", "count"), [({"converged": False}, 1), ({"converged": True}, 0), ({}, 0)])
def test_a_winner_whose_solver_was_stopped_short_has_a_note(detail: dict[str, bool], count: int) -> None:
    winner = Trial((Source("nano", "nano-1", "block5_out", "avg"),), "svm", {"C": 1e9})
    notes = _notes(SPLITS, winner, Score(0.9, 0.3, (0.9,), detail=detail))
    assert len(notes) == count
    assert all("svm" in note and "converged" in note for note in notes)
