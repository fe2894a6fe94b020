"""The work of a sweep comes in parts as it ends, here and in processes, and the parts are what the whole would be."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.heads.head_grid import HeadGrid
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData
from humeris.classify.sweep.scheduler import Task, run_task, run_tasks
from humeris.extract.backbones.tap_ref import TapRef


def made(number: int = 0) -> TrainingData:
    random = np.random.default_rng(number)
    labels = np.arange(30) % 2
    rows = (random.normal(size=(30, 6)) + labels[:, None]).astype(np.float32)
    places = random.permutation(30)
    return TrainingData.from_arrays(rows, labels, [(places[10:], places[:10]), (places[:20], places[20:])])


def task(*heads: HeadGrid | str, tap: int = 0) -> Task:
    head_grids = tuple(HeadGrid.parse(head) if isinstance(head, str) else head for head in heads)
    return Task((TapRef("nano", "nano-64-0", f"block{tap}_out", "avg"),), head_grids)


def plain(scores: dict[Trial, Score]) -> dict[Trial, Score]:
    return {trial: replace(score, seconds=0.0) for trial, score in scores.items()}


@pytest.mark.parametrize(
    "head",
    [
        "mlp,hidden=2/4/8,dropout=0/0.2,epochs=3",
        "triplet,embedding=2/4/8,epochs=2,batch_size=8",
        "supcon,embedding=2/4/8,epochs=2,batch_size=8",
    ],
)
def test_settings_that_are_trained_apart_come_apart_and_are_the_same_wherever_it_was_stopped(head: str) -> None:
    parts = [plain(part) for part in run_task(task(head), made(), 0, {})]
    assert len(parts) == 3
    whole = {trial: score for part in parts for trial, score in part.items()}
    for stopped in range(1, 3):
        known = {trial: score for part in parts[:stopped] for trial, score in part.items()}
        left = [plain(part) for part in run_task(task(head), made(), 0, known)]
        assert left == parts[stopped:]
    assert len(whole) == task(head).n_trials


def test_processes_give_each_family_as_it_ends_and_what_one_process_would() -> None:
    tasks = [task("ridge", "knn", "centroid", tap=tap) for tap in range(4)]

    def make(one: Task, threads: int) -> TrainingData:
        return replace(made(tasks.index(one)), threads=threads)

    here = [plain(part) for one in tasks for part in run_task(one, make(one, 1), 0, {})]
    apart = [plain(part) for part in run_tasks(tasks, make, 0, {}, 2)]
    assert len(apart) == 12
    assert sorted(apart, key=lambda part: here.index(part)) == here
    rest = [plain(part) for part in run_tasks(tasks, make, 0, {t: s for part in apart[:5] for t, s in part.items()}, 2)]
    assert sorted(rest, key=lambda part: here.index(part)) == [part for part in here if part not in apart[:5]]


def test_what_ended_in_a_process_is_given_before_what_comes_after_it_fails() -> None:
    tasks = [task("ridge", HeadGrid(get_head_family("knn"), ({"no": "setting"},)), tap=tap) for tap in range(2)]
    found: dict[Trial, Score] = {}
    with pytest.raises(KeyError):
        deque(map(found.update, run_tasks(tasks, lambda one, _: made(tasks.index(one)), 0, {}, 2)))
    assert {trial.head for trial in found} == {"ridge"}
