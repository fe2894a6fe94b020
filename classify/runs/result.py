"""Result of a complete run: the winner, its scores on the test split, and the caveats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...extract.backbones.tap_ref import TapRef
from ..evaluate.metrics import ClassificationScores
from ..evaluate.significance import Comparison
from ..evaluate.trial import Score, Trial
from .advice import Advice


@dataclass(frozen=True)
class BestTrial:
    """The winner of a run."""

    id: str
    tap_refs: tuple[TapRef, ...]
    head: str
    hyperparameters: Mapping[str, Any]
    score: Score

    @classmethod
    def from_trial(cls, trial: Trial, score: Score) -> BestTrial:
        """Return a trial with its score."""
        return cls(trial.id, trial.tap_refs, trial.head, trial.hyperparameters, score)

    @property
    def trial(self) -> Trial:
        """The trial without its score."""
        return Trial(self.tap_refs, self.head, self.hyperparameters)


@dataclass(frozen=True)
class RunnerUpScore:
    """The score of a runner-up on the held-out images, with the fields of `Score`."""

    accuracy: float
    log_loss: float
    folds: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class RunnerUp:
    """The best trial with another head or other taps, compared with the winner on the same images."""

    id: str
    tap_refs: tuple[TapRef, ...]
    head: str
    hyperparameters: Mapping[str, Any]
    score: RunnerUpScore
    comparison: Comparison

    @classmethod
    def from_trial(cls, trial: Trial, score: Score, comparison: Comparison) -> RunnerUp:
        """Return a trial with its score and its comparison with the winner."""
        runner_up_score = RunnerUpScore(score.accuracy, score.log_loss, score.folds, score.seconds)
        return cls(trial.id, trial.tap_refs, trial.head, trial.hyperparameters, runner_up_score, comparison)

    @property
    def trial(self) -> Trial:
        """The trial without its score."""
        return Trial(self.tap_refs, self.head, self.hyperparameters)


@dataclass(frozen=True)
class NearDuplicatePair:
    """Names of a test image and of an image outside the test split that nearly equals it. similarity: cosine."""

    test: str
    development: str
    similarity: float


@dataclass(frozen=True)
class NearDuplicateSummary:
    """Near-duplicates of test images outside the test split, most similar first, and the test accuracy without them.

    cannot_tell: whether near-duplicates cannot be told from similar images by these features, so that only equal rows count.
    test_images: number of test images that have one. accuracy_without: None if no test image is left.
    """

    pairs: tuple[NearDuplicatePair, ...]
    cannot_tell: bool
    test_images: int
    accuracy_without: float | None
    accuracy_without_95: tuple[float, float] | None


@dataclass(frozen=True)
class TestAccuracy:
    """Accuracy on the test split, with its 95 % interval."""

    __test__ = False  # tells pytest that this is not a test class

    images: int
    accuracy: float
    accuracy_95: tuple[float, float]

    @classmethod
    def from_scores(cls, scores: ClassificationScores) -> TestAccuracy:
        """Return the accuracy of classification scores."""
        return cls(scores.images, scores.accuracy, scores.accuracy_95)


@dataclass(frozen=True)
class FrozenBaseline:
    """The frozen trial that a fine-tuning started from, on the test split.

    seconds: elapsed time of its run. comparison: paired comparison of the fine-tuned network with it; None if its
    predictions
    for plain images were not recorded.
    """

    trial: Trial
    seconds: float
    test: TestAccuracy
    comparison: Comparison | None


@dataclass(frozen=True)
class FinetuneSummary:
    """Summary of a fine-tuning.

    initial_metrics: metrics before the first epoch, by Keras's names. held_out: number of images that the best epoch was
    selected on. frozen: None if the frozen trial was not scored on the test split. max_map_difference: largest difference of
    a
    probability between cached maps and pixels; None if images were trained on. cached: what was extracted first.
    """

    initial_metrics: Mapping[str, float]
    held_out: int
    frozen: FrozenBaseline | None
    max_map_difference: float | None
    cached: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run.

    runner_up: None if there was only one trial. test: scores of the winner on the test split. test_plain: those of plain
    views, if views are averaged. groups: number of groups of the images that heads were selected on; None without groups.
    accuracy_95: 95 % intervals, by groups, of the accuracies by depth, by trial id. advice: None for a fine-tuning. seconds:
    total of all sessions.
    """

    best: BestTrial
    runner_up: RunnerUp | None
    test: ClassificationScores
    test_plain: ClassificationScores | None
    groups: int | None
    accuracy_95: Mapping[str, tuple[float, float]]
    near_duplicates: NearDuplicateSummary
    notes: tuple[str, ...]
    advice: Advice | None
    seconds: float
    finetune: FinetuneSummary | None = None

    @property
    def single_view_test(self) -> ClassificationScores:
        """Scores of plain views, which is what an exported model uses."""
        return self.test_plain or self.test
