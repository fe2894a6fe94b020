"""Head2Toe: the strongest columns of every tap by a group lasso, and logistic regression on those alone.

Evci, Dumoulin, Larochelle and Mozer, "Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning" (2022).
Columns are ranked inside each fold, by the rows that the fold learns from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...data.feature_matrix import FeatureMatrix
from ...evaluate.trial import Score
from ..head import Head
from ..layers import SelectColumns
from ..linear import group_lasso
from ..options import NumberOption, Option, expand_combinations
from ..training_data import TrainingData
from . import logreg

over_all_taps = True  # the features of a problem are those of all taps, side by side

OPTIONS: dict[str, Option] = {
    "penalty": NumberOption((0.2,), maximum=1, exclusive=True),
    "fraction": NumberOption((0.01, 0.03, 0.1, 0.3), maximum=1, exclusive=True),
    "C": NumberOption((0.001, 0.01, 0.1), exclusive=True),
}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try: every combination of `a/b/c` lists in `options`, over the defaults; raises `HeadError`.

    penalty: of the group lasso, as a share of the smallest that drops every column. fraction: of the columns, the strongest,
    that are kept. C: of the logistic regression on them.
    """
    return expand_combinations("head2toe", OPTIONS, options)


def cross_validate(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting; settings with one penalty share its rankings, and those with one fraction the columns.

    In memory are what `group_lasso.rank` says, and then the kept columns of every row, for one fold at a time.
    detail: `columns` kept, and whether everything `converged`.
    """
    fit_rows_per_fold = [fit_rows for fit_rows, _ in data.folds]
    fold_scores: dict[int, list[Score]] = {index: [] for index in range(len(hyperparameter_sets))}
    for penalty, indices in _group_by_option(range(len(hyperparameter_sets)), hyperparameter_sets, "penalty").items():
        start_time = time.perf_counter()
        rankings = group_lasso.rank(data.features, data.labels, data.n_classes, fit_rows_per_fold, penalty)
        shared_seconds = (time.perf_counter() - start_time) / len(indices) / len(fit_rows_per_fold)
        max_columns = _count_columns(data, max(hyperparameter_sets[index]["fraction"] for index in indices))
        for fold, ranking in zip(data.folds, rankings, strict=True):
            selected = group_lasso.gather(data.features, ranking.order[:max_columns])
            for fraction, member_indices in _group_by_option(indices, hyperparameter_sets, "fraction").items():
                fold_data = _replace_features(data, selected[:, : _count_columns(data, fraction)], (fold,))
                scores = logreg.cross_validate(
                    fold_data, [{"C": hyperparameter_sets[index]["C"]} for index in member_indices], seed
                )
                for index, score in zip(member_indices, scores, strict=True):
                    converged = ranking.converged and bool(score.detail.get("converged", True))
                    fold_scores[index].append(
                        _add_fit_info(
                            score, shared_seconds, {"columns": fold_data.features.shape[1], "converged": converged}
                        )
                    )
    counts = [len(np.unique(data.images[score_rows])) for _, score_rows in data.folds]
    return [_merge_scores(fold_scores[index], counts) for index in range(len(hyperparameter_sets))]


def fit(
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    fit_info: Mapping[str, Any],
    class_names: Sequence[str],
    seed: int,
) -> Head:
    """The head with columns ranked on, and fitted on, all rows; the scaler is folded in."""
    rows = np.arange(len(data.labels))
    (ranking,) = group_lasso.rank(data.features, data.labels, data.n_classes, [rows], hyperparameters["penalty"])
    columns = np.sort(ranking.order[: _count_columns(data, hyperparameters["fraction"])])
    selected_data = _replace_features(data, group_lasso.gather(data.features, columns), ())
    head = logreg.fit(selected_data, {"C": hyperparameters["C"]}, fit_info, class_names, seed)
    return Head((SelectColumns(columns.astype(np.int32)), *head.layers), head.class_names)


def _group_by_option(
    indices: Sequence[int], hyperparameter_sets: Sequence[Mapping[str, Any]], option: str
) -> dict[float, list[int]]:
    """The places by the value of an option."""
    groups: dict[float, list[int]] = {}
    for index in indices:
        groups.setdefault(hyperparameter_sets[index][option], []).append(index)
    return groups


def _count_columns(data: TrainingData, fraction: float) -> int:
    return max(1, round(fraction * data.features.shape[1]))


def _replace_features(
    data: TrainingData, features: np.ndarray, folds: tuple[tuple[np.ndarray, np.ndarray], ...]
) -> TrainingData:
    return TrainingData(FeatureMatrix.from_array(features), data.labels, data.n_classes, folds, data.images, data.threads)


def _add_fit_info(score: Score, seconds: float, fit_info: Mapping[str, Any]) -> Score:
    return Score(score.accuracy, score.log_loss, score.folds, score.seconds + seconds, score.right, fit_info)


def _merge_scores(fold_scores: Sequence[Score], counts: Sequence[int]) -> Score:
    """One score of those of each fold, which holds out `counts` images, as `Problem.score` has it."""
    correct = np.bitwise_or.reduce([np.frombuffer(bytes.fromhex(fold_score.right), np.uint8) for fold_score in fold_scores])
    return Score(
        accuracy=float(np.unpackbits(correct).sum() / sum(counts)),
        log_loss=float(np.average([fold_score.log_loss for fold_score in fold_scores], weights=counts)),
        folds=tuple(fold_score.accuracy for fold_score in fold_scores),
        seconds=sum(fold_score.seconds for fold_score in fold_scores),
        right=correct.tobytes().hex(),
        detail={
            "columns": fold_scores[0].detail["columns"],
            "converged": all(fold_score.detail["converged"] for fold_score in fold_scores),
        },
    )
