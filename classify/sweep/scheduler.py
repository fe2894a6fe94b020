"""Scheduling of a sweep's tasks: each matrix is loaded once, in as many processes as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cache.errors import HeadError
from ...extract import memory
from ...extract.backbones.tap_ref import TapRef
from ...extract.engine.multi_device import end_with_parent
from ..evaluate.trial import Score, Trial
from ..heads.head_family import HeadFamily
from ..heads.head_grid import HeadGrid
from ..heads.training_data import TrainingData

_MEMORY_FACTOR = 2.5  # peak memory of a process, as a multiple of its matrix: the rows, and copies made by a solver
_FREE_MEMORY_FRACTION = 0.6  # of the free memory, for all processes


@dataclass(frozen=True)
class Task:
    """The trials of several head grids on one matrix: the features of `tap_refs` side by side."""

    tap_refs: tuple[TapRef, ...]
    head_grids: tuple[HeadGrid, ...]

    @property
    def n_trials(self) -> int:
        """Number of trials, as `get_next_trials` yields them one after another."""
        unique_trials: set[Trial] = set()
        n_halving_trials = 0
        for head_grid in self.head_grids:
            if head_grid.halving_rounds:
                n_halving_trials += sum(count for count, _ in head_grid.halving_rounds)
            else:
                unique_trials.update(self._build_trials(head_grid, head_grid.hyperparameter_sets))
        return n_halving_trials + len(unique_trials)

    def get_next_trials(self, scores: Mapping[Trial, Score]) -> tuple[HeadFamily, list[Trial]] | None:
        """Return the first family with trials that have no score, and those that can run now; None if all have one.

        In a search by halving, later trials depend on earlier scores: those with the lowest log-loss advance.
        """
        for head_grid in self.head_grids:
            hyperparameter_sets = list(head_grid.hyperparameter_sets)
            for count, epochs in head_grid.halving_rounds or ((len(hyperparameter_sets), None),):
                overrides = {} if epochs is None else {"epochs": epochs}
                trials = self._build_trials(
                    head_grid, [{**hyperparameters, **overrides} for hyperparameters in hyperparameter_sets[:count]]
                )
                if remaining := [trial for trial in dict.fromkeys(trials) if trial not in scores]:
                    return head_grid.family, remaining
                best = sorted(range(len(trials)), key=lambda index: scores[trials[index]].log_loss)
                hyperparameter_sets = [hyperparameter_sets[index] for index in best]
        return None

    def _build_trials(self, head_grid: HeadGrid, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> list[Trial]:
        return [Trial(self.tap_refs, head_grid.family.name, hyperparameters) for hyperparameters in hyperparameter_sets]


DataFactory = Callable[[Task, int], TrainingData]  # builds the data of a task for a number of threads


def check_hyperparameters(tasks: Sequence[Task], make_data: DataFactory) -> None:
    """Raise `HeadError` if some hyperparameters cannot be trained on a task's rows."""
    for task in tasks:
        training_data = make_data(task, 1)
        for head_grid in task.head_grids:
            if not head_grid.family.can_predict(training_data.target):
                raise HeadError(
                    f"head {head_grid.family.name} cannot be trained on labels of the kind {training_data.target.name}; "
                    "give another --head"
                )
            head_grid.family.check(training_data, head_grid.hyperparameter_sets)


def run_task(
    task: Task, training_data: TrainingData, seed: int, scores: Mapping[Trial, Score]
) -> Iterator[dict[Trial, Score]]:
    """Yield the scores of the trials that are not in `scores`, family by family, as they become available."""
    scores = dict(scores)
    while (step := task.get_next_trials(scores)) is not None:
        for family, trials in _iter_trial_groups(training_data, *step):
            new_scores = _cross_validate(training_data, family, trials, seed)
            scores.update(new_scores)
            yield new_scores
    training_data.cache.clear()  # its entries refer to training_data: without this, two matrices would be in memory


def _iter_trial_groups(
    training_data: TrainingData, family: HeadFamily, trials: list[Trial]
) -> Iterator[tuple[HeadFamily, list[Trial]]]:
    """Yield the trials in the groups that the family trains together."""
    for indices in family.group(training_data, [trial.hyperparameters for trial in trials]):
        yield family, [trials[index] for index in indices]


def _cross_validate(
    training_data: TrainingData, family: HeadFamily, trials: Sequence[Trial], seed: int
) -> dict[Trial, Score]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(training_data.threads):
        scores = family.cross_validate(training_data, [trial.hyperparameters for trial in trials], seed)
    return dict(zip(trials, scores, strict=True))


_worker_data: dict[int, TrainingData] = {}  # in a worker process: data of its current task, by task number


