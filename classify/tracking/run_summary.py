"""What is logged of a run, the same for every tracker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.formatting import to_printable
from ..evaluate.trial import Score, Trial
from ..runs.data_summary import DataSummary
from ..runs.run import Run

_VALIDATION_PREFIX = "val_"  # Keras's prefix for curves on held-out images


def get_data_name(data: DataSummary) -> str:
    """Return the name of the data of a run, on one line: its folder, or the name of a Keras data set."""
    source = data.try_open()
    name = Path(data.root).name if source is None else source.title
    return to_printable(name) or "humeris"


def get_end_time(run: Run) -> float:
    """Return when the sweep ended, in seconds since 1970."""
    return (run.path / "run.json").stat().st_mtime


def collect_hyperparameters(trial: Trial) -> dict[str, bool | float | str]:
    """Return the hyperparameters of a trial by name: options of the head, the head and its features; text is on one line."""
    hyperparameters: dict[str, Any] = {
        **trial.hyperparameters,
        "head": trial.head,
        "backbone": " + ".join(dict.fromkeys(tap_ref.backbone for tap_ref in trial.tap_refs)),
        "layer": " + ".join(tap_ref.layer for tap_ref in trial.tap_refs),
        "pool": " + ".join(dict.fromkeys(tap_ref.pool for tap_ref in trial.tap_refs)),
    }
    return {
        name: value if isinstance(value, bool | int | float) else to_printable(value)
        for name, value in hyperparameters.items()
    }


def collect_scores(score: Score) -> dict[str, float]:
    """Return the scores of a trial on the held-out images; `accuracy_std` is over the folds."""
    score_values = {
        "accuracy": score.accuracy,
        "log_loss": score.log_loss,
        "accuracy_std": float(np.std(score.folds)),
        "seconds": score.seconds,
    }
    return score_values | ({"best_epoch": score.fit_info["epochs"]} if "epochs" in score.fit_info else {})


def collect_test_scores(run: Run) -> dict[str, float]:
    """Return the scores of the winner on the test split: every number in `run.json`, with the bounds of 95 % intervals."""
    test_scores: dict[str, float] = {}
    for name, value in vars(run.result.test).items():
        if _is_number(value):
            test_scores[f"test_{name}"] = value
        elif name.endswith("_95") and value is not None:
            test_scores |= {f"test_{name}_low": value[0], f"test_{name}_high": value[1]}
    return test_scores


def collect_curves(score: Score) -> dict[str, dict[str, list[float]]]:
    """Return the curves of a head trained by epochs, for `train` and `validation`, by name; {} if it has none.

    `loss` of an MLP is the log-loss on both; that of a metric-learning head on `train` is the loss that it minimizes.
    """
    curves_by_side: dict[str, dict[str, list[float]]] = {}
    history: Mapping[str, list[float]] = score.fit_info.get("curves") or {}
    for name, curve in history.items():
        side = "validation" if name.startswith(_VALIDATION_PREFIX) else "train"
        curves_by_side.setdefault(side, {})[name.removeprefix(_VALIDATION_PREFIX)] = curve
    return curves_by_side


def estimate_epoch_times(end_time: float, score: Score, n_epochs: int) -> list[float]:
    """Return when each of `n_epochs` epochs of a trial ended, if it ended at `end_time` and all took equally long."""
    return [end_time - score.seconds * (n_epochs - 1 - epoch) / n_epochs for epoch in range(n_epochs)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
