"""What is logged of a run, whatever it is logged to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.formatting import to_printable
from ..evaluate.trial import Score, Trial
from ..runs.data_summary import DataSummary
from ..runs.run import Run

_VALIDATION_PREFIX = "val_"  # what Keras calls a curve of images held out


def get_data_name(data: DataSummary) -> str:
    """What the data of a run is called, on one line: its folder, or the data set of Keras's."""
    source = data.try_open()
    name = Path(data.root).name if source is None else source.title
    return to_printable(name) or "humeris"


def get_end_time(run: Run) -> float:
    """When the sweep ended, in seconds since 1970."""
    return (run.path / "run.json").stat().st_mtime


def collect_hyperparameters(trial: Trial) -> dict[str, bool | float | str]:
    """What was tried, by name: the options of the head, then the head and its features; text is on one line."""
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
    """How a trial did on the images held out for choosing; `accuracy_std` is over the folds."""
    score_values = {
        "accuracy": score.accuracy,
        "log_loss": score.log_loss,
        "accuracy_std": float(np.std(score.folds)),
        "seconds": score.seconds,
    }
    return score_values | ({"best_epoch": score.fit_info["epochs"]} if "epochs" in score.fit_info else {})


def collect_test_scores(run: Run) -> dict[str, float]:
    """How the winner did on the test split: every number that `run.json` has of it, with the bounds of 95 % intervals."""
    test_scores: dict[str, float] = {}
    for name, value in vars(run.result.test).items():
        if _is_number(value):
            test_scores[f"test_{name}"] = value
        elif name.endswith("_95") and value is not None:
            test_scores |= {f"test_{name}_low": value[0], f"test_{name}_high": value[1]}
    return test_scores


def collect_curves(score: Score) -> dict[str, dict[str, list[float]]]:
    """The curves of a head trained by epochs, of `train` and of `validation`, by name; {} where it has none.

    Of an MLP `loss` is the log-loss on both; of a head that learns an embedding, on `train`, what it minimises.
    """
    curves_by_side: dict[str, dict[str, list[float]]] = {}
    history: Mapping[str, list[float]] = score.fit_info.get("curves") or {}
    for name, curve in history.items():
        side = "validation" if name.startswith(_VALIDATION_PREFIX) else "train"
        curves_by_side.setdefault(side, {})[name.removeprefix(_VALIDATION_PREFIX)] = curve
    return curves_by_side


def estimate_epoch_times(end_time: float, score: Score, n_epochs: int) -> list[float]:
    """When each of `n_epochs` epochs of a trial was over, had the trial ended at `end_time` and each taken as long."""
    return [end_time - score.seconds * (n_epochs - 1 - epoch) / n_epochs for epoch in range(n_epochs)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