def _run_step(
    task_id: int, training_data: TrainingData, family: HeadFamily, trials: Sequence[Trial], seed: int
) -> dict[Trial, Score]:
    """Score one step of a task in a worker process, which keeps the matrix for the next step."""
    if task_id not in _worker_data:
        for stale_data in _worker_data.values():
            stale_data.cache.clear()
        _worker_data.clear()
        _worker_data[task_id] = training_data
    return _cross_validate(_worker_data[task_id], family, trials, seed)


def run_tasks(
    tasks: Sequence[Task], make_data: DataFactory, seed: int, scores: Mapping[Trial, Score], jobs: int
) -> Iterator[dict[Trial, Score]]:
    """Yield the scores of all trials that are not in `scores`, as they become available.

    Matrices of which `jobs` fit into memory are processed in worker processes. The others, and families that train with
    Keras, run one after another in this process, using all threads.
    """
    sized_tasks = [(task, make_data(task, 1).features.nbytes) for task in tasks if task.get_next_trials(scores) is not None]
    parallel_tasks, local_tasks = _partition_by_memory(
        [sized_task for sized_task in sized_tasks if not _uses_keras(sized_task[0])], jobs
    )
    local_tasks += [task for task, _ in sized_tasks if _uses_keras(task)]
    if parallel_tasks:
        yield from _run_in_processes(parallel_tasks, make_data, seed, scores, jobs)
    for task in local_tasks:
        yield from run_task(task, make_data(task, jobs), seed, _select_scores(task, scores))


def _run_in_processes(
    tasks: Sequence[Task], make_data: DataFactory, seed: int, scores: Mapping[Trial, Score], jobs: int
) -> Iterator[dict[Trial, Score]]:
    """Yield the scores of tasks run in pools of one process each: a task stays in one process, which holds its matrix."""
    from concurrent.futures import FIRST_COMPLETED, Future, wait

    from joblib.externals.loky import ProcessPoolExecutor

    threads = max(1, jobs // len(tasks))
    scores = dict(scores)
    task_queue = list(enumerate(tasks))[::-1]
    pools = [ProcessPoolExecutor(1, timeout=None, initializer=end_with_parent) for _ in range(min(jobs, len(tasks)))]
    running: dict[Future[dict[Trial, Score]], tuple[Any, int, TrainingData, Task]] = {}

    def submit_next_step(pool: Any, task_id: int, training_data: TrainingData, task: Task) -> bool:
        """Submit the next step of a task; return whether there was one."""
        if (step := task.get_next_trials(scores)) is None:
            return False
        running[pool.submit(_run_step, task_id, training_data, *step, seed)] = pool, task_id, training_data, task
        return True

    def start_next_task(pool: Any) -> None:
        if task_queue:
            task_id, task = task_queue.pop()
            submit_next_step(pool, task_id, make_data(task, threads), task)

    try:
        for pool in pools:
            start_next_task(pool)
        while running:
            finished = wait(running, return_when=FIRST_COMPLETED).done
            for future in sorted(
                finished, key=lambda each: each.exception() is not None
            ):  # results are kept before an error is raised
                pool, task_id, training_data, task = running.pop(future)
                new_scores = future.result()
                scores.update(new_scores)
                if not submit_next_step(
                    pool, task_id, training_data, task
                ):  # the worker is busy again before the caller writes
                    start_next_task(pool)
                yield new_scores
    finally:
        for pool in pools:
            pool.shutdown(kill_workers=True)


def _partition_by_memory(sized_tasks: Sequence[tuple[Task, int]], jobs: int) -> tuple[list[Task], list[Task]]:
    """Return the tasks for worker processes, largest first, for an even load at the end, and those for this process."""
    memory_limit = _FREE_MEMORY_FRACTION * memory.get_available_bytes() / _MEMORY_FACTOR
    sized_tasks = sorted(sized_tasks, key=lambda sized_task: -sized_task[1])
    for first in range(len(sized_tasks)):
        parallel_tasks = sized_tasks[first:]
        n_workers = min(jobs, len(parallel_tasks))
        if n_workers > 1 and sum(size for _, size in parallel_tasks[:n_workers]) <= memory_limit:
            return [task for task, _ in parallel_tasks], [task for task, _ in sized_tasks[:first]]
    return [], [task for task, _ in sized_tasks]


def _uses_keras(task: Task) -> bool:
    return any(head_grid.family.uses_keras for head_grid in task.head_grids)


def _select_scores(task: Task, scores: Mapping[Trial, Score]) -> dict[Trial, Score]:
    return {trial: score for trial, score in scores.items() if trial.tap_refs == task.tap_refs}
