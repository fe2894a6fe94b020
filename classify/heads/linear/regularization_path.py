"""Linear heads along a path of C by the joint solver: cross-validated on all folds, or fitted on all rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from ..training_data import TrainingData
from .cv_fold import Fold, fit_all_rows, iter_folds
from .design_matrix import ProjectedDesign, SharedDesign
from .joint_solver import MAX_ITER, TOLERANCE, Solution, Solver
from .losses import Loss

_MAX_PROJECTED_ROWS = (
    3000  # rows up to which wide features are projected: the cost is cubic in them, that of products quadratic
)
_MAX_C_RATIO = 30.0  # of consecutive values of C
_BATCH_BYTES = 1 << 28  # of projected rows in memory at once


@dataclass
class FoldLogits:
    """Results of all folds for one C.

    Parameters
    ----------
    logits
        Logits (s, k) of each fold's rows to score.
    converged
        Whether all folds converged.
    seconds
        Elapsed time.
    """

    logits: list[np.ndarray]
    converged: bool = True
    seconds: float = 0.0


def cross_validate(data: TrainingData, loss: Loss, path: Sequence[float]) -> list[FoldLogits]:
    """Compute the logits of the held-out rows of each fold.

    Parameters
    ----------
    data
        Rows, labels and folds.
    loss
        Loss of one row.
    path
        Values of C, ascending.

    Returns
    -------
    list of FoldLogits
        One for each C.
    """
    results = [FoldLogits([]) for _ in path]
    with threadpool_limits(data.threads, "blas"):
        for batch_folds in _iter_batches(data):
            start_time = time.perf_counter()
            for result, solution in zip(results, _solve_path(data, batch_folds, loss, path), strict=True):
                result.logits += [
                    logits[:, fold.score_rows].T for logits, fold in zip(solution.logits, batch_folds, strict=True)
                ]
                result.converged &= bool(solution.converged.all())
                now = time.perf_counter()
                result.seconds, start_time = result.seconds + now - start_time, now
    return results


def fit(data: TrainingData, loss: Loss, penalty: float) -> tuple[Fold, np.ndarray, np.ndarray]:
    """Fit on all rows, with a lower tolerance than in cross-validation.

    Returns
    -------
    fold : Fold
        Its ``to_dense_layer`` turns the weights into a layer.
    weights : ndarray of shape (width, k)
    bias : ndarray of shape (k,)
    """
    with threadpool_limits(data.threads, "blas"):
        fold = fit_all_rows(data, _should_project(data))
        *_, solution = _solve_path(data, [fold], loss, [penalty / 100, penalty / 10, penalty], TOLERANCE / 300)
    return fold, solution.weights[0, :, : fold.width].T, solution.bias[0]


def _solve_path(
    data: TrainingData,
    batch_folds: Sequence[Fold],
    loss: Loss,
    path: Sequence[float],
    tolerance: float = TOLERANCE,
) -> Iterator[Solution]:
    rows = len(data.labels)
    fit_masks = np.zeros((len(batch_folds), rows), bool)
    for fit_mask, fold in zip(fit_masks, batch_folds, strict=True):
        fit_mask[fold.fit_rows] = True
    threads, is_projected = data.threads, batch_folds[0].row_space is not None
    design = (
        ProjectedDesign(rows, batch_folds, threads) if is_projected else SharedDesign(data.features, batch_folds, threads)
    )
    solver = Solver(
        design, loss, data.labels, data.n_classes, fit_masks,
        threads=threads, tolerance=tolerance, max_iter=MAX_ITER,
    )  # fmt: skip
    steps = _bridge_gaps(path)
    with threadpool_limits(
        1, "blas"
    ):  # the solver has its own threads; those of BLAS would spin while waiting and double its time
        for penalty, solution in zip(steps, solver.solve_path(steps), strict=True):
            if penalty in path:
                yield solution


def _bridge_gaps(path: Sequence[float]) -> list[float]:
    """Add values of C between those far apart, and from 1 to the first, so that each start is near its solution."""
    steps: list[float] = []
    previous = min(1.0, path[0])
    for penalty in path:
        n_steps = max(1, math.ceil(math.log(penalty / previous) / math.log(_MAX_C_RATIO)))
        steps += [previous * (penalty / previous) ** (step / n_steps) for step in range(1, n_steps)]
        steps.append(penalty)
        previous = penalty
    return steps if path[0] <= 1 else [1.0, *steps]


def _iter_batches(data: TrainingData) -> Iterator[list[Fold]]:
    """Yield the folds that are solved together: all if they share rows, else as many as fit into memory."""
    project = _should_project(data)
    size = max(1, _BATCH_BYTES // (4 * len(data.labels) ** 2)) if project else len(data.folds)
    batch: list[Fold] = []
    for fold in iter_folds(data, project):
        batch.append(fold)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _should_project(data: TrainingData) -> bool:
    count, width = data.features.shape
    return width > count and (count <= _MAX_PROJECTED_ROWS or width > 8 * count)
