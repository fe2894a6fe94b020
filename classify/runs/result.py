"""What a finished run records: the winner, its scores on the test split, and what makes them unsure."""

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
        """A trial with its score."""
        return cls(trial.id, trial.tap_refs, trial.head, trial.hyperparameters, score)

    @property
    def trial(self) -> Trial:
        """The trial itself."""
        return Trial(self.tap_refs, self.head, self.hyperparameters)


@dataclass(frozen=True)
class RunnerUpScore:
    """How a runner-up did on the images held out for choosing, as `Score` has it."""

    accuracy: float
    log_loss: float
    folds: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class RunnerUp:
    """The best trial of another head or other taps, and how it compares with the winner on the same images."""

    id: str
    tap_refs: tuple[TapRef, ...]
    head: str
    hyperparameters: Mapping[str, Any]
    score: RunnerUpScore
    comparison: Comparison

    @classmethod
    def from_trial(cls, trial: Trial, score: Score, comparison: Comparison) -> RunnerUp:
        """A trial with its score, compared with the winner."""
        runner_up_score = RunnerUpScore(score.accuracy, score.log_loss, score.folds, score.seconds)
        return cls(trial.id, trial.tap_refs, trial.head, trial.hyperparameters, runner_up_score, comparison)

    @property
    def trial(self) -> Trial:
        """The trial itself."""
        return Trial(self.tap_refs, self.head, self.hyperparameters)


@dataclass(frozen=True)
class NearDuplicatePair:
    """A test image that nearly equals one that was learnt from, by name; similarity: cosine."""

    test: str
    development: str
    similarity: float


@dataclass(frozen=True)
class NearDuplicateSummary:
    """Near-duplicates of test images among the others, most similar first, and the accuracy on the test images without them.

    cannot_tell: whether none but equal rows can be told from rows that are only alike. test_images: how many have one.
    accuracy_without: None where no other test image is left.
    """

    pairs: tuple[NearDuplicatePair, ...]
    cannot_tell: bool
    test_images: int
    accuracy_without: float | None
    accuracy_without_95: tuple[float, float] | None


@dataclass(frozen=True)
class TestAccuracy:
    """The accuracy on the test images, with its 95 % interval."""

    __test__ = False  # no class of tests, whatever pytest reads in its name

    images: int
    accuracy: float
    accuracy_95: tuple[float, float]

    @classmethod
    def from_scores(cls, scores: ClassificationScores) -> TestAccuracy:
        """The accuracy alone of all scores."""
        return cls(scores.images, scores.accuracy, scores.accuracy_95)


@dataclass(frozen=True)
class FrozenBaseline:
    """The frozen winner that a fine-tuning began with, on the test split.

    seconds: that its run took. comparison: of the tuned network with it, image by image; None where its predictions on plain
    images were not kept.
    """

    trial: Trial
    seconds: float
    test: TestAccuracy
    comparison: Comparison | None


@dataclass(frozen=True)
class FinetuneSummary:
    """What fine-tuning did.

    initial_metrics: before the first epoch, by Keras's names. held_out: images that the best epoch was chosen by. frozen:
    None where the frozen trial was not scored on the test split. max_map_difference: of a probability, from cached maps and
    from pixels; None where images were trained on. cached: what was extracted first.
    """

    initial_metrics: Mapping[str, float]
    held_out: int
    frozen: FrozenBaseline | None
    max_map_difference: float | None
    cached: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run ends with.

    runner_up: None where one trial was all. test: scores of the winner on the test split; test_plain: of its plain views,
    where views are averaged. groups: how many groups the images are in that heads were chosen by; None where each stands
    for itself. accuracy_95: the 95 % intervals by groups of the accuracies along the depth, by the ids of trials. advice:
    None of a fine-tuning. seconds: of all sessions together.
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
        """The scores of plain views, which is what an exported model sees."""
        return self.test_plain or self.test
