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
from .quasi_newton import Model, Pair, dot, grown, times

TOLERANCE = 3e-6  # of the objective, that a step would still gain by the model
MAX_ITER = 500
_PAIRS = 1 << 25  # bytes of steps and turns to remember: of up to 40, and of 8 at least
_STEPS = 8  # trial steps of a line search
_NEVER = -1e30  # the logit of a class that a fold has no row of
_CHUNK = 1 << 16  # logits worked on at once: they stay in a core's cache


class Design(Protocol):
    """Rows of several folds: `Shared` or `Turned`."""

    count: int
    width: int

    def forward(self, weights: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Logits (folds, k, n) of weights (folds, k, r)."""

    def backward(self, residuals: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Products (folds, k, r) of residuals (folds, k, n)."""

    def basis(self) -> Basis:
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
    pairs: list[Pair] = field(default_factory=list)

    def keep(self, mask: np.ndarray) -> None:
        """Drop the folds that are not in the mask."""
        for name in ("which", "point", "logits", "residual", "losses", "gradient"):
            setattr(self, name, getattr(self, name)[mask])
        self.pairs = [(step[mask], turn[mask]) for step, turn in self.pairs]


class Solver:
    """Solves heads of rows `design` with class numbers `labels` (n,); fold f fits on `fitted[f]` (n,), a mask."""

    def __init__(
        self,
        design: Design,
        loss: Loss,
        labels: np.ndarray,
        classes: int,
        fitted: np.ndarray,
        *,
        threads: int = 1,
        tolerance: float = TOLERANCE,
        max_iter: int = MAX_ITER,
    ) -> None:
        self._design, self._loss, self._labels, self._threads = design, loss, labels, threads
        self._tolerance, self._max_iter = tolerance, max_iter
        self._fitted = fitted.astype(np.float32)
        self._outputs = loss.outputs(classes)
        self._rows = fitted.sum(axis=1).astype(np.float32)
        self._memory = min(40, max(8, _PAIRS // (8 * len(fitted) * self._outputs * (design.width + 1))))
        self._basis = design.basis()
        self._floor = np.zeros((len(fitted), self._outputs, 1), np.float32)
        if self._outputs == classes:
            for number, rows in enumerate(fitted):
                absent = np.bincount(labels[rows], minlength=classes) == 0
                self._floor[number, absent] = _NEVER

    def path(self, penalties: Sequence[float]) -> Iterator[Solution]:
        """The solution for each C of `penalties`, which ascend."""
        folds = np.arange(len(self._fitted))
        point = np.zeros((len(folds), self._outputs, self._design.width + 1), np.float32)
        logits = np.zeros((len(folds), self._outputs, self._design.count), np.float32) + self._floor
        known: list[tuple[float, np.ndarray, np.ndarray]] = []
        pairs: list[Pair] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for penalty in penalties:
                state = self._evaluated(pool, folds, point, logits)
                if len(known) == 2:
                    (first, *earlier), (second, *_) = known
                    reach = np.float32(np.log(penalty / second) / np.log(second / first))
                    starts = (last + reach * (last - then) for last, then in zip((point, logits), earlier, strict=True))
                    ahead = self._evaluated(pool, folds, *starts)
                    better = self._objective(ahead, penalty) < self._objective(state, penalty)
                    for name in ("point", "logits", "residual", "losses"):
                        getattr(state, name)[better] = getattr(ahead, name)[better]
                state.pairs = [(step, grown(turn, step, penalty / known[-1][0])) for step, turn in pairs]
                pairs = []  # they would be as much memory again
                solution, point, pairs = self._solved(pool, state, penalty)
                logits = solution.logits
                known = [*known[-1:], (penalty, point, logits)]
                yield solution

    def _solved(self, pool: ThreadPoolExecutor, state: _State, penalty: float) -> tuple[Solution, np.ndarray, list[Pair]]:
        count = len(state.which)
        pairs = [(np.zeros_like(state.point), np.zeros_like(state.point)) for _ in range(self._memory)]
        points, logits = np.empty_like(state.point), np.empty_like(state.logits)
        objective, converged, evaluations = np.empty(count), np.zeros(count, bool), 0
        curvatures = [
            self._loss.curvature(logits, self._labels, fitted)
            for logits, fitted in zip(state.logits, self._fitted, strict=True)
        ]
        model = Model.of(self._basis, curvatures, penalty * self._rows)

        def ended(mask: np.ndarray, well: np.ndarray) -> None:
            done = state.which[mask]
            points[done], logits[done] = state.point[mask], state.logits[mask]
            objective[done], converged[done] = self._objective(state, penalty)[mask], well[mask]
            for (step, turn), (last_step, last_turn) in zip(reversed(pairs), reversed(state.pairs), strict=False):
                step[done], turn[done] = last_step[mask], last_turn[mask]
            state.keep(~mask)

        state.gradient = self._gradient(state, penalty)
        for _ in range(self._max_iter):
            evaluations += len(state.which)
            direction = self._direction(pool, model, state)
            slope = dot(state.gradient, direction)
            value = self._objective(state, penalty)
            small = -slope <= 2 * self._tolerance * value
            if small.any():
                direction = direction[~small]
                ended(small, small)
                if not len(state.which):
                    break
            moved = self._search(pool, state, direction, penalty)
            if not moved.all():  # float32 has no better point in this direction
                near = -slope[~small] <= 200 * self._tolerance * value[~small]
                ended(~moved, near)
                if not len(state.which):
                    break
        else:
            ended(np.ones(len(state.which), bool), np.zeros(len(state.which), bool))
        return Solution(points[..., :-1], points[..., -1], logits, objective, converged, evaluations), points, pairs

    def _direction(self, pool: ThreadPoolExecutor, model: Model, state: _State) -> np.ndarray:
        """Where every fold goes next; each thread has folds of its own."""
        ends = np.linspace(0, len(state.which), min(self._threads, len(state.which)) + 1).astype(int)

        def work(here: slice) -> np.ndarray:
            pairs = [(step[here], turn[here]) for step, turn in state.pairs]
            return model.direction(state.gradient[here], pairs, state.which[here])

        return np.concatenate(list(pool.map(work, itertools.starmap(slice, itertools.pairwise(ends)))))

    def _search(self, pool: ThreadPoolExecutor, state: _State, direction: np.ndarray, penalty: float) -> np.ndarray:
        """Move every fold along its direction to where the slope is next to nothing; a mask of those that moved."""
        across = self._design.forward(direction[..., :-1], state.which) + direction[..., -1:]
        start, slope = self._objective(state, penalty), dot(state.gradient, direction)
        own = (dot(state.point[..., :-1], direction[..., :-1]), dot(direction[..., :-1], direction[..., :-1]))
        count = len(state.which)
        step, low, high = np.ones(count), np.zeros(count), np.full(count, np.inf)
        low_slope = slope.copy()
        best, losses = np.zeros(count), state.losses.copy()
        logits, residual = np.empty_like(state.logits), np.empty_like(state.residual)
        squares = dot(state.point[..., :-1], state.point[..., :-1])
        left = np.arange(count)
        for _ in range(_STEPS):
            found, rise = self._trial(pool, state, across, step, left, logits, residual)
            value = penalty * found + (squares[left] + 2 * step[left] * own[0][left] + step[left] ** 2 * own[1][left]) / 2
            rise = penalty * rise + own[0][left] + step[left] * own[1][left]
            lower = value <= start[left] + 1e-4 * step[left] * slope[left]
            good = lower & (np.abs(rise) <= 0.25 * -slope[left])
            best[left[good]], losses[left[good]] = step[left[good]], found[good]
            left, lower, rise = left[~good], lower[~good], rise[~good]
            if not len(left):
                break
            shorter = ~lower | (rise > 0)
            bend = rise - low_slope[left]
            known = np.isfinite(bend) & (bend != 0)
            back = np.divide(rise, bend, out=np.full_like(bend, 0.5), where=known)
            secant = step[left] - back * (step[left] - low[left])
            high[left[shorter]] = step[left[shorter]]
            low[left[~shorter]], low_slope[left[~shorter]] = step[left[~shorter]], rise[~shorter]
            width = np.where(np.isinf(high[left]), 10 * step[left], high[left]) - low[left]
            step[left] = np.clip(secant, low[left] + 0.1 * width, low[left] + 0.9 * width)
        if len(left):  # the best that is known to be lower, if any
            step[left] = low[left]
            found, _ = self._trial(pool, state, across, step, left, logits, residual)
            best[left], losses[left] = step[left], found
        taken = times(best, direction)
        state.point = state.point + taken
        state.logits, state.residual, state.losses = logits, residual, losses
        before = state.gradient
        state.gradient = self._gradient(state, penalty)
        turn = state.gradient - before
        state.pairs = [*state.pairs, (taken, turn)][-self._memory :]
        return np.asarray(best > 0)

    def _trial(
        self,
        pool: ThreadPoolExecutor,
        state: _State,
        across: np.ndarray,
        step: np.ndarray,
        left: np.ndarray,
        logits: np.ndarray,
        residual: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Losses and slopes (left,) of the loss at `logits + step across`; fills `logits` and `residual`."""

        def work(task: tuple[int, int, slice]) -> tuple[int, float, float]:
            number, place, here = task
            moved = logits[place, :, here]
            np.multiply(across[place, :, here], np.float32(step[place]), out=moved)
            moved += state.logits[place, :, here]
            loss, rest = self._loss.evaluate(moved.copy(), self._labels[here], self._fitted[state.which[place], here])
            residual[place, :, here] = rest
            return number, loss, float(np.einsum("kn,kn->", rest, across[place, :, here]))

        found, slopes = np.zeros(len(left)), np.zeros(len(left))
        for number, loss, slope in self._chunks(pool, work, left):
            found[number] += loss
            slopes[number] += slope
        return found, slopes

    def _chunks(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[tuple[int, int, slice]], tuple[int, float, float]],
        places: np.ndarray,
    ) -> Iterator[tuple[int, float, float]]:
        size = max(256, _CHUNK // self._outputs)
        tasks = [
            (number, int(place), slice(start, min(start + size, self._design.count)))
            for number, place in enumerate(places)
            for start in range(0, self._design.count, size)
        ]
        several = self._threads > 1 and len(places) * self._outputs * self._design.count > _CHUNK
        return iter(pool.map(work, tasks)) if several else map(work, tasks)

    def _evaluated(self, pool: ThreadPoolExecutor, folds: np.ndarray, point: np.ndarray, logits: np.ndarray) -> _State:
        """The state at a point whose logits are known."""
        state = _State(folds.copy(), point.copy(), logits, np.empty_like(logits), np.zeros(len(folds)))
        made = np.empty_like(logits)
        state.losses, _ = self._trial(pool, state, np.zeros_like(logits), np.zeros(len(folds)), folds, made, state.residual)
        state.logits = made
        return state

    def _objective(self, state: _State, penalty: float) -> np.ndarray:
        weights = state.point[..., :-1]
        return np.asarray(penalty * state.losses + dot(weights, weights) / 2)

    def _gradient(self, state: _State, penalty: float) -> np.ndarray:
        out = np.empty_like(state.point)
        np.multiply(self._design.backward(state.residual, state.which), np.float32(penalty), out=out[..., :-1])
        out[..., :-1] += state.point[..., :-1]
        out[..., -1] = np.float32(penalty) * state.residual.sum(axis=2)
        return out
