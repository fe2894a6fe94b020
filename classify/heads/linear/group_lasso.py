"""Ranking of feature columns by a group lasso: a linear layer in which whole columns drop out.

The layer W (d, k) minimizes `|Y - X W|² / 2n + penalty * sum over columns j of |W[j]|`, where X are the standardized rows
and Y the centered one-hot classes. The penalty is given as a fraction of the smallest one that drops every column. Evci
et al. ("Head2Toe", 2022) use the same penalty with cross-entropy and stochastic gradients, which leave no weight at
exactly zero; squared error is solved exactly, many times faster, and selects columns that are as good.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.feature_matrix import FeatureMatrix

TOLERANCE = 1e-4  # scikit-learn's `tol`: the duality gap, relative to |Y|² / n
_SLACK = 1e-2  # tolerated excess of an inactive column's gradient over the penalty, as a fraction
_INITIAL_COLUMNS = 256  # active at the start
_BLOCK = 1 << 25  # bytes of float32 in a block of columns
_MAX_ITER = 10_000


@dataclass(frozen=True)
class Ranking:
    """Columns by strength, and the final state of the group lasso.

    Parameters
    ----------
    order : ndarray of shape (d,)
        Column numbers by decreasing norm of their weights, followed by those that dropped out, by decreasing norm of
        their gradient.
    norms : ndarray of shape (d,)
        The norms of the weights, 0 for a column that dropped out.
    penalty
        As in the objective.
    mean, scale : ndarray of shape (d,)
        Scaler of the fit rows, as in scikit-learn's `StandardScaler`.
    converged
        Whether the tolerance was reached.
    """

    order: np.ndarray
    norms: np.ndarray
    penalty: float
    mean: np.ndarray
    scale: np.ndarray
    converged: bool


def rank(
    features: FeatureMatrix,
    labels: np.ndarray,
    n_classes: int,
    fit_rows_per_fold: Sequence[np.ndarray],
    penalty_share: float,
    tolerance: float = TOLERANCE,
) -> list[Ranking]:
    """Rank the columns separately for each fold.

    An active-set method: the problem is solved on the columns that violate the optimality conditions most, and violating
    columns are added until there are none. This takes a few passes over the features in blocks of columns, shared by all
    folds. Memory holds the active columns of every fold: about twice those that remain.

    Parameters
    ----------
    features
        Rows (n, d).
    labels : ndarray of shape (n,)
        Class numbers.
    n_classes
        Number of classes.
    fit_rows_per_fold
        Row numbers that each fold fits on.
    penalty_share
        The penalty, as a fraction of the smallest one that drops every column.
    tolerance
        Tolerance of the duality gap, relative to `|Y|² / n`.
    """
    tasks = [_Task(features.shape[1], labels[rows], n_classes, rows, tolerance) for rows in fit_rows_per_fold]
    _update_gradients(features, tasks, is_first_pass=True)
    for task in tasks:
        task.set_penalty(penalty_share)
    while open_tasks := [task for task in tasks if len(task.find_violations())]:
        _add_violating_columns(features, open_tasks)
        for task in open_tasks:
            task.solve()
        _update_gradients(features, open_tasks)
    return [task.build_ranking() for task in tasks]


def gather(features: FeatureMatrix, columns: np.ndarray) -> np.ndarray:
    """Read some columns of every row, (n, len(columns)), in the given order."""
    if features.fits_in_memory:
        return features.to_array()[:, columns]
    out = np.empty((features.shape[0], len(columns)), np.float32)
    for block, values in features.iter_column_blocks(_compute_block_width(features)):
        matches = np.nonzero((columns >= block.start) & (columns < block.stop))[0]
        out[:, matches] = values[:, columns[matches] - block.start]
    return out


class _Task:
    """The state of the group lasso of one fold."""

    def __init__(self, width: int, labels: np.ndarray, n_classes: int, rows: np.ndarray, tolerance: float) -> None:
        self.rows, self._tolerance = rows, tolerance
        targets = np.eye(n_classes, dtype=np.float32)[labels]
        self._targets = targets - targets.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.residual = self._targets
        self.mean, self.scale = np.zeros(width), np.ones(width)
        self.gradient = np.zeros(width)  # norms of the gradient's rows, (d,)
        self.penalty, self._converged = 0.0, True
        self._active = np.zeros(0, np.intp)
        self._values = np.zeros((len(rows), 0), np.float32)
        self._weights = np.zeros((0, n_classes), np.float32)

    def set_penalty(self, penalty_share: float) -> None:
        """Set the penalty, once the gradient at zero is known."""
        self.penalty = penalty_share * float(self.gradient.max())

    def find_violations(self) -> np.ndarray:
        """Return the inactive columns that violate the optimality conditions, worst first; at most as many as are active."""
        outside = self.gradient.copy()
        outside[self._active] = 0
        worst = np.argsort(-outside, kind="stable")[: max(_INITIAL_COLUMNS, len(self._active))]
        return worst[outside[worst] > self.penalty * (1 + _SLACK)]

    def add_columns(self, columns: np.ndarray, values: np.ndarray) -> None:
        """Activate `columns`, with their raw values (rows, columns)."""
        standardized = (values - self.mean[columns]) / self.scale[columns]
        self._active = np.concatenate([self._active, columns])
        self._values = np.asfortranarray(np.hstack([self._values, standardized.astype(np.float32)]))
        self._weights = np.vstack([self._weights, np.zeros((len(columns), self._weights.shape[1]), np.float32)])

    def solve(self) -> None:
        """Solve on the active columns, starting from the current weights."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import MultiTaskLasso

        lasso = MultiTaskLasso(
            self.penalty, fit_intercept=False, copy_X=False, warm_start=True, tol=self._tolerance, max_iter=_MAX_ITER
        )
        lasso.coef_ = np.array(self._weights.T, order="F")
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always", ConvergenceWarning)
            lasso.fit(self._values, self._targets)
        self._converged = not any(issubclass(item.category, ConvergenceWarning) for item in caught_warnings)
        self._weights = np.ascontiguousarray(lasso.coef_.T)
        self.residual = self._targets - self._values @ self._weights

    def build_ranking(self) -> Ranking:
        norms = np.zeros(len(self.gradient))
        norms[self._active] = np.linalg.norm(self._weights, axis=1)
        order = np.lexsort((-self.gradient, -norms))
        return Ranking(order, norms, self.penalty, self.mean, self.scale, self._converged)


