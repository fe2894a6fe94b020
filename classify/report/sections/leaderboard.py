"""The trials, best first."""

from __future__ import annotations

import numpy as np

from .. import wording
from ..blocks import Part, Section, Table, Text
from ..run_snapshot import Evidence

_ROWS = 200


def section(evidence: Evidence) -> Section:
    """The best trials as a table that is sorted and filtered, and how many more there are."""
    if not evidence.ranked:
        return Section("leaderboard", "Leaderboard", [Text("No trial has ended.")])
    varied = {head: wording.varied(evidence, head) for head in {trial.head for trial in evidence.ranked}}
    rows = []
    for rank, trial in enumerate(evidence.ranked[:_ROWS], start=1):
        score = evidence.scores[trial]
        spread = float(np.std(score.folds)) if len(score.folds) > 1 else None
        backbones = " + ".join(dict.fromkeys(source.backbone for source in trial.sources))
        what = [trial.head, wording.setting(trial, varied[trial.head]), wording.taps(trial.sources, False)]
        rows.append([rank, score.accuracy, *what, score.log_loss, spread, backbones, f"{score.seconds:.2f}", trial.id])
    header = ["rank", "accuracy", "head", "setting", "tap", "log-loss", "std of folds", "backbone", "seconds", "trial"]
    more = len(evidence.ranked) - len(rows)
    words = (
        "Among the settings of one head at one tap the lowest log-loss comes first; heads and taps are then ordered by "
        "accuracy. These are scores on the images that choosing was done by, not on the test images. Any of them becomes a "
        "model with --trial and its id. Of a setting there is what was varied; leaderboard.csv has all of it."
    )
    parts: list[Part] = [
        Text(words),
        Table(f"The best {len(rows)} of {len(evidence.ranked)} trials", header, rows, digits=4, sortable=True),
        *([Text(f"{more} more are in leaderboard.csv.")] if more > 0 else []),
    ]
    return Section("leaderboard", "Leaderboard", parts)
