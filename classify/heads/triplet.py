"""Projections trained on triplets: an anchor nearer to a row of its class than to one of another, by a margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..head import Head
from ..problem import Problem
from ..trial import Score
from . import embedding_losses, projection
from .embedding import Loss
from .options import Numbers, Option

OPTIONS: dict[str, Option] = {"margin": Numbers((0.2,), float, 0, open=True)}
# What a search draws from where nothing is said.
SPACE = {"embedding": "32/64/128", "hidden": "0/256", "learning_rate": "3e-4..1e-2", "margin": "0.05..0.5"}

groups = projection.groups


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try; margin: see `embedding_losses.triplet`, the others `projection.settings`."""
    return projection.settings("triplet", OPTIONS, options)


def check(problem: Problem, tried: Sequence[Mapping[str, Any]]) -> None:
    """Raise `HeadError` where a setting cannot be trained in the memory there is."""
    projection.check("triplet", problem, tried)


def cross_validate(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting; see `projection.cross_validate`."""
    return projection.cross_validate(problem, tried, _loss, seed)


def fit(problem: Problem, setting: Mapping[str, Any], detail: Mapping[str, Any], classes: Sequence[str], seed: int) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs."""
    return projection.fit(problem, setting, detail, _loss(setting), classes, seed)


def _loss(setting: Mapping[str, Any]) -> Loss:
    def loss(labels: Any, embeddings: Any) -> Any:
        return embedding_losses.triplet(labels, embeddings, setting["margin"])

    return loss