def _update_gradients(features: FeatureMatrix, tasks: Sequence[_Task], is_first_pass: bool = False) -> None:
    """Compute the norm of the gradient for every column; in the first pass mean and scale as well."""
    from sklearn.preprocessing import StandardScaler

    for block, values in features.iter_column_blocks(_compute_block_width(features)):
        for task in tasks:
            task_rows = values[task.rows]
            if is_first_pass:
                scaler = StandardScaler().fit(task_rows)
                task.mean[block], task.scale[block] = scaler.mean_, scaler.scale_
            task_rows = task_rows - task.mean[block].astype(np.float32)
            products = task_rows.T @ task.residual / task.scale[block, None] / len(task_rows)
            task.gradient[block] = np.linalg.norm(products, axis=1)


def _add_violating_columns(features: FeatureMatrix, tasks: Sequence[_Task]) -> None:
    """Activate each task's violating columns, in one pass over their union."""
    violations = [task.find_violations() for task in tasks]
    union = np.unique(np.concatenate(violations))
    values = gather(features, union)
    for task, columns in zip(tasks, violations, strict=True):
        task.add_columns(columns, values[np.ix_(task.rows, np.searchsorted(union, columns))])


def _compute_block_width(features: FeatureMatrix) -> int:
    return max(1, _BLOCK // (4 * max(1, features.shape[0])))
