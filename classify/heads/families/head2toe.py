"""Head2Toe: select the strongest columns of all taps by a group lasso, and fit logistic regression on them.

Evci, Dumoulin, Larochelle and Mozer, "Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning"
(2022). Columns are ranked inside each fold, on its training rows only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...data.feature_matrix import FeatureMatrix
from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily
from ..layers import SelectColumns
from ..linear import group_lasso
from ..options import NumberOption, Option
from ..training_data import TrainingData
from .logreg import LogisticRegression

_LOGREG = LogisticRegression()


class Head2Toe(HeadFamily):
    """Logistic regression on the strongest columns of all taps.

    Options
    -------
    penalty
        Penalty of the group lasso, as a fraction of the smallest one that drops every column.
    fraction
        Fraction of the columns that is kept, strongest first.
    C
        Inverse regularization strength of the logistic regression on these columns.
    """

    name = "head2toe"
    title = "Head2Toe"
    options: Mapping[str, Option] = {
        "penalty": NumberOption((0.2,), maximum=1, exclusive=True),
        "fraction": NumberOption((0.01, 0.03, 0.1, 0.3), maximum=1, exclusive=True),
        "C": NumberOption((0.001, 0.01, 0.1), exclusive=True),
    }
    uses_all_taps = True

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score all hyperparameters: one ranking for each penalty, and one selection of columns for each fraction.

        Peak memory is that of `group_lasso.rank`, and then the kept columns of every row, for one fold at a time.
        ``fit_info`` has the number of ``columns`` kept, and whether everything ``converged``.
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
                    grid = [{"C": hyperparameter_sets[index]["C"]} for index in member_indices]
                    for index, score in zip(member_indices, _LOGREG.cross_validate(fold_data, grid, seed), strict=True):
                        converged = ranking.converged and bool(score.fit_info.get("converged", True))
                        fit_info = {"columns": fold_data.features.shape[1], "converged": converged}
                        fold_scores[index].append(_add_fit_info(score, shared_seconds, fit_info))
        counts = [len(np.unique(data.images[score_rows])) for _, score_rows in data.folds]
        return [_merge_scores(fold_scores[index], counts) for index in range(len(hyperparameter_sets))]

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Rank the columns on all rows, and fit on the strongest; the scaler is folded into the weights."""
        rows = np.arange(len(data.labels))
        (ranking,) = group_lasso.rank(data.features, data.labels, data.n_classes, [rows], hyperparameters["penalty"])
        columns = np.sort(ranking.order[: _count_columns(data, hyperparameters["fraction"])])
        selected_data = _replace_features(data, group_lasso.gather(data.features, columns), ())
        head = _LOGREG.fit(selected_data, {"C": hyperparameters["C"]}, fit_info, seed)
        return Head((SelectColumns(columns.astype(np.int32)), *head.layers), head.class_names)


def _group_by_option(
    indices: Sequence[int], hyperparameter_sets: Sequence[Mapping[str, Any]], option: str
) -> dict[float, list[int]]:
    """Group indices by the value of an option."""
    groups: dict[float, list[int]] = {}
    for index in indices:
        groups.setdefault(hyperparameter_sets[index][option], []).append(index)
    return groups


def _count_columns(data: TrainingData, fraction: float) -> int:
    return max(1, round(fraction * data.features.shape[1]))


def _replace_features(
    data: TrainingData, features: np.ndarray, folds: tuple[tuple[np.ndarray, np.ndarray], ...]
) -> TrainingData:
    return TrainingData(FeatureMatrix.from_array(features), data.labels, data.target, folds, data.images, data.threads)


def _add_fit_info(score: Score, seconds: float, fit_info: Mapping[str, Any]) -> Score:
    return Score(score.accuracy, score.log_loss, score.folds, score.seconds + seconds, score.correct, fit_info)


def _merge_scores(fold_scores: Sequence[Score], counts: Sequence[int]) -> Score:
    """Merge the scores of single folds, with `counts` held-out images each, into the score of all folds."""
    correct = np.bitwise_or.reduce(
        [np.frombuffer(bytes.fromhex(fold_score.correct), np.uint8) for fold_score in fold_scores]
    )
    return Score(
        accuracy=float(np.unpackbits(correct).sum() / sum(counts)),
        log_loss=float(np.average([fold_score.log_loss for fold_score in fold_scores], weights=counts)),
        folds=tuple(fold_score.accuracy for fold_score in fold_scores),
        seconds=sum(fold_score.seconds for fold_score in fold_scores),
        correct=correct.tobytes().hex(),
        fit_info={
            "columns": fold_scores[0].fit_info["columns"],
            "converged": all(fold_score.fit_info["converged"] for fold_score in fold_scores),
        },
    )
