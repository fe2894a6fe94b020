"""Logistic regression over a path of C, scikit-learn's, standardised inside each fold."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...cache.errors import HeadError
from ..head import Head, softmax_of
from ..problem import Problem
from ..trial import Score

# Inverse regularisation strengths, weakest fit first, so that each solution starts the next.
PATH = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
MAX_ITER = 1000


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try, in order of C: `C` is a number, or `a/b/c` for several; the whole path by default."""
    if unknown := set(options) - {"C"}:
        raise HeadError(f"head logreg: expected the option C, found {sorted(unknown)[0]!r}")
    try:
        values = [float(value) for value in str(options["C"]).split("/")] if "C" in options else list(PATH)
    except ValueError as error:
        raise HeadError(f"head logreg: expected C as a number or as a/b/c, found {options['C']!r}") from error
    if not all(0 < value < float("inf") for value in values):
        raise HeadError(f"head logreg: expected every C above 0, found {options['C']!r}")
    return [{"C": value} for value in sorted(set(values))]


def cross_validate(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting."""
    from sklearn.preprocessing import StandardScaler

    features, labels = problem.features.array(), problem.labels
    answers: list[list[np.ndarray]] = [[] for _ in tried]
    seconds = np.zeros(len(tried))
    converged = [True] * len(tried)
    for fit_rows, score_rows in problem.folds:
        scaler = StandardScaler().fit(features[fit_rows])
        fit_on, score_on = scaler.transform(features[fit_rows]), scaler.transform(features[score_rows])
        model = _model(seed)
        for row, setting in enumerate(tried):
            began = time.perf_counter()
            converged[row] &= _fit(model.set_params(C=setting["C"]), fit_on, labels[fit_rows])
            seconds[row] += time.perf_counter() - began
            probabilities = np.zeros((len(score_rows), problem.classes))
            probabilities[:, model.classes_] = model.predict_proba(score_on)
            answers[row].append(probabilities)
    return [
        problem.score(each, float(took), {"converged": ended})
        for each, took, ended in zip(answers, seconds, converged, strict=True)
    ]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],  # noqa: ARG001 - every family's `fit` takes what its `cross_validate` kept
    classes: Sequence[str],
    seed: int,
) -> Head:
    """The head fitted on all rows, with the scaler folded in."""
    from sklearn.preprocessing import StandardScaler

    features, labels = problem.features.array(), problem.labels
    scaler = StandardScaler().fit(features)
    model = _model(seed).set_params(C=setting["C"])
    _fit(model, scaler.transform(features), labels)
    return Head((softmax_of(model.coef_, model.intercept_).scaled(scaler.mean_, scaler.scale_),), tuple(classes))


def _model(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=MAX_ITER, warm_start=True, random_state=seed)


def _fit(model: Any, features: np.ndarray, labels: np.ndarray) -> bool:
    """Fit, and say whether it converged; an unconverged fit is recorded with its score instead of warned of."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, labels)
    return not any(issubclass(item.category, ConvergenceWarning) for item in caught)
