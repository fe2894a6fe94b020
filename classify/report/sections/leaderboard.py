"""The trials, best first."""

from __future__ import annotations

import numpy as np

from .. import wording
from ..blocks import Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MAX_ROWS = 200


def build_section(snapshot: RunSnapshot) -> Section:
    """The best trials as a table that is sorted and filtered, and how many more there are."""
    if not snapshot.ranked_trials:
        return Section("leaderboard", "Leaderboard", [Text("No trial has ended.")])
    varied_options = {
        head: wording.list_varied_options(snapshot, head) for head in {trial.head for trial in snapshot.ranked_trials}
    }
    rows = []
    for rank, trial in enumerate(snapshot.ranked_trials[:_MAX_ROWS], start=1):
        score = snapshot.scores[trial]
        spread = float(np.std(score.folds)) if len(score.folds) > 1 else None
        backbones = " + ".join(dict.fromkeys(tap_ref.backbone for tap_ref in trial.tap_refs))
        trial_cells = [
            trial.head,
            wording.format_hyperparameters(trial, varied_options[trial.head]),
            wording.format_taps(trial.tap_refs, False),
        ]
        rows.append(
            [rank, score.accuracy, *trial_cells, score.log_loss, spread, backbones, f"{score.seconds:.2f}", trial.id]
        )
    header = ["rank", "accuracy", "head", "setting", "tap", "log-loss", "std of folds", "backbone", "seconds", "trial"]
    n_more = len(snapshot.ranked_trials) - len(rows)
    words = (
        "Among the settings of one head at one tap the lowest log-loss comes first; heads and taps are then ordered by "
        "accuracy. These are scores on the images that choosing was done by, not on the test images. Any of them becomes a "
        "model with --trial and its id. Of a setting there is what was varied; leaderboard.csv has all of it."
    )
    parts: list[Part] = [
        Text(words),
        Table(f"The best {len(rows)} of {len(snapshot.ranked_trials)} trials", header, rows, digits=4, sortable=True),
        *([Text(f"{n_more} more are in leaderboard.csv.")] if n_more > 0 else []),
    ]
    return Section("leaderboard", "Leaderboard", parts)
