"""Several extractors share the work queue, and no image is computed twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from humeris.cache.leases import Leases
from humeris.extract.engine import shared_work_queue
from humeris.extract.engine.shared_work_queue import SharedWorkQueue, Wait, WorkItem

KEYS = np.frombuffer(np.random.default_rng(0).bytes(32 * 100), "S32")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work_queue, "MAX_IMAGES_PER_BLOCK", 30)


def all_of(numbers: np.ndarray) -> np.ndarray:
    return np.ones((len(numbers), 1), bool)


def mask(*ranges: range) -> np.ndarray:
    return np.isin(np.arange(len(KEYS)), np.concatenate([np.array(each) for each in ranges]))


def start(turn: object) -> int:
    assert isinstance(turn, WorkItem)
    return int(turn.indices[0])


def test_slices_cover_what_is_pending_once(tmp_path: Path) -> None:
    pending = mask(range(3, 93))
    taken = [each for each in SharedWorkQueue(pending, KEYS, "work", Leases(tmp_path), all_of) if isinstance(each, WorkItem)]
    assert [len(each.indices) for each in taken] == [27, 30, 30, 3]
    assert np.array_equal(np.concatenate([each.indices for each in taken]), np.nonzero(pending)[0])


def test_blocks_with_little_to_do_make_one_slice(tmp_path: Path) -> None:
    pending = mask(range(0, 100, 10))
    taken = list(SharedWorkQueue(pending, KEYS, "work", Leases(tmp_path), all_of))
    assert [len(each.indices) for each in taken if isinstance(each, WorkItem)] == [10]


def test_extractors_agree_on_what_is_taken_whenever_they_begin(tmp_path: Path) -> None:
    early = iter(SharedWorkQueue(mask(range(100)), KEYS, "work", Leases(tmp_path), all_of))
    assert start(next(early)) == 0
    late = iter(SharedWorkQueue(mask(range(17, 100)), KEYS, "work", Leases(tmp_path), all_of))
    assert start(next(late)) == 30
    later = iter(SharedWorkQueue(mask(range(12, 20), range(55, 100)), KEYS, "work", Leases(tmp_path), all_of))
    assert start(next(later)) == 60
    assert start(next(later)) == 90
    assert isinstance(next(later), Wait)
    assert start(next(iter(SharedWorkQueue(mask(range(100)), KEYS, "other work", Leases(tmp_path), all_of)))) == 0


def test_several_sharers_get_smaller_slices(tmp_path: Path) -> None:
    taken = list(SharedWorkQueue(mask(range(100)), KEYS, "work", Leases(tmp_path), all_of, num_extractors=2))
    assert [len(each.indices) for each in taken if isinstance(each, WorkItem)] == [12] * 8 + [4]


def test_what_others_gave_back_is_asked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = SharedWorkQueue(mask(range(30)), KEYS, "work", Leases(tmp_path), all_of)
    theirs = next(iter(one))
    assert isinstance(theirs, WorkItem)
    stored = np.zeros(30, bool)
    other = iter(SharedWorkQueue(mask(range(30)), KEYS, "work", Leases(tmp_path), lambda numbers: ~stored[numbers, None]))
    pause = next(other)
    assert isinstance(pause, Wait)
    stored[:20] = True
    one.release(theirs)
    assert next(other) is pause  # asked for before its time is over
    monkeypatch.setattr(shared_work_queue.time, "monotonic", lambda: pause.until + 1)
    turn = next(other)
    assert isinstance(turn, WorkItem)
    assert int(turn.missing_mask.sum()) == 10
    assert list(other) == []


def test_closing_gives_everything_back(tmp_path: Path) -> None:
    work = SharedWorkQueue(mask(range(90)), KEYS, "work", Leases(tmp_path), all_of)
    turns = iter(work)
    next(turns), next(turns)
    work.renew_leases()
    assert len(list(tmp_path.iterdir())) == 2
    work.close()
    assert list(tmp_path.iterdir()) == []
