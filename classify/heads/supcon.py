"""Projections trained with the supervised contrastive loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..head import Head
from ..problem import Problem
from ..trial import Score
from . import embedding_losses, projection
from .embedding import Loss
from .options import Numbers, Option

OPTIONS: dict[str, Option] = {"temperature": Numbers((0.1,), float, 0, open=True)}
# What a search draws from where nothing is said.
SPACE = {"embedding": "32/64/128", "hidden": "0/256", "learning_rate": "3e-4..1e-2", "temperature": "0.05..0.5"}

groups = projection.groups


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try; temperature: see `embedding_losses.supervised_contrastive`, the others `projection.settings`."""
    return projection.settings("supcon", OPTIONS, options)


def check(problem: Problem, tried: Sequence[Mapping[str, Any]]) -> None:
    """Raise `HeadError` where a setting cannot be trained in the memory there is."""
    projection.check("supcon", problem, tried)


def cross_validate(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting; see `projection.cross_validate`."""
    return projection.cross_validate(problem, tried, _loss, seed)


def fit(problem: Problem, setting: Mapping[str, Any], detail: Mapping[str, Any], classes: Sequence[str], seed: int) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs."""
    return projection.fit(problem, setting, detail, _loss(setting), classes, seed)


def _loss(setting: Mapping[str, Any]) -> Loss:
    def loss(labels: Any, embeddings: Any) -> Any:
        return embedding_losses.supervised_contrastive(labels, embeddings, setting["temperature"])

    return loss
