"""One head setting on one set of features, and how well it did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, order=True)
class Source:
    """Cached features: the backbone as a user writes it, the extraction's folder, and the tap.

    What a backbone is called depends on what else is cached, so that two sources are the same whatever it is.
    """

    backbone: str = field(compare=False)
    extraction: str
    layer: str
    pool: str

    def __str__(self) -> str:
        return f"{self.backbone}/{self.layer}:{self.pool}"


@dataclass(frozen=True)
class Trial:
    """A head family with its setting, on one or more sources (side by side, in this order)."""

    sources: tuple[Source, ...]
    head: str
    setting: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that name the trial; the same trial has the same id in every run."""
        taps = [[source.extraction, source.layer, source.pool] for source in self.sources]
        text = json.dumps([taps, self.head, dict(self.setting)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __hash__(self) -> int:
        return hash(self.id)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "sources": [asdict(source) for source in self.sources],
            "head": self.head,
            "setting": dict(self.setting),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Trial:
        """The trial that `to_dict` wrote."""
        return cls(tuple(Source(**source) for source in value["sources"]), value["head"], value["setting"])

    def __str__(self) -> str:
        setting = ",".join(f"{name}={value}" for name, value in self.setting.items())
        return f"{self.head}({setting}) on {' + '.join(map(str, self.sources))}"


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


def ranked(scores: Mapping[Trial, Score]) -> list[Trial]:
    """The trials, best first.

    Among the settings of one head on one source the lowest log-loss comes first: on few images accuracy moves in steps of
    one image, and its maximum lands on settings that are much too strong or too weak (scikit-learn's LogisticRegressionCV
    is moving to log-loss for the same reason). Heads and sources are then ordered by the accuracy of that setting, equal
    ones by log-loss.
    """
    settings: dict[tuple[tuple[Source, ...], str], list[Trial]] = {}
    for trial in sorted(scores, key=lambda trial: (scores[trial].log_loss, trial.id)):
        settings.setdefault((trial.sources, trial.head), []).append(trial)
    by_accuracy = sorted(
        settings.values(), key=lambda group: (-scores[group[0]].accuracy, scores[group[0]].log_loss, group[0].id)
    )
    return [trial for group in by_accuracy for trial in group]
