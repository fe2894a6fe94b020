"""Losses of linear heads: value, residual and curvature for the logits of one fold.

Logits and residuals have the shape (k, n), one row per class, so that reductions over classes are contiguous in memory; k
is 1 for two classes. A residual is the derivative of the loss with respect to the logit. Rows that the fold does not fit
on have weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Loss(Protocol):
    """A convex loss of one row, summed over weighted rows."""

    def count_outputs(self, n_classes: int) -> int:
        """Return the number of logits per row, k."""

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the loss and the residual.

        Parameters
        ----------
        logits : ndarray of shape (k, n), float32
            May be overwritten.
        labels : ndarray of shape (n,)
            Class numbers.
        weights : ndarray of shape (n,), float32
            1 for rows that the fold fits on, otherwise 0.

        Returns
        -------
        loss : float
            Sum over rows.
        residual : ndarray of shape (k, n), float32
            Derivative with respect to the logits.
        """

    def compute_curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the second derivative with respect to the logits, averaged over rows, (k, k) float64."""


@dataclass(frozen=True)
class Multinomial:
    """`log(sum(exp(z))) - z[label]`, over all classes; the logit of an absent class is far below the others."""

    def count_outputs(self, n_classes: int) -> int:
        """Return the number of classes."""
        return n_classes

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the loss and the residual, see `Loss.evaluate`."""
        positions = np.arange(logits.shape[1])
        highest = logits.max(axis=0)
        label_logits = logits[labels, positions] - highest
        powers = np.exp(np.subtract(logits, highest, out=logits), out=logits)
        label_powers = np.exp(label_logits)
        powers[labels, positions] = 0
        other_powers = powers.sum(axis=0)  # without the row's own class: 1 - p has no digits left if p is nearly 1
        is_fitted = weights > 0  # labels of rows to score may be absent from the fit rows
        loss = float(
            (np.log1p(other_powers + (label_powers - 1))[is_fitted] - label_logits[is_fitted]).sum(dtype=np.float64)
        )
        scaled_weights = weights / (label_powers + other_powers)
        powers *= scaled_weights
        powers[labels, positions] = -other_powers * scaled_weights
        return loss, powers

    def compute_curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the mean second derivative, see `Loss.compute_curvature`."""
        _, residual = self.evaluate(logits.copy(), labels, weights)
        residual[labels, np.arange(len(labels))] += weights  # p, the probabilities
        mean = residual.sum(axis=1, dtype=np.float64) / weights.sum()
        return np.asarray(np.diag(mean) - (residual @ residual.T).astype(np.float64) / weights.sum())


@dataclass(frozen=True)
class Logistic:
    """`log(1 + exp(z)) - label z`, for two classes and one logit."""

    def count_outputs(self, n_classes: int) -> int:  # noqa: ARG002 - always two
        """Return 1."""
        return 1

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the loss and the residual, see `Loss.evaluate`."""
        targets = _to_signed_targets(labels, 1)
        margins = targets * logits
        powers = np.exp(-np.abs(logits))
        row_losses = np.maximum(-margins, 0) + np.log1p(powers)
        error_probability = np.where(margins >= 0, powers, 1) / (1 + powers)
        return float((row_losses * weights).sum(dtype=np.float64)), (-targets * error_probability * weights).astype(
            np.float32
        )

    def compute_curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Return the mean second derivative, see `Loss.compute_curvature`."""
        powers = np.exp(-np.abs(logits.astype(np.float64)))
        return np.asarray([[(powers / (1 + powers) ** 2 * weights).sum() / weights.sum()]])


@dataclass(frozen=True)
class SquaredHinge:
    """`max(0, 1 - t z)^2` for a target t of 1 or -1, one class against the rest."""

    def count_outputs(self, n_classes: int) -> int:
        """Return the number of classes, or 1 for two classes."""
        return 1 if n_classes == 2 else n_classes

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the loss and the residual, see `Loss.evaluate`."""
        targets = _to_signed_targets(labels, len(logits))
        violations = np.maximum(1 - targets * logits, 0)
        violations *= weights
        return float(np.vdot(violations, violations)), -2 * targets * violations

    def compute_curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the mean second derivative, see `Loss.compute_curvature`."""
        violating_weights = (_to_signed_targets(labels, len(logits)) * logits < 1) * weights
        return np.diag(2 * violating_weights.sum(axis=1, dtype=np.float64) / weights.sum())


def _to_signed_targets(labels: np.ndarray, n_outputs: int) -> np.ndarray:
    class_ids = np.arange(n_outputs)[:, None] if n_outputs > 1 else np.ones((1, 1), int)
    return np.where(labels == class_ids, np.float32(1), np.float32(-1))
