"""Linear heads with an L2 penalty, solved together: every fold at once along the path of C, through shared products.

The objective is scikit-learn's, `|w|^2 / 2 + C sum(loss)`, with an intercept that is not penalised. Each step is one product
of the rows with the search directions of all folds and classes, and one of all residuals with the rows:

* Directions are L-BFGS's, about a second-order model in place of the identity: the rows' eigenvectors times those of the
  mean curvature over classes, `(C n a_k l_j + 1)^-1` along each pair (l_j the variance of direction j, a_k the curvature of
  class combination k). What was learnt of the objective at one C serves the next.
* Logits are kept and linear along a direction, so a line search costs no product, and steps are next to exact.
* Each C starts from the line through the last two solutions, in log C: where classes separate, weights grow along it.
* Folds that have converged are dropped from the products.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .design_matrix import Basis
from .losses import Loss
from .quasi_newton import CurvaturePair, QuadraticModel, dot, rescale_gradient_change, scale_vectors

TOLERANCE = 3e-6  # of the objective, that a step would still gain by the model
MAX_ITER = 500
_PAIRS = 1 << 25  # bytes of steps and turns to remember: of up to 40, and of 8 at least
_MAX_TRIAL_STEPS = 8  # trial steps of a line search
_ABSENT_LOGIT = -1e30  # the logit of a class that a fold has no row of
_CHUNK = 1 << 16  # logits worked on at once: they stay in a core's cache


class Design(Protocol):
    """Rows of several folds: `SharedDesign` or `ProjectedDesign`."""

    count: int
    width: int

    def forward(self, weights: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Logits (folds, k, n) of weights (folds, k, r)."""

    def backward(self, residuals: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Products (folds, k, r) of residuals (folds, k, n)."""

    def compute_basis(self) -> Basis:
        """What to precondition with."""


@dataclass(frozen=True)
class Solution:
    """The heads of every fold for one C.

    weights (folds, k, r), bias (folds, k): for rows as the folds standardise them. logits (folds, k, n): of all rows.
    objective (folds,). converged (folds,). evaluations: of the objective's gradient by one fold, all together.
    """

    weights: np.ndarray
    bias: np.ndarray
    logits: np.ndarray
    objective: np.ndarray
    converged: np.ndarray
    evaluations: int


@dataclass
class _State:
    """Where the folds that are still being solved are; `which`: their numbers. Parameters (folds, k, r + 1) end in the bias.

    pairs: the last steps with the turns of the gradient that they made, 0 where a fold had none.
    """

    which: np.ndarray
    point: np.ndarray
    logits: np.ndarray
    residual: np.ndarray
    losses: np.ndarray
    gradient: np.ndarray = field(default_factory=lambda: np.empty(0))
    pairs: list[CurvaturePair] = field(default_factory=list)

    def keep(self, mask: np.ndarray) -> None:
        """Drop the folds that are not in the mask."""
        for name in ("which", "point", "logits", "residual", "losses", "gradient"):
            setattr(self, name, getattr(self, name)[mask])
        self.pairs = [(step[mask], gradient_change[mask]) for step, gradient_change in self.pairs]


class Solver:
    """Solves heads of rows `design` with class numbers `labels` (n,); fold f fits on `fitted[f]` (n,), a mask."""

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
        self._design, self._loss, self._labels, self._threads = design, loss, labels, threads
        self._tolerance, self._max_iter = tolerance, max_iter
        self._fit_masks = fit_masks.astype(np.float32)
        self._n_outputs = loss.count_outputs(n_classes)
        self._n_fit_rows = fit_masks.sum(axis=1).astype(np.float32)
        self._max_pairs = min(40, max(8, _PAIRS // (8 * len(fit_masks) * self._n_outputs * (design.width + 1))))
        self._basis = design.compute_basis()
        self._floor = np.zeros((len(fit_masks), self._n_outputs, 1), np.float32)
        if self._n_outputs == n_classes:
            for fold_index, rows in enumerate(fit_masks):
                absent = np.bincount(labels[rows], minlength=n_classes) == 0
                self._floor[fold_index, absent] = _ABSENT_LOGIT

    def solve_path(self, penalties: Sequence[float]) -> Iterator[Solution]:
        """The solution for each C of `penalties`, which ascend."""
        folds = np.arange(len(self._fit_masks))
        point = np.zeros((len(folds), self._n_outputs, self._design.width + 1), np.float32)
        logits = np.zeros((len(folds), self._n_outputs, self._design.count), np.float32) + self._floor
        previous: list[tuple[float, np.ndarray, np.ndarray]] = []
        pairs: list[CurvaturePair] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for penalty in penalties:
                state = self._build_state(pool, folds, point, logits)
                if len(previous) == 2:
                    (first_penalty, *earlier_values), (second_penalty, *_) = previous
                    extrapolation = np.float32(np.log(penalty / second_penalty) / np.log(second_penalty / first_penalty))
                    starts = (
                        newer + extrapolation * (newer - older)
                        for newer, older in zip((point, logits), earlier_values, strict=True)
                    )
                    extrapolated = self._build_state(pool, folds, *starts)
                    is_better = self._compute_objective(extrapolated, penalty) < self._compute_objective(state, penalty)
                    for name in ("point", "logits", "residual", "losses"):
                        getattr(state, name)[is_better] = getattr(extrapolated, name)[is_better]
                state.pairs = [
                    (step, rescale_gradient_change(gradient_change, step, penalty / previous[-1][0]))
                    for step, gradient_change in pairs
                ]
                pairs = []  # they would be as much memory again
                solution, point, pairs = self._solve(pool, state, penalty)
                logits = solution.logits
                previous = [*previous[-1:], (penalty, point, logits)]
                yield solution

    def _solve(
        self, pool: ThreadPoolExecutor, state: _State, penalty: float
    ) -> tuple[Solution, np.ndarray, list[CurvaturePair]]:
        count = len(state.which)
        pairs = [(np.zeros_like(state.point), np.zeros_like(state.point)) for _ in range(self._max_pairs)]
        points, logits = np.empty_like(state.point), np.empty_like(state.logits)
        objective, converged, evaluations = np.empty(count), np.zeros(count, bool), 0
        curvatures = [
            self._loss.compute_curvature(logits, self._labels, fit_mask)
            for logits, fit_mask in zip(state.logits, self._fit_masks, strict=True)
        ]
        model = QuadraticModel.from_curvatures(self._basis, curvatures, penalty * self._n_fit_rows)

        def retire(mask: np.ndarray, has_converged: np.ndarray) -> None:
            fold_ids = state.which[mask]
            points[fold_ids], logits[fold_ids] = state.point[mask], state.logits[mask]
            objective[fold_ids], converged[fold_ids] = self._compute_objective(state, penalty)[mask], has_converged[mask]
            for (step, gradient_change), (last_step, last_gradient_change) in zip(
                reversed(pairs), reversed(state.pairs), strict=False
            ):
                step[fold_ids], gradient_change[fold_ids] = last_step[mask], last_gradient_change[mask]
            state.keep(~mask)

        state.gradient = self._compute_gradient(state, penalty)
        for _ in range(self._max_iter):
            evaluations += len(state.which)
            direction = self._compute_direction(pool, model, state)
            slope = dot(state.gradient, direction)
            value = self._compute_objective(state, penalty)
            is_converged = -slope <= 2 * self._tolerance * value
            if is_converged.any():
                direction = direction[~is_converged]
                retire(is_converged, is_converged)
                if not len(state.which):
                    break
            has_moved = self._search_line(pool, state, direction, penalty)
            if not has_moved.all():  # float32 has no better point in this direction
                is_near = -slope[~is_converged] <= 200 * self._tolerance * value[~is_converged]
                retire(~has_moved, is_near)
                if not len(state.which):
                    break
        else:
            retire(np.ones(len(state.which), bool), np.zeros(len(state.which), bool))
        return Solution(points[..., :-1], points[..., -1], logits, objective, converged, evaluations), points, pairs

    def _compute_direction(self, pool: ThreadPoolExecutor, model: QuadraticModel, state: _State) -> np.ndarray:
        """Where every fold goes next; each thread has folds of its own."""
        bounds = np.linspace(0, len(state.which), min(self._threads, len(state.which)) + 1).astype(int)

        def compute_slice(fold_slice: slice) -> np.ndarray:
            pairs = [(step[fold_slice], gradient_change[fold_slice]) for step, gradient_change in state.pairs]
            return model.compute_direction(state.gradient[fold_slice], pairs, state.which[fold_slice])

        return np.concatenate(list(pool.map(compute_slice, itertools.starmap(slice, itertools.pairwise(bounds)))))

    def _search_line(self, pool: ThreadPoolExecutor, state: _State, direction: np.ndarray, penalty: float) -> np.ndarray:
        """Move every fold along its direction to where the slope is next to nothing; a mask of those that moved."""
        logit_direction = self._design.forward(direction[..., :-1], state.which) + direction[..., -1:]
        start, slope = self._compute_objective(state, penalty), dot(state.gradient, direction)
        penalty_terms = (dot(state.point[..., :-1], direction[..., :-1]), dot(direction[..., :-1], direction[..., :-1]))
        count = len(state.which)
        step, low, high = np.ones(count), np.zeros(count), np.full(count, np.inf)
        low_slope = slope.copy()
        best, losses = np.zeros(count), state.losses.copy()
        logits, residual = np.empty_like(state.logits), np.empty_like(state.residual)
        squares = dot(state.point[..., :-1], state.point[..., :-1])
        open_folds = np.arange(count)
        for _ in range(_MAX_TRIAL_STEPS):
            trial_losses, trial_slopes = self._evaluate_trial(
                pool, state, logit_direction, step, open_folds, logits, residual
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
        if len(open_folds):  # the best that is known to be lower, if any
            step[open_folds] = low[open_folds]
            trial_losses, _ = self._evaluate_trial(pool, state, logit_direction, step, open_folds, logits, residual)
            best[open_folds], losses[open_folds] = step[open_folds], trial_losses
        update = scale_vectors(best, direction)
        state.point = state.point + update
        state.logits, state.residual, state.losses = logits, residual, losses
        previous_gradient = state.gradient
        state.gradient = self._compute_gradient(state, penalty)
        gradient_change = state.gradient - previous_gradient
        state.pairs = [*state.pairs, (update, gradient_change)][-self._max_pairs :]
        return np.asarray(best > 0)

    def _evaluate_trial(
        self,
        pool: ThreadPoolExecutor,
        state: _State,
        logit_direction: np.ndarray,
        step: np.ndarray,
        open_folds: np.ndarray,
        logits: np.ndarray,
        residual: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Losses and slopes (left,) of the loss at `logits + step across`; fills `logits` and `residual`."""

        def evaluate_chunk(task: tuple[int, int, slice]) -> tuple[int, float, float]:
            number, fold_index, chunk = task
            trial_logits = logits[fold_index, :, chunk]
            np.multiply(logit_direction[fold_index, :, chunk], np.float32(step[fold_index]), out=trial_logits)
            trial_logits += state.logits[fold_index, :, chunk]
            loss, chunk_residual = self._loss.evaluate(
                trial_logits.copy(), self._labels[chunk], self._fit_masks[state.which[fold_index], chunk]
            )
            residual[fold_index, :, chunk] = chunk_residual
            return number, loss, float(np.einsum("kn,kn->", chunk_residual, logit_direction[fold_index, :, chunk]))

        losses, slopes = np.zeros(len(open_folds)), np.zeros(len(open_folds))
        for number, loss, slope in self._map_chunks(pool, evaluate_chunk, open_folds):
            losses[number] += loss
            slopes[number] += slope
        return losses, slopes

    def _map_chunks(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[tuple[int, int, slice]], tuple[int, float, float]],
        open_folds: np.ndarray,
    ) -> Iterator[tuple[int, float, float]]:
        size = max(256, _CHUNK // self._n_outputs)
        tasks = [
            (number, int(fold_index), slice(start, min(start + size, self._design.count)))
            for number, fold_index in enumerate(open_folds)
            for start in range(0, self._design.count, size)
        ]
        use_pool = self._threads > 1 and len(open_folds) * self._n_outputs * self._design.count > _CHUNK
        return iter(pool.map(work, tasks)) if use_pool else map(work, tasks)

    def _build_state(self, pool: ThreadPoolExecutor, folds: np.ndarray, point: np.ndarray, logits: np.ndarray) -> _State:
        """The state at a point whose logits are known."""
        state = _State(folds.copy(), point.copy(), logits, np.empty_like(logits), np.zeros(len(folds)))
        evaluated_logits = np.empty_like(logits)
        state.losses, _ = self._evaluate_trial(
            pool, state, np.zeros_like(logits), np.zeros(len(folds)), folds, evaluated_logits, state.residual
        )
        state.logits = evaluated_logits
        return state

    def _compute_objective(self, state: _State, penalty: float) -> np.ndarray:
        weights = state.point[..., :-1]
        return np.asarray(penalty * state.losses + dot(weights, weights) / 2)

    def _compute_gradient(self, state: _State, penalty: float) -> np.ndarray:
        gradient = np.empty_like(state.point)
        np.multiply(self._design.backward(state.residual, state.which), np.float32(penalty), out=gradient[..., :-1])
        gradient[..., :-1] += state.point[..., :-1]
        gradient[..., -1] = np.float32(penalty) * state.residual.sum(axis=2)
        return gradient
