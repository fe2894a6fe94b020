"""Linear discriminant analysis with shrinkage, scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr")`, standardised."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..linear.cv_fold import Fold, folds, whole
from ..linear.eigen import decomposed
from ..linear.ledoit_wolf import shrunk, unrelated
from ..linear.temperature import softmax
from ..options import Numbers, Option, combinations
from ..training_data import Problem

OPTIONS: dict[str, Option] = {"shrinkage": Numbers((1e-3, 1e-2, 0.1, 0.5, 0.9), most=1.0, words=("auto",))}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try, in order of shrinkage: a share from 0 to 1, or `auto`."""
    return combinations("lda", OPTIONS, options)


def cross_validate(
    problem: Problem,
    tried: Sequence[Mapping[str, Any]],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> list[Score]:
    """The score of each setting; the shares from 0 to 1 all come from one eigendecomposition for each fold.

    share s: the covariance within classes, S, becomes `(1 - s) S + s tr(S) / d`. auto: that of each class becomes by itself
    what Ledoit and Wolf make of its standardised rows. Priors are the classes' shares of the rows.
    """
    answers: list[list[np.ndarray]] = [[] for _ in tried]
    seconds = np.zeros(len(tried))
    for fold in folds(problem):
        began = time.perf_counter()
        within = _Within.of(fold) if any(setting["shrinkage"] != "auto" for setting in tried) else None
        shared = (time.perf_counter() - began) / len(tried)
        for number, (each, setting) in enumerate(zip(answers, tried, strict=True)):
            began = time.perf_counter()
            seen, weights, bias = _solved(fold, within, setting["shrinkage"])
            each.append(softmax(seen.answers(weights, bias).astype(np.float64)))
            seconds[number] += time.perf_counter() - began + shared
    return [problem.score(each, float(took)) for each, took in zip(answers, seconds, strict=True)]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],  # noqa: ARG001 - every family's `fit` takes what its `cross_validate` kept
    classes: Sequence[str],
    seed: int,  # noqa: ARG001 - nothing here is drawn
) -> Head:
    """The head fitted on all rows, with the scaler folded in."""
    fold = whole(problem)
    within = _Within.of(fold) if setting["shrinkage"] != "auto" else None
    seen, weights, bias = _solved(fold, within, setting["shrinkage"])
    return Head((seen.dense(weights, bias),), tuple(classes))


@dataclass(frozen=True)
class _Within:
    """The covariance within classes: eigenvalues (width,) and eigenvectors as columns; class means (classes, width), counts.

    level: its trace over all columns, those outside the span of the rows included.
    """

    values: np.ndarray
    vectors: np.ndarray
    means: np.ndarray
    counts: np.ndarray
    level: float

    @classmethod
    def of(cls, fold: Fold) -> _Within:
        moments = fold.moments()
        means = moments.sums / np.maximum(moments.counts, 1)[:, None]
        covariance = moments.scatter
        covariance -= means.T @ moments.sums
        covariance /= moments.counts.sum()
        values, vectors = decomposed(covariance)
        return cls(np.maximum(values, 0), vectors, means, moments.counts, max(0.0, float(values.sum())) / fold.columns)

    def solved(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights (width, classes) and bias (classes,)."""
        along = _inverse((1 - share) * self.values + share * self.level)[:, None] * (self.vectors.T @ self.means.T)
        return _discriminant(self.vectors @ along, self.means, self.counts)


def _solved(fold: Fold, within: _Within | None, share: float | str) -> tuple[Fold, np.ndarray, np.ndarray]:
    """The fold, weights (width, classes) and bias (classes,); the fold is turned otherwise where `auto` needs that."""
    if within is not None and not isinstance(share, str):
        return fold, *within.solved(share)
    if fold.turn is not None:
        fold, kept = unrelated(fold)
        sums, counts = fold.sums()
        means = sums / np.maximum(counts, 1)[:, None]
        covariance = np.eye(fold.width)
        for places, rows in fold.fit_blocks():
            of = fold.labels[places]
            left = (rows - means[of]) * np.sqrt(kept[of] / len(fold.fit_rows))[:, None]
            covariance += left.T @ left
    else:
        covariance = shrunk(fold)
        sums, counts = fold.sums()
        means = sums / np.maximum(counts, 1)[:, None]
    values, vectors = decomposed(covariance)
    weights = vectors @ (_inverse(values)[:, None] * (vectors.T @ means.T))
    return fold, *_discriminant(weights, means, counts)


def _inverse(values: np.ndarray) -> np.ndarray:
    """One over each eigenvalue; 0 where it is nothing but rounding, as least squares has it."""
    real = values > len(values) * np.finfo(np.float64).eps * values.max(initial=0.0)
    return np.asarray(np.where(real, 1 / np.where(real, values, 1), 0))


def _discriminant(weights: np.ndarray, means: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (width, classes) with the bias (classes,): a class without rows has no chance."""
    with np.errstate(divide="ignore"):
        priors = np.log(counts / counts.sum())
    return weights, priors - np.einsum("ij,ji->i", means, weights) / 2
