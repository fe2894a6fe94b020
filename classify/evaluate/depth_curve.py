"""Accuracy by depth: the best trial of each head on each tap, from the first layers of the backbones to the last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...extract.backbones.tap_ref import TapRef
from .trial import Score, Trial, rank_trials


@dataclass(frozen=True)
class DepthPoint:
    """The best trial of one head on one tap, or on several side by side.

    depth: fraction of the forward cost up to the tap; None for several taps, or if unknown. std: of the folds'
    accuracies. varied: the options in which the trials of this head on these taps differ. seconds: total of all of them.
    rank: among all points, 1 for the best.
    """

    backbone: str
    extraction: str
    layer: str
    pool: str
    depth: float | None
    taps: tuple[str, ...]
    trial: str
    head: str
    hyperparameters: Mapping[str, Any]
    accuracy: float
    std: float
    log_loss: float
    varied: tuple[str, ...]
    n_hyperparameter_sets: int
    seconds: float
    rank: int


def compute_depth_curve(
    depth_by_tap: Mapping[TapRef, float | None], scores: Mapping[Trial, Score]
) -> tuple[DepthPoint, ...]:
    """Return the best trial of each head on each tap, in the order of `depth_by_tap`.

    The best trials on several taps side by side follow.
    """
    order = {tap_ref: number for number, tap_ref in enumerate(depth_by_tap)}
    heads = list(dict.fromkeys(trial.head for trial in scores))
    ranked_trials = rank_trials(scores)
    grouped_trials: dict[tuple[tuple[TapRef, ...], str], list[Trial]] = {}
    for trial in ranked_trials:
        grouped_trials.setdefault((trial.tap_refs, trial.head), []).append(trial)
    sorted_keys = sorted(grouped_trials, key=lambda key: (len(key[0]), [order[tap] for tap in key[0]], heads.index(key[1])))
    ranks = {key: rank for rank, key in enumerate(grouped_trials, start=1)}
    return tuple(_build_point(grouped_trials[key], scores, depth_by_tap, ranks[key]) for key in sorted_keys)


def _build_point(
    trials: Sequence[Trial], scores: Mapping[Trial, Score], depth_by_tap: Mapping[TapRef, float | None], rank: int
) -> DepthPoint:
    """Return the point of the first trial, given the trials of one head on the same taps, best first."""
    best, taps = trials[0], trials[0].tap_refs
    score = scores[best]
    return DepthPoint(
        backbone=" + ".join(dict.fromkeys(tap.backbone for tap in taps)),
        extraction=" + ".join(dict.fromkeys(tap.extraction for tap in taps)),
        layer=" + ".join(tap.layer for tap in taps),
        pool=" + ".join(tap.pool for tap in taps),
        depth=depth_by_tap[taps[0]] if len(taps) == 1 else None,
        taps=tuple(map(str, taps)),
        trial=best.id,
        head=best.head,
        hyperparameters=dict(best.hyperparameters),
        accuracy=score.accuracy,
        std=float(np.std(score.folds)),
        log_loss=score.log_loss,
        varied=_list_varied_options([trial.hyperparameters for trial in trials]),
        n_hyperparameter_sets=len(trials),
        seconds=sum(scores[each].seconds for each in trials),
        rank=rank,
    )


def _list_varied_options(hyperparameter_sets: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the options in which sets of hyperparameters differ."""
    return tuple(
        name
        for name in hyperparameter_sets[0]
        if len({json.dumps(hyperparameters.get(name)) for hyperparameters in hyperparameter_sets}) > 1
    )
