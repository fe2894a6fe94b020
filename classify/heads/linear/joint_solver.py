"""Solver of linear heads with an L2 penalty: all folds at once along a path of C, with shared products.

The objective is scikit-learn's, `|w|^2 / 2 + C sum(loss)`, with an intercept that is not penalized. Each step takes one
product of the rows with the search directions of all folds and classes, and one of all residuals with the rows:

* Directions are those of L-BFGS with a second-order model instead of the identity: the eigenvectors of the rows'
covariance
  times those of the mean curvature over classes, `(C n a_k l_j + 1)^-1` along each pair (l_j the variance of direction j,
  a_k the curvature of class combination k). The curvature pairs of one C are reused for the next.
* Logits are kept and are linear along a direction, so a line search needs no product, and steps are nearly exact.
* Each C starts from the line through the last two solutions, in log C: for separable classes, weights grow along it.
* Folds that have converged are dropped from the products.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .fold_objective import Design, FoldObjective, FoldStates
from .losses import Loss
from .quasi_newton import CurvaturePair, QuadraticModel, dot, rescale_gradient_change, scale_vectors

TOLERANCE = 3e-6  # a fold has converged if the model predicts a smaller relative gain of the objective for the next step
MAX_ITER = 500
_PAIR_BYTES = 1 << 25  # memory for steps and gradient changes: up to 40 pairs, at least 8
_MAX_TRIAL_STEPS = 8  # trial steps of a line search
_ABSENT_LOGIT = -1e30  # the logit of a class that a fold has no row of


@dataclass(frozen=True)
class Solution:
    """The heads of every fold for one C.

    Parameters
    ----------
    weights : ndarray of shape (folds, k, r)
        For rows as standardized by the folds.
    bias : ndarray of shape (folds, k)
        Intercepts.
    logits : ndarray of shape (folds, k, n)
        Logits of all rows.
    objective : ndarray of shape (folds,)
        Objective at the solution.
    converged : ndarray of shape (folds,), bool
        Whether the tolerance was reached.
    evaluations
        Number of gradient evaluations, summed over folds.
    """

    weights: np.ndarray
    bias: np.ndarray
    logits: np.ndarray
    objective: np.ndarray
    converged: np.ndarray
    evaluations: int


class Solver:
    """Solver for the heads of all folds along a path of C.

    Parameters
    ----------
    design
        The rows.
    loss
        Loss of one row.
    labels : ndarray of shape (n,)
        Class numbers.
    n_classes
        Number of classes.
    fit_masks : ndarray of shape (folds, n), bool
        The rows that each fold fits on.
    threads
        Number of threads.
    tolerance, max_iter
        Stopping criteria.
    """

    def __init__(
        self,
        design: Design,
        loss: Loss,
        labels: np.ndarray,
        n_classes: int,
        fit_masks: np.ndarray,
        *,
        threads: int = 1,
        tolerance: float = TOLERANCE,
        max_iter: int = MAX_ITER,
    ) -> None:
        self._objective = FoldObjective(design, loss, labels, n_classes, fit_masks, threads)
        self._threads, self._tolerance, self._max_iter = threads, tolerance, max_iter
        self._n_fit_rows = fit_masks.sum(axis=1).astype(np.float32)
        n_outputs = self._objective.n_outputs
        self._max_pairs = min(40, max(8, _PAIR_BYTES // (8 * len(fit_masks) * n_outputs * (design.width + 1))))
        self._basis = design.compute_basis()
        self._floor = np.zeros((len(fit_masks), n_outputs, 1), np.float32)
        if n_outputs == n_classes:
            for fold_index, rows in enumerate(fit_masks):
                absent = np.bincount(labels[rows], minlength=n_classes) == 0
                self._floor[fold_index, absent] = _ABSENT_LOGIT

    def solve_path(self, penalties: Sequence[float]) -> Iterator[Solution]:
        """Yield the solutions for `penalties`, values of C in ascending order."""
        design, n_outputs, folds = self._objective.design, self._objective.n_outputs, np.arange(len(self._n_fit_rows))
        point = np.zeros((len(folds), n_outputs, design.width + 1), np.float32)
        logits = np.zeros((len(folds), n_outputs, design.count), np.float32) + self._floor
        previous: list[tuple[float, np.ndarray, np.ndarray]] = []
        pairs: list[CurvaturePair] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for penalty in penalties:
                states = self._objective.build_states(pool, folds, point, logits)
                if len(previous) == 2:
                    (first_penalty, *earlier_values), (second_penalty, *_) = previous
                    extrapolation = np.float32(np.log(penalty / second_penalty) / np.log(second_penalty / first_penalty))
                    starts = (
                        newer + extrapolation * (newer - older)
                        for newer, older in zip((point, logits), earlier_values, strict=True)
                    )
                    extrapolated = self._objective.build_states(pool, folds, *starts)
                    is_better = self._objective.compute(extrapolated, penalty) < self._objective.compute(states, penalty)
                    for name in ("point", "logits", "residual", "losses"):
                        getattr(states, name)[is_better] = getattr(extrapolated, name)[is_better]
                states.pairs = [
                    (step, rescale_gradient_change(gradient_change, step, penalty / previous[-1][0]))
                    for step, gradient_change in pairs
                ]
                pairs = []  # frees as much memory again
                solution, point, pairs = self._solve(pool, states, penalty)
                logits = solution.logits
                previous = [*previous[-1:], (penalty, point, logits)]
                yield solution

    def _solve(
        self, pool: ThreadPoolExecutor, states: FoldStates, penalty: float
    ) -> tuple[Solution, np.ndarray, list[CurvaturePair]]:
        count = len(states.which)
        pairs = [(np.zeros_like(states.point), np.zeros_like(states.point)) for _ in range(self._max_pairs)]
        points, logits = np.empty_like(states.point), np.empty_like(states.logits)
        objective, converged, evaluations = np.empty(count), np.zeros(count, bool), 0
        curvatures = [
            self._objective.loss.compute_curvature(logits, self._objective.labels, fit_mask)
            for logits, fit_mask in zip(states.logits, self._objective.fit_masks, strict=True)
        ]
        model = QuadraticModel.from_curvatures(self._basis, curvatures, penalty * self._n_fit_rows)

        def retire(mask: np.ndarray, has_converged: np.ndarray) -> None:
            fold_ids = states.which[mask]
            points[fold_ids], logits[fold_ids] = states.point[mask], states.logits[mask]
            objective[fold_ids], converged[fold_ids] = self._objective.compute(states, penalty)[mask], has_converged[mask]
            for (step, gradient_change), (last_step, last_gradient_change) in zip(
                reversed(pairs), reversed(states.pairs), strict=False
            ):
                step[fold_ids], gradient_change[fold_ids] = last_step[mask], last_gradient_change[mask]
            states.keep(~mask)

        states.gradient = self._objective.compute_gradient(states, penalty)
        for _ in range(self._max_iter):
            evaluations += len(states.which)
            direction = self._compute_direction(pool, model, states)
            slope = dot(states.gradient, direction)
            value = self._objective.compute(states, penalty)
            is_converged = -slope <= 2 * self._tolerance * value
            if is_converged.any():
                direction = direction[~is_converged]
                retire(is_converged, is_converged)
                if not len(states.which):
                    break
            has_moved = self._search_line(pool, states, direction, penalty)
            if not has_moved.all():  # no lower value can be reached in this direction in float32
                is_near = -slope[~is_converged] <= 200 * self._tolerance * value[~is_converged]
                retire(~has_moved, is_near)
                if not len(states.which):
                    break
        else:
            retire(np.ones(len(states.which), bool), np.zeros(len(states.which), bool))
        return Solution(points[..., :-1], points[..., -1], logits, objective, converged, evaluations), points, pairs

    def _compute_direction(self, pool: ThreadPoolExecutor, model: QuadraticModel, states: FoldStates) -> np.ndarray:
        """Return the search direction (folds, k, r + 1) of every fold; folds are divided over threads."""
        bounds = np.linspace(0, len(states.which), min(self._threads, len(states.which)) + 1).astype(int)

        def compute_slice(fold_slice: slice) -> np.ndarray:
            pairs = [(step[fold_slice], gradient_change[fold_slice]) for step, gradient_change in states.pairs]
            return model.compute_direction(states.gradient[fold_slice], pairs, states.which[fold_slice])

        return np.concatenate(list(pool.map(compute_slice, itertools.starmap(slice, itertools.pairwise(bounds)))))

    def _search_line(
        self, pool: ThreadPoolExecutor, states: FoldStates, direction: np.ndarray, penalty: float
    ) -> np.ndarray:
        """Move every fold along its direction to where the slope is almost 0; return the mask of folds that moved."""
        logit_direction = self._objective.design.forward(direction[..., :-1], states.which) + direction[..., -1:]
        start, slope = self._objective.compute(states, penalty), dot(states.gradient, direction)
        penalty_terms = (dot(states.point[..., :-1], direction[..., :-1]), dot(direction[..., :-1], direction[..., :-1]))
        count = len(states.which)
        step, low, high = np.ones(count), np.zeros(count), np.full(count, np.inf)
        low_slope = slope.copy()
        best, losses = np.zeros(count), states.losses.copy()
        logits, residual = np.empty_like(states.logits), np.empty_like(states.residual)
        squares = dot(states.point[..., :-1], states.point[..., :-1])
        open_folds = np.arange(count)
        for _ in range(_MAX_TRIAL_STEPS):
            trial_losses, trial_slopes = self._objective.evaluate(
                pool, states, logit_direction, step, open_folds, logits, residual
            )
            value = (
                penalty * trial_losses
                + (
                    squares[open_folds]
                    + 2 * step[open_folds] * penalty_terms[0][open_folds]
                    + step[open_folds] ** 2 * penalty_terms[1][open_folds]
                )
                / 2
            )
            trial_slopes = (
                penalty * trial_slopes + penalty_terms[0][open_folds] + step[open_folds] * penalty_terms[1][open_folds]
            )
            is_lower = value <= start[open_folds] + 1e-4 * step[open_folds] * slope[open_folds]
            is_accepted = is_lower & (np.abs(trial_slopes) <= 0.25 * -slope[open_folds])
            best[open_folds[is_accepted]], losses[open_folds[is_accepted]] = (
                step[open_folds[is_accepted]],
                trial_losses[is_accepted],
            )
            open_folds, is_lower, trial_slopes = open_folds[~is_accepted], is_lower[~is_accepted], trial_slopes[~is_accepted]
            if not len(open_folds):
                break
            is_too_long = ~is_lower | (trial_slopes > 0)
            slope_change = trial_slopes - low_slope[open_folds]
            is_usable = np.isfinite(slope_change) & (slope_change != 0)
            backtrack = np.divide(trial_slopes, slope_change, out=np.full_like(slope_change, 0.5), where=is_usable)
            secant = step[open_folds] - backtrack * (step[open_folds] - low[open_folds])
            high[open_folds[is_too_long]] = step[open_folds[is_too_long]]
            low[open_folds[~is_too_long]], low_slope[open_folds[~is_too_long]] = (
                step[open_folds[~is_too_long]],
                trial_slopes[~is_too_long],
            )
            width = np.where(np.isinf(high[open_folds]), 10 * step[open_folds], high[open_folds]) - low[open_folds]
            step[open_folds] = np.clip(secant, low[open_folds] + 0.1 * width, low[open_folds] + 0.9 * width)
        if len(open_folds):  # use the longest step known to be lower, if any
            step[open_folds] = low[open_folds]
            trial_losses, _ = self._objective.evaluate(pool, states, logit_direction, step, open_folds, logits, residual)
            best[open_folds], losses[open_folds] = step[open_folds], trial_losses
        update = scale_vectors(best, direction)
        states.point = states.point + update
        states.logits, states.residual, states.losses = logits, residual, losses
        previous_gradient = states.gradient
        states.gradient = self._objective.compute_gradient(states, penalty)
        gradient_change = states.gradient - previous_gradient
        states.pairs = [*states.pairs, (update, gradient_change)][-self._max_pairs :]
        return np.asarray(best > 0)
