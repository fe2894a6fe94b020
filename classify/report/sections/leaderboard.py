"""The leaderboard: the trials, best first."""

from __future__ import annotations

import numpy as np

from .. import wording
from ..blocks import Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MAX_ROWS = 200


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: the best trials as a sortable table, and how many more there are."""
    if not snapshot.ranked_trials:
        return Section("leaderboard", "Leaderboard", [Text("No trial has finished.")])
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
    header = ["rank", "accuracy", "head", "hyperparameters", "tap", "log-loss", "std of folds", "backbone"]
    header += ["seconds", "trial"]
    n_more = len(snapshot.ranked_trials) - len(rows)
    introduction = (
        f"Scores are computed {wording.format_selection(snapshot)}, not on the test split. Trials of one head and tap are "
        "ranked by log-loss, heads and taps by the accuracy of their best trial. Only hyperparameters that vary are shown; "
        "leaderboard.csv has all of them. Any trial can be exported with --trial ID."
    )
    parts: list[Part] = [
        Text(introduction),
        Table(f"Best {len(rows)} of {len(snapshot.ranked_trials)} trials", header, rows, digits=4, sortable=True),
        *([Text(f"{n_more} more trials are in leaderboard.csv.")] if n_more > 0 else []),
    ]
    return Section("leaderboard", "Leaderboard", parts)
