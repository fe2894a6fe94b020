"""The work of a sweep: the families on one matrix, which is loaded once, in as many processes as there is memory for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...extract import memory
from ...extract.engine.multi_device import end_with_parent
from ..evaluate.trial import Score, Source, Trial
from ..heads.registry import Family
from ..heads.training_data import Problem

_ROOM = 2.5  # how often a process may hold its matrix: the rows, and what a solver makes of them
_SHARE = 0.6  # of the memory that is free


@dataclass(frozen=True)
class Task:
    """The trials of families on one matrix, the sources side by side."""

    sources: tuple[Source, ...]
    families: tuple[Family, ...]

    @property
    def count(self) -> int:
        """How many trials there are, as many as `next` gives one after another."""
        alike: set[Trial] = set()
        shared = 0
        for family in self.families:
            if family.rungs:
                shared += sum(count for count, _ in family.rungs)
            else:
                alike.update(self._trials(family, family.settings))
        return shared + len(alike)

    def next(self, known: Mapping[Trial, Score]) -> tuple[Family, list[Trial]] | None:
        """The first family with trials that are not `known`, and those of them that can be tried now; None at the end.

        In a search by halving, later trials depend on how earlier ones did: the settings with the lowest log-loss go on.
        """
        for family in self.families:
            settings = list(family.settings)
            for count, epochs in family.rungs or ((len(settings), None),):
                changed = {} if epochs is None else {"epochs": epochs}
                trials = self._trials(family, [{**setting, **changed} for setting in settings[:count]])
                if left := [trial for trial in dict.fromkeys(trials) if trial not in known]:
                    return family, left
                best = sorted(range(len(trials)), key=lambda number: known[trials[number]].log_loss)
                settings = [settings[number] for number in best]
        return None

    def _trials(self, family: Family, settings: Sequence[Mapping[str, Any]]) -> list[Trial]:
        return [Trial(self.sources, family.name, setting) for setting in settings]


Make = Callable[[Task, int], Problem]  # the problem of a task, for so many threads


def check(tasks: Sequence[Task], make: Make) -> None:
    """Raise `HeadError` where a family says of its settings that they cannot be tried on a task's rows."""
    for task in tasks:
        wary = [family for family in task.families if hasattr(family.module, "check")]
        problem = make(task, 1) if wary else None
        for family in wary:
            family.module.check(problem, family.settings)


def solve(task: Task, problem: Problem, seed: int, known: Mapping[Trial, Score]) -> Iterator[dict[Trial, Score]]:
    """The scores of the trials that are not `known`, family after family, as soon as they are there."""
    known = dict(known)
    while (step := task.next(known)) is not None:
        for family, trials in _parts(problem, *step):
            found = _scores(problem, family, trials, seed)
            known.update(found)
            yield found
    problem.memo.clear()  # what is in it refers to the problem, whose matrix the next one's would else meet in memory


def _parts(problem: Problem, family: Family, trials: list[Trial]) -> Iterator[tuple[Family, list[Trial]]]:
    """The trials in parts that end one after another: `groups` of the family's module, or all at once."""
    groups = getattr(family.module, "groups", None)
    places = groups(problem, [trial.setting for trial in trials]) if groups else [range(len(trials))]
    for part in places:
        yield family, [trials[place] for place in part]


def _scores(problem: Problem, family: Family, trials: Sequence[Trial], seed: int) -> dict[Trial, Score]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(problem.threads):
        scores = family.module.cross_validate(problem, [trial.setting for trial in trials], seed)
    return dict(zip(trials, scores, strict=True))


_held: dict[int, Problem] = {}  # in a worker process: the problem it is at, by the number of the task


def _step(number: int, problem: Problem, family: Family, trials: Sequence[Trial], seed: int) -> dict[Trial, Score]:
    """The scores of one step of a task, in a worker process, which keeps the matrix for the next step."""
    if number not in _held:
        for other in _held.values():
            other.memo.clear()
        _held.clear()
        _held[number] = problem
    return _scores(_held[number], family, trials, seed)


def work(
    tasks: Sequence[Task], make: Make, seed: int, known: Mapping[Trial, Score], jobs: int
) -> Iterator[dict[Trial, Score]]:
    """Scores as they come, of every trial that is not `known`.

    Matrices of which `jobs` fit into memory are worked on in processes; the others, and what trains with Keras, come one
    after another in this process, which then uses every thread.
    """
    left = [(task, make(task, 1).features.nbytes) for task in tasks if task.next(known) is not None]
    apart, here = _divided([each for each in left if not _uses_keras(each[0])], jobs)
    here += [task for task, _ in left if _uses_keras(task)]
    if apart:
        yield from _work_apart(apart, make, seed, known, jobs)
    for task in here:
        yield from solve(task, make(task, jobs), seed, _of(task, known))


def _work_apart(
    tasks: Sequence[Task], make: Make, seed: int, known: Mapping[Trial, Score], jobs: int
) -> Iterator[dict[Trial, Score]]:
    """The scores of tasks, each a family at a time, in pools of one process: a task keeps to one, where its matrix is."""
    from concurrent.futures import FIRST_COMPLETED, Future, wait

    from joblib.externals.loky import ProcessPoolExecutor

    threads = max(1, jobs // len(tasks))
    known = dict(known)
    waiting = list(enumerate(tasks))[::-1]
    pools = [ProcessPoolExecutor(1, timeout=None, initializer=end_with_parent) for _ in range(min(jobs, len(tasks)))]
    running: dict[Future[dict[Trial, Score]], tuple[Any, int, Problem, Task]] = {}

    def go_on(pool: Any, number: int, problem: Problem, task: Task) -> bool:
        """Whether there is a next step of the task, which is then running."""
        if (step := task.next(known)) is None:
            return False
        running[pool.submit(_step, number, problem, *step, seed)] = pool, number, problem, task
        return True

    def begin(pool: Any) -> None:
        if waiting:
            number, task = waiting.pop()
            go_on(pool, number, make(task, threads), task)

    try:
        for pool in pools:
            begin(pool)
        while running:
            done = wait(running, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=lambda each: each.exception() is not None):  # what was found is kept first
                pool, number, problem, task = running.pop(future)
                found = future.result()
                known.update(found)
                if not go_on(pool, number, problem, task):  # the next work is given before the caller writes
                    begin(pool)
                yield found
    finally:
        for pool in pools:
            pool.shutdown(kill_workers=True)


def _divided(sized: Sequence[tuple[Task, int]], jobs: int) -> tuple[list[Task], list[Task]]:
    """The tasks for several processes, the largest first, so that none is left over at the end, and those for this one."""
    room = _SHARE * memory.available() / _ROOM
    sized = sorted(sized, key=lambda each: -each[1])
    for first in range(len(sized)):
        rest = sized[first:]
        workers = min(jobs, len(rest))
        if workers > 1 and sum(size for _, size in rest[:workers]) <= room:
            return [task for task, _ in rest], [task for task, _ in sized[:first]]
    return [], [task for task, _ in sized]


def _uses_keras(task: Task) -> bool:
    return any(family.uses_keras for family in task.families)


def _of(task: Task, known: Mapping[Trial, Score]) -> dict[Trial, Score]:
    return {trial: score for trial, score in known.items() if trial.sources == task.sources}
