"""A trial: a head with its hyperparameters on one or more taps, and its score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...cache.typed_json import from_json, to_json
from ...extract.backbones.tap_ref import TapRef


@dataclass(frozen=True)
class Trial:
    """A head family with its hyperparameters, on one or more taps (side by side, in this order)."""

    tap_refs: tuple[TapRef, ...]
    head: str
    hyperparameters: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """Eight hexadecimal digits that identify the trial; the same trial has the same id in every run."""
        taps = [[tap_ref.extraction, tap_ref.layer, tap_ref.pool] for tap_ref in self.tap_refs]
        text = json.dumps([taps, self.head, dict(self.hyperparameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def __hash__(self) -> int:
        return hash(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(to_json(self))

    @classmethod
    def from_dict(cls, value: Any) -> Trial:
        """Return the trial that `to_dict` wrote; raises `ValueError`."""
        return from_json(cls, value, "trial")

    def __str__(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.hyperparameters.items())
        return f"{self.head}({options}) on {' + '.join(map(str, self.tap_refs))}"


@dataclass(frozen=True)
class Score:
    """Score of a trial on the held-out images.

    accuracy, log_loss: over the held-out images of all folds, each counted once. folds: accuracy of each fold. correct:
    packed bits, in hexadecimal, that say which images (in the order of the training data) were classified correctly.
    fit_info: what the head records of its training (epochs, curves).
    """

    accuracy: float
    log_loss: float
    folds: tuple[float, ...]
    seconds: float = 0.0
    correct: str = ""
    fit_info: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(to_json(self))

    @classmethod
    def from_dict(cls, value: Any) -> Score:
        """Return the score that `to_dict` wrote; raises `ValueError`."""
        return from_json(cls, value, "score")


class TrialScores(Mapping[Trial, Score]):
    """Scores of trials; immutable, so that they are ranked only once."""

    def __init__(self, scores: Mapping[Trial, Score]) -> None:
        self._scores = dict(scores)

    def __getitem__(self, trial: Trial) -> Score:
        return self._scores[trial]

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    @cached_property
    def ranked(self) -> tuple[Trial, ...]:
        """The trials, best first, as ordered by `rank_trials`."""
        return tuple(_rank(self._scores))


def rank_trials(scores: Mapping[Trial, Score]) -> list[Trial]:
    """Return the trials, best first.

    Among the hyperparameters of one head on the same taps the lowest log-loss comes first: with few images accuracy
    changes in steps of one image, and its maximum is often at hyperparameters that are much too strong or too weak
    (scikit-learn's LogisticRegressionCV is moving to log-loss for the same reason). Heads and taps are then ordered by
    the accuracy of the selected hyperparameters, ties by log-loss.
    """
    return list(scores.ranked if isinstance(scores, TrialScores) else _rank(scores))


def _rank(scores: Mapping[Trial, Score]) -> list[Trial]:
    trials_by_head: dict[tuple[tuple[TapRef, ...], str], list[Trial]] = {}
    for trial in sorted(scores, key=lambda trial: (scores[trial].log_loss, trial.id)):
        trials_by_head.setdefault((trial.tap_refs, trial.head), []).append(trial)
    by_accuracy = sorted(
        trials_by_head.values(), key=lambda group: (-scores[group[0]].accuracy, scores[group[0]].log_loss, group[0].id)
    )
    return [trial for group in by_accuracy for trial in group]
