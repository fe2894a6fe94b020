"""Linear discriminant analysis with shrinkage, on standardized rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily
from ..linear.cv_fold import Fold, fit_all_rows, iter_folds
from ..linear.eigen import decompose_symmetric
from ..linear.ledoit_wolf import compute_covariance, rescale_to_identity_target
from ..linear.temperature import softmax
from ..options import NumberOption, Option
from ..training_data import TrainingData


class LinearDiscriminantAnalysis(HeadFamily):
    """scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr")`, with class frequencies as priors.

    Options
    -------
    shrinkage
        A fraction s from 0 to 1: the covariance S within classes becomes `(1 - s) S + s tr(S) / d`. ``auto``: the
        Ledoit-Wolf estimate of the covariance of each class, on its own standardized rows.
    """

    name = "lda"
    title = "linear discriminant analysis"
    options: Mapping[str, Option] = {
        "shrinkage": NumberOption((1e-3, 1e-2, 0.1, 0.5, 0.9), maximum=1.0, allowed_words=("auto",))
    }

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score every shrinkage; all numeric values share one eigendecomposition per fold."""
        predictions: list[list[np.ndarray]] = [[] for _ in hyperparameter_sets]
        seconds = np.zeros(len(hyperparameter_sets))
        for fold in iter_folds(data):
            start_time = time.perf_counter()
            within = (
                _WithinCovariance.from_fold(fold)
                if any(hyperparameters["shrinkage"] != "auto" for hyperparameters in hyperparameter_sets)
                else None
            )
            shared_seconds = (time.perf_counter() - start_time) / len(hyperparameter_sets)
            for index, (fold_predictions, hyperparameters) in enumerate(zip(predictions, hyperparameter_sets, strict=True)):
                start_time = time.perf_counter()
                solved_fold, weights, bias = _solve(fold, within, hyperparameters["shrinkage"])
                fold_predictions.append(softmax(solved_fold.compute_decisions(weights, bias).astype(np.float64)))
                seconds[index] += time.perf_counter() - start_time + shared_seconds
        return [
            data.score(fold_predictions, float(elapsed))
            for fold_predictions, elapsed in zip(predictions, seconds, strict=True)
        ]

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Fit on all rows; the scaler is folded into the weights."""
        fold = fit_all_rows(data)
        within = _WithinCovariance.from_fold(fold) if hyperparameters["shrinkage"] != "auto" else None
        solved_fold, weights, bias = _solve(fold, within, hyperparameters["shrinkage"])
        return Head((solved_fold.to_dense_layer(weights, bias),), data.target.class_names)


@dataclass(frozen=True)
class _WithinCovariance:
    """The covariance within classes.

    Parameters
    ----------
    values : ndarray of shape (width,)
        Eigenvalues.
    vectors : ndarray of shape (width, width)
        Eigenvectors as columns.
    means : ndarray of shape (classes, width)
        Class means.
    counts : ndarray of shape (classes,)
        Rows of each class.
    mean_variance
        The trace over all columns, those outside the row space included, divided by their number.
    """

    values: np.ndarray
    vectors: np.ndarray
    means: np.ndarray
    counts: np.ndarray
    mean_variance: float

    @classmethod
    def from_fold(cls, fold: Fold) -> _WithinCovariance:
        moments = fold.compute_moments()
        means = moments.sums / np.maximum(moments.counts, 1)[:, None]
        covariance = moments.scatter
        covariance -= means.T @ moments.sums
        covariance /= moments.counts.sum()
        values, vectors = decompose_symmetric(covariance)
        return cls(np.maximum(values, 0), vectors, means, moments.counts, max(0.0, float(values.sum())) / fold.n_columns)

    def solve(self, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (width, classes) and bias (classes,)."""
        projected_means = _invert_eigenvalues((1 - shrinkage) * self.values + shrinkage * self.mean_variance)[:, None] * (
            self.vectors.T @ self.means.T
        )
        return _build_discriminant(self.vectors @ projected_means, self.means, self.counts)


def _solve(fold: Fold, within: _WithinCovariance | None, shrinkage: float | str) -> tuple[Fold, np.ndarray, np.ndarray]:
    """Return the fold, weights (width, classes) and bias (classes,); ``auto`` may return a fold with another row space."""
    if within is not None and not isinstance(shrinkage, str):
        return fold, *within.solve(shrinkage)
    if fold.row_space is not None:
        fold, unshrunk_shares = rescale_to_identity_target(fold)
        sums, counts = fold.compute_class_sums()
        means = sums / np.maximum(counts, 1)[:, None]
        covariance = np.eye(fold.width)
        for positions, rows in fold.iter_fit_blocks():
            row_labels = fold.labels[positions]
            residuals = (rows - means[row_labels]) * np.sqrt(unshrunk_shares[row_labels] / len(fold.fit_rows))[:, None]
            covariance += residuals.T @ residuals
    else:
        covariance = compute_covariance(fold)
        sums, counts = fold.compute_class_sums()
        means = sums / np.maximum(counts, 1)[:, None]
    values, vectors = decompose_symmetric(covariance)
    weights = vectors @ (_invert_eigenvalues(values)[:, None] * (vectors.T @ means.T))
    return fold, *_build_discriminant(weights, means, counts)


def _invert_eigenvalues(values: np.ndarray) -> np.ndarray:
    """Return the inverse of each eigenvalue; 0 for those that are only rounding errors, as in a pseudoinverse."""
    is_nonzero = values > len(values) * np.finfo(np.float64).eps * values.max(initial=0.0)
    return np.asarray(np.where(is_nonzero, 1 / np.where(is_nonzero, values, 1), 0))


def _build_discriminant(weights: np.ndarray, means: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (width, classes) and bias (classes,), which is -inf for a class without rows."""
    with np.errstate(divide="ignore"):
        priors = np.log(counts / counts.sum())
    return weights, priors - np.einsum("ij,ji->i", means, weights) / 2
