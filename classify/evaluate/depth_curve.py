"""How good each head is on each source, from the first layers of the backbones to the last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data.tap_ref import TapRef
from .trial import Score, Trial, rank_trials


def compute_depth_curve(tap_entries: Sequence[Mapping[str, Any]], scores: Mapping[Trial, Score]) -> list[dict[str, Any]]:
    """The best trial of each head on each source, in the order of `tap_entries`, and then on several side by side.

    tap_entries: as `run.json` has them, each with its depth. A value is JSON; `rank` is its place among all of them.
    """
    depth_by_tap = {_parse_tap_ref(entry): entry["depth"] for entry in tap_entries}
    order = {tap_ref: number for number, tap_ref in enumerate(depth_by_tap)}
    heads = list(dict.fromkeys(trial.head for trial in scores))
    grouped_scores: dict[tuple[tuple[TapRef, ...], str], dict[Trial, Score]] = {}
    for trial, score in scores.items():
        grouped_scores.setdefault((trial.tap_refs, trial.head), {})[trial] = score
    sorted_keys = sorted(grouped_scores, key=lambda key: (len(key[0]), [order[tap] for tap in key[0]], heads.index(key[1])))
    curve = [_build_point(rank_trials(grouped_scores[key]), grouped_scores[key], depth_by_tap) for key in sorted_keys]
    trial_ranks = {trial.id: number for number, trial in enumerate(rank_trials(scores))}
    for rank, entry in enumerate(sorted(curve, key=lambda entry: trial_ranks[entry["trial"]]), start=1):
        entry["rank"] = rank
    return curve


def _build_point(
    trials: Sequence[Trial], scores: Mapping[Trial, Score], depth_by_tap: Mapping[TapRef, float | None]
) -> dict[str, Any]:
    """The first of the trials of one head on the same taps, best first, and what there is to say of the others."""
    best, taps = trials[0], trials[0].tap_refs
    score = scores[best]
    return {
        "backbone": " + ".join(dict.fromkeys(tap.backbone for tap in taps)),
        "extraction": " + ".join(dict.fromkeys(tap.extraction for tap in taps)),
        "layer": " + ".join(tap.layer for tap in taps),
        "pool": " + ".join(tap.pool for tap in taps),
        "depth": depth_by_tap[taps[0]] if len(taps) == 1 else None,
        "taps": [str(tap) for tap in taps],
        "trial": best.id,
        "head": best.head,
        "setting": dict(best.hyperparameters),
        "accuracy": score.accuracy,
        "std": float(np.std(score.folds)),
        "log_loss": score.log_loss,
        "varied": _list_varied_options([trial.hyperparameters for trial in trials]),
        "settings": len(trials),
        "seconds": sum(scores[each].seconds for each in trials),
    }


def _parse_tap_ref(value: Mapping[str, Any]) -> TapRef:
    return TapRef(**{name: value[name] for name in ("backbone", "extraction", "layer", "pool")})


def _list_varied_options(hyperparameter_sets: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options in which settings differ."""
    return [
        name
        for name in hyperparameter_sets[0]
        if len({json.dumps(hyperparameters.get(name)) for hyperparameters in hyperparameter_sets}) > 1
    ]
