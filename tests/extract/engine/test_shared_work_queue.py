"""Slices of work are taken in turn, by several extractors, without anyone computing what another one has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from humeris.cache.leases import Claims
from humeris.extract.engine import shared_work_queue
from humeris.extract.engine.shared_work_queue import Pause, Slice, Slices

KEYS = np.frombuffer(np.random.default_rng(0).bytes(32 * 100), "S32")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work_queue, "IMAGES", 30)


def all_of(numbers: np.ndarray) -> np.ndarray:
    return np.ones((len(numbers), 1), bool)


def mask(*ranges: range) -> np.ndarray:
    return np.isin(np.arange(len(KEYS)), np.concatenate([np.array(each) for each in ranges]))


def start(turn: object) -> int:
    assert isinstance(turn, Slice)
    return int(turn.numbers[0])


def test_slices_cover_what_is_pending_once(tmp_path: Path) -> None:
    pending = mask(range(3, 93))
    taken = [each for each in Slices(pending, KEYS, "work", Claims(tmp_path), all_of) if isinstance(each, Slice)]
    assert [len(each.numbers) for each in taken] == [27, 30, 30, 3]
    assert np.array_equal(np.concatenate([each.numbers for each in taken]), np.nonzero(pending)[0])


def test_blocks_with_little_to_do_make_one_slice(tmp_path: Path) -> None:
    pending = mask(range(0, 100, 10))
    taken = list(Slices(pending, KEYS, "work", Claims(tmp_path), all_of))
    assert [len(each.numbers) for each in taken if isinstance(each, Slice)] == [10]


def test_extractors_agree_on_what_is_taken_whenever_they_begin(tmp_path: Path) -> None:
    early = iter(Slices(mask(range(100)), KEYS, "work", Claims(tmp_path), all_of))
    assert start(next(early)) == 0
    late = iter(Slices(mask(range(17, 100)), KEYS, "work", Claims(tmp_path), all_of))
    assert start(next(late)) == 30
    later = iter(Slices(mask(range(12, 20), range(55, 100)), KEYS, "work", Claims(tmp_path), all_of))
    assert start(next(later)) == 60
    assert start(next(later)) == 90
    assert isinstance(next(later), Pause)
    assert start(next(iter(Slices(mask(range(100)), KEYS, "other work", Claims(tmp_path), all_of)))) == 0


def test_several_sharers_get_smaller_slices(tmp_path: Path) -> None:
    taken = list(Slices(mask(range(100)), KEYS, "work", Claims(tmp_path), all_of, sharers=2))
    assert [len(each.numbers) for each in taken if isinstance(each, Slice)] == [12] * 8 + [4]


def test_what_others_gave_back_is_asked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Slices(mask(range(30)), KEYS, "work", Claims(tmp_path), all_of)
    theirs = next(iter(one))
    assert isinstance(theirs, Slice)
    stored = np.zeros(30, bool)
    other = iter(Slices(mask(range(30)), KEYS, "work", Claims(tmp_path), lambda numbers: ~stored[numbers, None]))
    pause = next(other)
    assert isinstance(pause, Pause)
    stored[:20] = True
    one.release(theirs)
    assert next(other) is pause  # asked for before its time is over
    monkeypatch.setattr(shared_work_queue.time, "monotonic", lambda: pause.until + 1)
    turn = next(other)
    assert isinstance(turn, Slice)
    assert int(turn.needs.sum()) == 10
    assert list(other) == []


def test_closing_gives_everything_back(tmp_path: Path) -> None:
    work = Slices(mask(range(90)), KEYS, "work", Claims(tmp_path), all_of)
    turns = iter(work)
    next(turns), next(turns)
    work.beat()
    assert len(list(tmp_path.iterdir())) == 2
    work.close()
    assert list(tmp_path.iterdir()) == []
