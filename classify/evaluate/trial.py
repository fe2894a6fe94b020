"""One head setting on one set of features, and how well it did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..data.tap_ref import TapRef


@dataclass(frozen=True)
class Trial:
    """A head family with its setting, on one or more sources (side by side, in this order)."""

    tap_refs: tuple[TapRef, ...]
    head: str
    hyperparameters: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that name the trial; the same trial has the same id in every run."""
        taps = [[tap_ref.extraction, tap_ref.layer, tap_ref.pool] for tap_ref in self.tap_refs]
        text = json.dumps([taps, self.head, dict(self.hyperparameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __hash__(self) -> int:
        return hash(self.id)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "sources": [asdict(tap_ref) for tap_ref in self.tap_refs],
            "head": self.head,
            "setting": dict(self.hyperparameters),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Trial:
        """The trial that `to_dict` wrote."""
        return cls(tuple(TapRef(**tap_ref) for tap_ref in value["sources"]), value["head"], value["setting"])

    def __str__(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.hyperparameters.items())
        return f"{self.head}({options}) on {' + '.join(map(str, self.tap_refs))}"


@dataclass(frozen=True)
class Score:
    """How a trial did on the images held out for choosing.

    accuracy, log_loss: over the images held out in all folds, each counted once. folds: accuracy of each. right: hexadecimal
    digits of the packed bits that say which images (in the order of the problem) were classified rightly. detail: what the
    head wants kept (epochs, curves).
    """

    accuracy: float
    log_loss: float
    folds: tuple[float, ...]
    seconds: float = 0.0
    right: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "folds": list(self.folds), "detail": dict(self.detail)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Score:
        """The score that `to_dict` wrote."""
        return cls(**{**value, "folds": tuple(value["folds"])})


def rank_trials(scores: Mapping[Trial, Score]) -> list[Trial]:
    """The trials, best first.

    Among the settings of one head on one source the lowest log-loss comes first: on few images accuracy moves in steps of
    one image, and its maximum lands on settings that are much too strong or too weak (scikit-learn's LogisticRegressionCV
    is moving to log-loss for the same reason). Heads and sources are then ordered by the accuracy of that setting, equal
    ones by log-loss.
    """
    trials_by_head: dict[tuple[tuple[TapRef, ...], str], list[Trial]] = {}
    for trial in sorted(scores, key=lambda trial: (scores[trial].log_loss, trial.id)):
        trials_by_head.setdefault((trial.tap_refs, trial.head), []).append(trial)
    by_accuracy = sorted(
        trials_by_head.values(), key=lambda group: (-scores[group[0]].accuracy, scores[group[0]].log_loss, group[0].id)
    )
    return [trial for group in by_accuracy for trial in group]
