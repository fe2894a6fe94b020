"""Linear heads of a problem through the joint solver: all folds along a path of C, and one head on all rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from ..training_data import Problem
from .cv_fold import Fold, folds, whole
from .design_matrix import Shared, Turned
from .joint_solver import MAX_ITER, TOLERANCE, Solution, Solver
from .losses import Loss

_TURNED = 3000  # rows up to which rows of more columns are turned: it costs their cube, the products their square
_STRIDE = 30.0  # times as large as the last may C be
_TOGETHER = 1 << 28  # bytes of turned rows held at once


@dataclass
class Answers:
    """Of one C: the logits (s, k) of each fold's rows to score, whether all folds converged, and the seconds it took."""

    logits: list[np.ndarray]
    converged: bool = True
    seconds: float = 0.0


def cross_validate(problem: Problem, loss: Loss, path: Sequence[float]) -> list[Answers]:
    """What the heads of each C of `path`, which ascends, answer for the rows that each fold scores."""
    found = [Answers([]) for _ in path]
    with threadpool_limits(problem.threads, "blas"):
        for together in _batches(problem):
            began = time.perf_counter()
            for answers, solution in zip(found, _solved(problem, together, loss, path), strict=True):
                answers.logits += [
                    logits[:, fold.score_rows].T for logits, fold in zip(solution.logits, together, strict=True)
                ]
                answers.converged &= bool(solution.converged.all())
                now = time.perf_counter()
                answers.seconds, began = answers.seconds + now - began, now
    return found


def fit(problem: Problem, loss: Loss, penalty: float) -> tuple[Fold, np.ndarray, np.ndarray]:
    """The head on all rows, to more digits: the fold that takes its weights (width, k) and bias (k,) back to raw rows."""
    with threadpool_limits(problem.threads, "blas"):
        fold = whole(problem, _turns(problem))
        *_, solution = _solved(problem, [fold], loss, [penalty / 100, penalty / 10, penalty], TOLERANCE / 300)
    return fold, solution.weights[0, :, : fold.width].T, solution.bias[0]


def _solved(
    problem: Problem,
    together: Sequence[Fold],
    loss: Loss,
    path: Sequence[float],
    tolerance: float = TOLERANCE,
) -> Iterator[Solution]:
    rows = len(problem.labels)
    fitted = np.zeros((len(together), rows), bool)
    for mask, fold in zip(fitted, together, strict=True):
        mask[fold.fit_rows] = True
    threads, turned = problem.threads, together[0].turn is not None
    design = Turned(rows, together, threads) if turned else Shared(problem.features, together, threads)
    solver = Solver(
        design, loss, problem.labels, problem.classes, fitted,
        threads=threads, tolerance=tolerance, max_iter=MAX_ITER,
    )  # fmt: skip
    steps = _bridged(path)
    with threadpool_limits(1, "blas"):  # the solver's threads are its own: BLAS's wait spinning, and double its time
        for penalty, solution in zip(steps, solver.path(steps), strict=True):
            if penalty in path:
                yield solution


def _bridged(path: Sequence[float]) -> list[float]:
    """The path with steps between values of C that are far apart, and from 1 to the first: each is near the last."""
    steps: list[float] = []
    before = min(1.0, path[0])
    for penalty in path:
        count = max(1, math.ceil(math.log(penalty / before) / math.log(_STRIDE)))
        steps += [before * (penalty / before) ** (number / count) for number in range(1, count)]
        steps.append(penalty)
        before = penalty
    return steps if path[0] <= 1 else [1.0, *steps]


def _batches(problem: Problem) -> Iterator[list[Fold]]:
    """The folds that are solved at once: all where they share rows, else as many as memory holds."""
    turned = _turns(problem)
    size = max(1, _TOGETHER // (4 * len(problem.labels) ** 2)) if turned else len(problem.folds)
    batch: list[Fold] = []
    for fold in folds(problem, turned):
        batch.append(fold)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _turns(problem: Problem) -> bool:
    count, width = problem.features.shape
    return width > count and (count <= _TURNED or width > 8 * count)
