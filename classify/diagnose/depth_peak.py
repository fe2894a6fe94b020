"""Where along the depth of a network the accuracy peaks, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..evaluate import significance
from ..evaluate.trial import Score, Source, Trial, ranked

BEFORE_THE_END = 0.75  # share of the forward cost below which a peak lies well before the end
_LEVEL = 0.01  # of accuracy: so much less is no less, however many images tell it apart


@dataclass(frozen=True)
class Peak:
    """The best of the taps of one network, each with its best head and pool, and which others are as good.

    depth: share of the forward cost up to it. taps: how many layers were tried, from `first` to `last` of the forward cost.
    level: the depths between which layers lie that are not told apart from the best one: their paired 95 % interval holds 0,
    or they are less than a point behind. rival: how far the best layer on the other side of `BEFORE_THE_END` is behind, with
    that interval; None where none was tried.
    place: `end` where the level layers all lie in the last quarter of the forward cost and some layer before it was tried,
    `early` where they all lie before it and some layer in it was tried, `unsure` where they lie on both sides, and
    `unknown` where layers were tried on one side only. As every paired comparison with the best of many it is a little
    optimistic, see `paired.compare`.
    """

    backbone: str
    extraction: str
    layer: str
    depth: float
    accuracy: float
    taps: int
    first: float
    last: float
    level: tuple[float, float]
    rival: tuple[float, float, float] | None
    place: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "level": list(self.level), "rival": None if self.rival is None else list(self.rival)}


def peaks(
    depth: Mapping[Source, float | None], scores: Mapping[Trial, Score], images: int, groups: np.ndarray | None = None
) -> dict[str, Peak]:
    """The peak of each network, by its extraction; without those of whose taps no depth is known.

    depth: of each source. images: how many were scored for choosing; groups: as in `paired.compare`. Heads on several taps
    side by side have no depth and do not count.
    """
    best: dict[str, dict[str, Trial]] = {}
    for trial in ranked(scores):
        if len(trial.sources) == 1 and depth.get(trial.sources[0]) is not None:
            (source,) = trial.sources
            best.setdefault(source.extraction, {}).setdefault(source.layer, trial)
    return {name: _peak(list(layers.values()), depth, scores, images, groups) for name, layers in best.items()}


def _peak(
    trials: list[Trial],
    depth: Mapping[Source, float | None],
    scores: Mapping[Trial, Score],
    images: int,
    groups: np.ndarray | None,
) -> Peak:
    """The peak of one network's layers, whose best trials are given best first."""
    depths = {trial: float(depth[trial.sources[0]] or 0.0) for trial in trials}
    best = trials[0]
    late = depths[best] >= BEFORE_THE_END
    rival = next((trial for trial in trials if (depths[trial] >= BEFORE_THE_END) != late), best)
    behind = {trial: _behind(best, trial, scores, images, groups) for trial in trials[1:]}
    level = [depths[best]]
    level += [depths[trial] for trial, (difference, low, _) in behind.items() if low <= 0 or difference < _LEVEL]
    (source,) = best.sources
    return Peak(
        backbone=source.backbone,
        extraction=source.extraction,
        layer=source.layer,
        depth=depths[best],
        accuracy=scores[best].accuracy,
        taps=len(trials),
        first=min(depths.values()),
        last=max(depths.values()),
        level=(min(level), max(level)),
        rival=behind.get(rival),
        place=_place(level, list(depths.values())),
    )


def _behind(
    best: Trial, other: Trial, scores: Mapping[Trial, Score], images: int, groups: np.ndarray | None
) -> tuple[float, float, float]:
    """How far the other is behind the best in accuracy, with its paired 95 % interval."""
    compared = significance.compare({best: scores[best], other: scores[other]}, images, groups)
    assert compared is not None  # they are on different layers
    return compared.difference, *compared.difference_95


def _place(level: list[float], depths: list[float]) -> str:
    late = {value >= BEFORE_THE_END for value in level}
    if len({value >= BEFORE_THE_END for value in depths}) < 2:
        return "unknown"
    if len(late) == 2:
        return "unsure"
    return "end" if late == {True} else "early"
