"""Losses of linear heads as the joint solver sees them: value, residual and curvature of one fold's logits.

Logits and residuals are (k, n): a row of numbers for each class, so that reductions over classes run along memory; k is 1
for two classes. A residual is the loss's derivative by the logit; rows that the fold does not fit on have the weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Loss(Protocol):
    """A convex loss of one row, summed over rows by weight."""

    def outputs(self, classes: int) -> int:
        """k, how many logits a row has."""

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss and the residual (k, n) of logits (k, n), which may be overwritten."""

    def curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The mean of the rows' second derivatives by their logits, (k, k) float64."""


@dataclass(frozen=True)
class Multinomial:
    """`log(sum(exp(z))) - z[label]`, over all classes; a logit far below the others is a class that is not there."""

    def outputs(self, classes: int) -> int:
        """One for each class."""
        return classes

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """See `Loss`."""
        places = np.arange(logits.shape[1])
        highest = logits.max(axis=0)
        own = logits[labels, places] - highest
        powers = np.exp(np.subtract(logits, highest, out=logits), out=logits)
        right = np.exp(own)
        powers[labels, places] = 0
        others = powers.sum(axis=0)  # apart from the row's own class: 1 - p has no digits left where p is nearly 1
        fitted = weights > 0  # the label of a row that is scored may be one that no row fitted on has
        loss = float((np.log1p(others + (right - 1))[fitted] - own[fitted]).sum(dtype=np.float64))
        share = weights / (right + others)
        powers *= share
        powers[labels, places] = -others * share
        return loss, powers

    def curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """See `Loss`."""
        _, residual = self.evaluate(logits.copy(), labels, weights)
        residual[labels, np.arange(len(labels))] += weights  # p, the probabilities
        mean = residual.sum(axis=1, dtype=np.float64) / weights.sum()
        return np.asarray(np.diag(mean) - (residual @ residual.T).astype(np.float64) / weights.sum())


@dataclass(frozen=True)
class Logistic:
    """`log(1 + exp(z)) - label z`, of two classes and one logit."""

    def outputs(self, classes: int) -> int:  # noqa: ARG002 - always two
        """One."""
        return 1

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """See `Loss`."""
        targets = _targets(labels, 1)
        right = targets * logits
        powers = np.exp(-np.abs(logits))
        rows = np.maximum(-right, 0) + np.log1p(powers)
        wrong = np.where(right >= 0, powers, 1) / (1 + powers)
        return float((rows * weights).sum(dtype=np.float64)), (-targets * wrong * weights).astype(np.float32)

    def curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """See `Loss`."""
        powers = np.exp(-np.abs(logits.astype(np.float64)))
        return np.asarray([[(powers / (1 + powers) ** 2 * weights).sum() / weights.sum()]])


@dataclass(frozen=True)
class SquaredHinge:
    """`max(0, 1 - t z)^2` for the target t of 1 or -1, one class against the rest."""

    def outputs(self, classes: int) -> int:
        """One for each class, or one for two."""
        return 1 if classes == 2 else classes

    def evaluate(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """See `Loss`."""
        targets = _targets(labels, len(logits))
        lacking = np.maximum(1 - targets * logits, 0)
        lacking *= weights
        return float(np.vdot(lacking, lacking)), -2 * targets * lacking

    def curvature(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """See `Loss`."""
        short = (_targets(labels, len(logits)) * logits < 1) * weights
        return np.diag(2 * short.sum(axis=1, dtype=np.float64) / weights.sum())


def _targets(labels: np.ndarray, outputs: int) -> np.ndarray:
    classes = np.arange(outputs)[:, None] if outputs > 1 else np.ones((1, 1), int)
    return np.where(labels == classes, np.float32(1), np.float32(-1))
