"""The objective of linear heads for several folds at once, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .design_matrix import Basis
from .losses import Loss
from .quasi_newton import CurvaturePair, dot

_CHUNK = 1 << 16  # logits processed at once, so that they stay in a core's cache


class Design(Protocol):
    """The rows of several folds: `SharedDesign` or `ProjectedDesign`.

    Attributes
    ----------
    count
        Number of rows, n.
    width
        Number of columns, r.
    """

    count: int
    width: int

    def forward(self, weights: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return logits (folds, k, n) of weights (folds, k, r) of the folds `fold_ids`."""

    def backward(self, residuals: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return products (folds, k, r) of residuals (folds, k, n) with the rows."""

    def compute_basis(self) -> Basis:
        """Return the directions for preconditioning."""


@dataclass
class FoldStates:
    """State of the folds that have not converged.

    Parameters
    ----------
    which : ndarray of shape (folds,)
        Numbers of the folds.
    point : ndarray of shape (folds, k, r + 1)
        Weights, and the bias last.
    logits, residual : ndarray of shape (folds, k, n)
        Logits of all rows, and the derivative of the loss with respect to them.
    losses : ndarray of shape (folds,)
        The loss, without C and penalty.
    gradient : ndarray of shape (folds, k, r + 1)
        Gradient of the objective.
    pairs
        The last steps with the changes of the gradient along them; zeros for a fold that had none.
    """

    which: np.ndarray
    point: np.ndarray
    logits: np.ndarray
    residual: np.ndarray
    losses: np.ndarray
    gradient: np.ndarray = field(default_factory=lambda: np.empty(0))
    pairs: list[CurvaturePair] = field(default_factory=list)

    def keep(self, mask: np.ndarray) -> None:
        """Keep only the folds in the mask."""
        for name in ("which", "point", "logits", "residual", "losses", "gradient"):
            setattr(self, name, getattr(self, name)[mask])
        self.pairs = [(step[mask], gradient_change[mask]) for step, gradient_change in self.pairs]


class FoldObjective:
    """`|w|^2 / 2 + C sum(loss)` for every fold, with an intercept that is not penalized.

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
        Number of threads that evaluate the loss.

    Attributes
    ----------
    n_outputs
        Number of logits per row, k.
    """

    def __init__(
        self, design: Design, loss: Loss, labels: np.ndarray, n_classes: int, fit_masks: np.ndarray, threads: int
    ) -> None:
        self.design, self.loss, self.labels, self._threads = design, loss, labels, threads
        self.fit_masks = fit_masks.astype(np.float32)
        self.n_outputs = loss.count_outputs(n_classes)

    def compute(self, states: FoldStates, penalty: float) -> np.ndarray:
        """Return the objective (folds,) for one C."""
        weights = states.point[..., :-1]
        return np.asarray(penalty * states.losses + dot(weights, weights) / 2)

    def compute_gradient(self, states: FoldStates, penalty: float) -> np.ndarray:
        """Return the gradient (folds, k, r + 1) of the objective, by one product of the residuals with the rows."""
        gradient = np.empty_like(states.point)
        np.multiply(self.design.backward(states.residual, states.which), np.float32(penalty), out=gradient[..., :-1])
        gradient[..., :-1] += states.point[..., :-1]
        gradient[..., -1] = np.float32(penalty) * states.residual.sum(axis=2)
        return gradient

    def build_states(self, pool: ThreadPoolExecutor, folds: np.ndarray, point: np.ndarray, logits: np.ndarray) -> FoldStates:
        """Return the state of folds at points (folds, k, r + 1) with known logits (folds, k, n), without a gradient."""
        states = FoldStates(folds.copy(), point.copy(), logits, np.empty_like(logits), np.zeros(len(folds)))
        evaluated_logits = np.empty_like(logits)
        states.losses, _ = self.evaluate(
            pool, states, np.zeros_like(logits), np.zeros(len(folds)), folds, evaluated_logits, states.residual
        )
        states.logits = evaluated_logits
        return states

    def evaluate(
        self,
        pool: ThreadPoolExecutor,
        states: FoldStates,
        logit_direction: np.ndarray,
        step: np.ndarray,
        open_folds: np.ndarray,
        logits: np.ndarray,
        residual: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the loss at ``states.logits + step * logit_direction``.

        Parameters
        ----------
        pool
            The threads.
        states
            The folds.
        logit_direction : ndarray of shape (folds, k, n)
            Change of the logits for a step of 1.
        step : ndarray of shape (folds,)
            Step length.
        open_folds : ndarray of shape (open,)
            Positions of the folds to evaluate.
        logits, residual : ndarray of shape (folds, k, n)
            Overwritten with the new logits and the derivative of the loss.

        Returns
        -------
        losses, slopes : ndarray of shape (open,)
            The loss, and its derivative with respect to the step.
        """

        def evaluate_chunk(task: tuple[int, int, slice]) -> tuple[int, float, float]:
            number, fold_index, chunk = task
            trial_logits = logits[fold_index, :, chunk]
            np.multiply(logit_direction[fold_index, :, chunk], np.float32(step[fold_index]), out=trial_logits)
            trial_logits += states.logits[fold_index, :, chunk]
            loss, chunk_residual = self.loss.evaluate(
                trial_logits.copy(), self.labels[chunk], self.fit_masks[states.which[fold_index], chunk]
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
        size = max(256, _CHUNK // self.n_outputs)
        tasks = [
            (number, int(fold_index), slice(start, min(start + size, self.design.count)))
            for number, fold_index in enumerate(open_folds)
            for start in range(0, self.design.count, size)
        ]
        use_pool = self._threads > 1 and len(open_folds) * self.n_outputs * self.design.count > _CHUNK
        return iter(pool.map(work, tasks)) if use_pool else map(work, tasks)
