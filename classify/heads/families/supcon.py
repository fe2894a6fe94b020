"""Projections trained with the supervised contrastive loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...evaluate.trial import Score
from ..head import Head
from ..neural import metric_learning, metric_losses
from ..neural.embedding import EmbeddingLoss
from ..options import NumberOption, Option
from ..training_data import TrainingData

OPTIONS: dict[str, Option] = {"temperature": NumberOption((0.1,), float, 0, exclusive=True)}
# What a search draws from where nothing is said.
SPACE = {"embedding": "32/64/128", "hidden": "0/256", "learning_rate": "3e-4..1e-2", "temperature": "0.05..0.5"}

groups = metric_learning.groups


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try; temperature: see `embedding_losses.supervised_contrastive`, the others `projection.settings`."""
    return metric_learning.settings("supcon", OPTIONS, options)


def check(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> None:
    """Raise `HeadError` where a setting cannot be trained in the memory there is."""
    metric_learning.check("supcon", data, hyperparameter_sets)


def cross_validate(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting; see `projection.cross_validate`."""
    return metric_learning.cross_validate(data, hyperparameter_sets, _build_loss, seed)


def fit(
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    fit_info: Mapping[str, Any],
    class_names: Sequence[str],
    seed: int,
) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs."""
    return metric_learning.fit(data, hyperparameters, fit_info, _build_loss(hyperparameters), class_names, seed)


def _build_loss(hyperparameters: Mapping[str, Any]) -> EmbeddingLoss:
    def loss(labels: Any, embeddings: Any) -> Any:
        return metric_losses.supervised_contrastive_loss(labels, embeddings, hyperparameters["temperature"])

    return loss
