"""What is logged of a run, whatever it is logged to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.formatting import safe
from ..evaluate.trial import Score, Trial
from ..runs.run import Run

_VALIDATION = "val_"  # what Keras calls a curve of images held out


def title(run: Run) -> str:
    """What the data of a run is called, on one line: its folder, or the data set of Keras's."""
    data = run.description.get("data") or {}
    named = data.get("source") if data.get("kind") == "keras" else data.get("root")
    return safe(Path(str(named or "")).name) or "humeris"


def ended(run: Run) -> float:
    """When the sweep ended, in seconds since 1970."""
    return (run.path / "run.json").stat().st_mtime


def settings(trial: Trial) -> dict[str, bool | float | str]:
    """What was tried, by name: the options of the head, then the head and its features; text is on one line."""
    found: dict[str, Any] = {
        **trial.setting,
        "head": trial.head,
        "backbone": " + ".join(dict.fromkeys(source.backbone for source in trial.sources)),
        "layer": " + ".join(source.layer for source in trial.sources),
        "pool": " + ".join(dict.fromkeys(source.pool for source in trial.sources)),
    }
    return {name: value if isinstance(value, bool | int | float) else safe(value) for name, value in found.items()}


def scores(score: Score) -> dict[str, float]:
    """How a trial did on the images held out for choosing; `accuracy_std` is over the folds."""
    found = {
        "accuracy": score.accuracy,
        "log_loss": score.log_loss,
        "accuracy_std": float(np.std(score.folds)),
        "seconds": score.seconds,
    }
    return found | ({"best_epoch": score.detail["epochs"]} if "epochs" in score.detail else {})


def tested(run: Run) -> dict[str, float]:
    """How the winner did on the test split: every number that `run.json` has of it, with the bounds of 95 % intervals."""
    found: dict[str, float] = {}
    for name, value in run.description["test"].items():
        if _is_number(value):
            found[f"test_{name}"] = value
        elif name.endswith("_95") and value is not None:
            found |= {f"test_{name}_low": value[0], f"test_{name}_high": value[1]}
    return found


def curves(score: Score) -> dict[str, dict[str, list[float]]]:
    """The curves of a head trained by epochs, of `train` and of `validation`, by name; {} where it has none.

    Of an MLP `loss` is the log-loss on both; of a head that learns an embedding, on `train`, what it minimises.
    """
    found: dict[str, dict[str, list[float]]] = {}
    kept: Mapping[str, list[float]] = score.detail.get("curves") or {}
    for name, curve in kept.items():
        side = "validation" if name.startswith(_VALIDATION) else "train"
        found.setdefault(side, {})[name.removeprefix(_VALIDATION)] = curve
    return found


def times(end: float, score: Score, count: int) -> list[float]:
    """When each of `count` epochs of a trial was over, had the trial ended at `end` and each taken as long."""
    return [end - score.seconds * (count - 1 - epoch) / count for epoch in range(count)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
