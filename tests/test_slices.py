"""Slices of work are taken in turn, by several extractors, without anyone computing what another one has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from humeris.cache.claims import Claims
from humeris.extract import slices
from humeris.extract.slices import Pause, Slice, Slices

KEYS = np.frombuffer(np.random.default_rng(0).bytes(32 * 100), "S32")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "IMAGES", 30)


def all_of(numbers: np.ndarray) -> np.ndarray:
    return np.ones((len(numbers), 1), bool)


def test_slices_are_whole_batches_and_cover_what_is_pending_once(tmp_path: Path) -> None:
    pending = np.arange(3, 93)
    taken = [each for each in Slices(pending, KEYS, 16, "work", Claims(tmp_path), all_of) if isinstance(each, Slice)]
    assert [len(each.numbers) for each in taken] == [32, 32, 26]
    assert np.array_equal(np.concatenate([each.numbers for each in taken]), pending)


def test_two_extractors_of_the_same_work_take_different_slices(tmp_path: Path) -> None:
    first = iter(Slices(np.arange(90), KEYS, 30, "work", Claims(tmp_path), all_of))
    second = iter(Slices(np.arange(90), KEYS, 30, "work", Claims(tmp_path), all_of))
    other = iter(Slices(np.arange(90), KEYS, 30, "other work", Claims(tmp_path), all_of))
    got = [next(first), next(second), next(first)]
    starts = [int(each.numbers[0]) for each in got if isinstance(each, Slice)]
    assert starts == [0, 30, 60]
    turn = next(second)
    assert isinstance(turn, Pause)
    unrelated = next(other)
    assert isinstance(unrelated, Slice)
    assert unrelated.numbers[0] == 0


def test_what_others_gave_back_is_asked_for_anew(tmp_path: Path) -> None:
    one = Slices(np.arange(30), KEYS, 30, "work", Claims(tmp_path), all_of)
    theirs = next(iter(one))
    assert isinstance(theirs, Slice)
    stored = np.zeros(30, bool)
    other = iter(Slices(np.arange(30), KEYS, 30, "work", Claims(tmp_path), lambda numbers: ~stored[numbers, None]))
    assert isinstance(next(other), Pause)
    stored[:20] = True
    one.release(theirs.claim)
    turn = next(other)
    assert isinstance(turn, Slice)
    assert int(turn.needs.sum()) == 10
    assert list(other) == []


def test_closing_gives_everything_back(tmp_path: Path) -> None:
    work = Slices(np.arange(90), KEYS, 30, "work", Claims(tmp_path), all_of)
    turns = iter(work)
    next(turns), next(turns)
    work.beat()
    assert len(list(tmp_path.iterdir())) == 2
    work.close()
    assert list(tmp_path.iterdir()) == []
