"""The depth of a network at which accuracy peaks, and how certain that is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...extract.backbones.tap_ref import TapRef
from ..evaluate import significance
from ..evaluate.trial import Score, Trial, rank_trials
from ..runs.advice import Peak

LATE_DEPTH = 0.75  # fraction of the forward cost from which on a peak is at the end of the network
_TIE_MARGIN = 0.01  # of accuracy: smaller differences count as ties, even if they are significant


def find_peaks(
    depth_by_tap: Mapping[TapRef, float | None],
    scores: Mapping[Trial, Score],
    n_images: int,
    groups: np.ndarray | None = None,
) -> dict[str, Peak]:
    """Find the peak of each network, by its extraction; networks without known depths are left out.

    Parameters
    ----------
    depth_by_tap : mapping of TapRef to float or None
        Depth of each tap, None if unknown.
    scores : mapping of Trial to Score
        All trials. Heads on several taps side by side have no depth and are ignored.
    n_images : int
        Number of images that trials were scored on.
    groups : ndarray, optional
        As in `compare_with_runner_up`.

    Returns
    -------
    dict of str to Peak
        The peak of each network.
    """
    best_trials: dict[str, dict[str, Trial]] = {}
    for trial in rank_trials(scores):
        if len(trial.tap_refs) == 1 and depth_by_tap.get(trial.tap_refs[0]) is not None:
            (tap_ref,) = trial.tap_refs
            best_trials.setdefault(tap_ref.extraction, {}).setdefault(tap_ref.layer, trial)
    return {
        name: _find_peak(list(layers.values()), depth_by_tap, scores, n_images, groups)
        for name, layers in best_trials.items()
    }


def _find_peak(
    trials: list[Trial],
    depth_by_tap: Mapping[TapRef, float | None],
    scores: Mapping[Trial, Score],
    n_images: int,
    groups: np.ndarray | None,
) -> Peak:
    """Return the peak of one network's layers, given their best trials in descending order."""
    depths = {trial: float(depth_by_tap[trial.tap_refs[0]] or 0.0) for trial in trials}
    best = trials[0]
    best_is_late = depths[best] >= LATE_DEPTH
    rival_trial = next((trial for trial in trials if (depths[trial] >= LATE_DEPTH) != best_is_late), best)
    difference_by_trial = {trial: _compare_with_best(best, trial, scores, n_images, groups) for trial in trials[1:]}
    tied_depths = [depths[best]]
    tied_depths += [
        depths[trial] for trial, (difference, low, _) in difference_by_trial.items() if low <= 0 or difference < _TIE_MARGIN
    ]
    (tap_ref,) = best.tap_refs
    return Peak(
        backbone=tap_ref.backbone,
        extraction=tap_ref.extraction,
        layer=tap_ref.layer,
        depth=depths[best],
        accuracy=scores[best].accuracy,
        n_layers=len(trials),
        shallowest=min(depths.values()),
        deepest=max(depths.values()),
        tied_range=(min(tied_depths), max(tied_depths)),
        gap_to_rival=difference_by_trial.get(rival_trial),
        position=_classify_position(tied_depths, list(depths.values())),
    )


def _compare_with_best(
    best: Trial, other: Trial, scores: Mapping[Trial, Score], n_images: int, groups: np.ndarray | None
) -> tuple[float, float, float]:
    """Return how far the other trial is behind the best in accuracy, with its paired 95 % interval."""
    correct, other_correct = significance.unpack_correct(scores[best]), significance.unpack_correct(scores[other])
    comparison = significance.compare_predictions(best.id, other.id, correct, other_correct, n_images, groups)
    return comparison.difference, *comparison.difference_95


def _classify_position(tied_depths: list[float], depths: list[float]) -> str:
    tied_sides = {value >= LATE_DEPTH for value in tied_depths}
    if len({value >= LATE_DEPTH for value in depths}) < 2:
        return "unknown"
    if len(tied_sides) == 2:
        return "unsure"
    return "end" if tied_sides == {True} else "early"
