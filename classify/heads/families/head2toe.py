"""Head2Toe: the strongest columns of every tap by a group lasso, and logistic regression on those alone.

Evci, Dumoulin, Larochelle and Mozer, "Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning" (2022).
Columns are ranked inside each fold, by the rows that the fold learns from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...data.feature_matrix import Matrix
from ...evaluate.trial import Score
from ..head import Head
from ..layers import Columns
from ..linear import group_lasso
from ..options import Numbers, Option, combinations
from ..training_data import Problem
from . import logreg

over_all_taps = True  # the features of a problem are those of all taps, side by side

OPTIONS: dict[str, Option] = {
    "penalty": Numbers((0.2,), most=1, open=True),
    "fraction": Numbers((0.01, 0.03, 0.1, 0.3), most=1, open=True),
    "C": Numbers((0.001, 0.01, 0.1), open=True),
}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try: every combination of `a/b/c` lists in `options`, over the defaults; raises `HeadError`.

    penalty: of the group lasso, as a share of the smallest that drops every column. fraction: of the columns, the strongest,
    that are kept. C: of the logistic regression on them.
    """
    return combinations("head2toe", OPTIONS, options)


def cross_validate(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting; settings with one penalty share its rankings, and those with one fraction the columns.

    In memory are what `group_lasso.rank` says, and then the kept columns of every row, for one fold at a time.
    detail: `columns` kept, and whether everything `converged`.
    """
    fits = [fit_rows for fit_rows, _ in problem.folds]
    parts: dict[int, list[Score]] = {place: [] for place in range(len(tried))}
    for penalty, places in _alike(range(len(tried)), tried, "penalty").items():
        began = time.perf_counter()
        rankings = group_lasso.rank(problem.features, problem.labels, problem.classes, fits, penalty)
        shared = (time.perf_counter() - began) / len(places) / len(fits)
        most = _count(problem, max(tried[place]["fraction"] for place in places))
        for fold, ranking in zip(problem.folds, rankings, strict=True):
            kept = group_lasso.gather(problem.features, ranking.order[:most])
            for fraction, members in _alike(places, tried, "fraction").items():
                part = _on(problem, kept[:, : _count(problem, fraction)], (fold,))
                scores = logreg.cross_validate(part, [{"C": tried[place]["C"]} for place in members], seed)
                for place, score in zip(members, scores, strict=True):
                    ended = ranking.converged and bool(score.detail.get("converged", True))
                    parts[place].append(_noted(score, shared, {"columns": part.features.shape[1], "converged": ended}))
    counts = [len(np.unique(problem.images[score_rows])) for _, score_rows in problem.folds]
    return [_joined(parts[place], counts) for place in range(len(tried))]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],
    classes: Sequence[str],
    seed: int,
) -> Head:
    """The head with columns ranked on, and fitted on, all rows; the scaler is folded in."""
    rows = np.arange(len(problem.labels))
    (ranking,) = group_lasso.rank(problem.features, problem.labels, problem.classes, [rows], setting["penalty"])
    columns = np.sort(ranking.order[: _count(problem, setting["fraction"])])
    on = _on(problem, group_lasso.gather(problem.features, columns), ())
    head = logreg.fit(on, {"C": setting["C"]}, detail, classes, seed)
    return Head((Columns(columns.astype(np.int32)), *head.layers), head.classes)


def _alike(places: Sequence[int], tried: Sequence[Mapping[str, Any]], option: str) -> dict[float, list[int]]:
    """The places by the value of an option."""
    groups: dict[float, list[int]] = {}
    for place in places:
        groups.setdefault(tried[place][option], []).append(place)
    return groups


def _count(problem: Problem, fraction: float) -> int:
    return max(1, round(fraction * problem.features.shape[1]))


def _on(problem: Problem, values: np.ndarray, folds: tuple[tuple[np.ndarray, np.ndarray], ...]) -> Problem:
    return Problem(Matrix.of(values), problem.labels, problem.classes, folds, problem.images, problem.threads)


def _noted(score: Score, seconds: float, detail: Mapping[str, Any]) -> Score:
    return Score(score.accuracy, score.log_loss, score.folds, score.seconds + seconds, score.right, detail)


def _joined(parts: Sequence[Score], counts: Sequence[int]) -> Score:
    """One score of those of each fold, which holds out `counts` images, as `Problem.score` has it."""
    right = np.bitwise_or.reduce([np.frombuffer(bytes.fromhex(part.right), np.uint8) for part in parts])
    return Score(
        accuracy=float(np.unpackbits(right).sum() / sum(counts)),
        log_loss=float(np.average([part.log_loss for part in parts], weights=counts)),
        folds=tuple(part.accuracy for part in parts),
        seconds=sum(part.seconds for part in parts),
        right=right.tobytes().hex(),
        detail={
            "columns": parts[0].detail["columns"],
            "converged": all(part.detail["converged"] for part in parts),
        },
    )
