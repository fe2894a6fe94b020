"""Probabilities for decisions that are none: one temperature, by the log-loss of decisions on rows held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..problem import Problem
from ..trial import Score

_LEAST, _MOST = 1e-4, 1e4  # of the factor, where decisions spread by 1 on average


def softmax(decisions: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes)."""
    powers = np.exp(decisions - decisions.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def scored(problem: Problem, decisions: Sequence[np.ndarray], seconds: float) -> Score:
    """The score of decisions (rows to score, classes) for each fold, with the `temperature` that they were divided by."""
    times = factor(decisions, [problem.labels[rows] for _, rows in problem.folds])
    answers = [softmax(times * each.astype(np.float64)) for each in decisions]
    return problem.score(answers, seconds, {"temperature": 1 / times})


def present(decisions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The decisions (n, classes), where a class without rows to fit on is no better than the worst of the others."""
    least = decisions[:, counts > 0].min(axis=1, keepdims=True)
    return np.asarray(np.where(counts > 0, decisions, least))


def factor(decisions: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
    """The factor (one over the temperature) that decisions (n, classes) of each fold are multiplied by before a softmax.

    It has the least mean log-loss for labels (n,) on rows that were held out, so that it is not learnt from rows the
    decisions were fitted to; it changes no order. The loss is convex in it. Where no factor above 0 is better than any
    other, as for decisions that tell nothing, it is next to 0, and where every row is right it stays finite.

    Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    rows, true = np.concatenate(decisions).astype(np.float64), np.concatenate(labels)
    below = rows - rows.max(axis=1, keepdims=True)
    own = below[np.arange(len(true)), true]
    spread = float(-below.mean()) or 1.0

    def loss(logarithm: float) -> float:
        times = np.exp(logarithm) / spread
        return float((np.log(np.exp(times * below).sum(axis=1)) - times * own).mean())

    found = minimize_scalar(loss, bounds=(np.log(_LEAST), np.log(_MOST)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x) / spread)
