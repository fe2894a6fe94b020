"""The trials, best first."""

from __future__ import annotations

import numpy as np

from . import text
from .evidence import Evidence
from .section import Part, Section, Table, Text

_ROWS = 200


def section(evidence: Evidence) -> Section:
    """The best trials as a table that is sorted and filtered, and how many more there are."""
    if not evidence.ranked:
        return Section("leaderboard", "Leaderboard", [Text("No trial has ended.")])
    rows = []
    for rank, trial in enumerate(evidence.ranked[:_ROWS], start=1):
        score = evidence.scores[trial]
        spread = float(np.std(score.folds)) if len(score.folds) > 1 else None
        backbones = " + ".join(dict.fromkeys(source.backbone for source in trial.sources))
        scores = [score.accuracy, spread, score.log_loss]
        where = [trial.head, text.setting(trial), text.taps(trial.sources, False), backbones]
        rows.append([rank, *scores, *where, f"{score.seconds:.2f}", trial.id])
    header = ["rank", "accuracy", "std of folds", "log-loss", "head", "setting", "tap", "backbone", "seconds", "trial"]
    more = len(evidence.ranked) - len(rows)
    words = (
        "Among the settings of one head at one tap the lowest log-loss comes first; heads and taps are then ordered by "
        "accuracy. These are scores on the images that choosing was done by, not on the test images. Any of them becomes a "
        "model with --trial and its id."
    )
    parts: list[Part] = [
        Text(words),
        Table(f"The best {len(rows)} of {len(evidence.ranked)} trials", header, rows, digits=4, sortable=True),
        *([Text(f"{more} more are in leaderboard.csv.")] if more > 0 else []),
    ]
    return Section("leaderboard", "Leaderboard", parts)
