"""How good each head is on each source, from the first layers of the backbones to the last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .trial import Score, Source, Trial, ranked


def depth_curve(sources: Sequence[Mapping[str, Any]], scores: Mapping[Trial, Score]) -> list[dict[str, Any]]:
    """The best trial of each head on each source, in the order of `sources`, and then on several side by side.

    sources: as `run.json` has them, each with its depth. A value is JSON; `rank` is its place among all of them.
    """
    depth = {_source(each): each["depth"] for each in sources}
    order = {source: number for number, source in enumerate(depth)}
    heads = list(dict.fromkeys(trial.head for trial in scores))
    tried: dict[tuple[tuple[Source, ...], str], dict[Trial, Score]] = {}
    for trial, score in scores.items():
        tried.setdefault((trial.sources, trial.head), {})[trial] = score
    along = sorted(tried, key=lambda key: (len(key[0]), [order[tap] for tap in key[0]], heads.index(key[1])))
    curve = [_point(ranked(tried[key]), tried[key], depth) for key in along]
    place = {trial.id: number for number, trial in enumerate(ranked(scores))}
    for rank, each in enumerate(sorted(curve, key=lambda each: place[each["trial"]]), start=1):
        each["rank"] = rank
    return curve


def _point(trials: Sequence[Trial], scores: Mapping[Trial, Score], depth: Mapping[Source, float | None]) -> dict[str, Any]:
    """The first of the trials of one head on the same taps, best first, and what there is to say of the others."""
    best, taps = trials[0], trials[0].sources
    score = scores[best]
    return {
        "backbone": " + ".join(dict.fromkeys(tap.backbone for tap in taps)),
        "extraction": " + ".join(dict.fromkeys(tap.extraction for tap in taps)),
        "layer": " + ".join(tap.layer for tap in taps),
        "pool": " + ".join(tap.pool for tap in taps),
        "depth": depth[taps[0]] if len(taps) == 1 else None,
        "taps": [str(tap) for tap in taps],
        "trial": best.id,
        "head": best.head,
        "setting": dict(best.setting),
        "accuracy": score.accuracy,
        "std": float(np.std(score.folds)),
        "log_loss": score.log_loss,
        "varied": _varied([trial.setting for trial in trials]),
        "settings": len(trials),
        "seconds": sum(scores[each].seconds for each in trials),
    }


def _source(value: Mapping[str, Any]) -> Source:
    return Source(**{name: value[name] for name in ("backbone", "extraction", "layer", "pool")})


def _varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options in which settings differ."""
    return [name for name in settings[0] if len({json.dumps(setting.get(name)) for setting in settings}) > 1]
