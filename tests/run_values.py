"""What a run records, made by hand: every field has a value, and a test changes those that it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from humeris.classify.data.splits import SplitsSummary
from humeris.classify.data.views import Views
from humeris.classify.evaluate.calibration import ReliabilityBin
from humeris.classify.evaluate.metrics import ClassificationScores, ClassScores
from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.runs.data_summary import DataSummary
from humeris.classify.runs.metadata import RunMetadata
from humeris.classify.runs.result import BestTrial, NearDuplicateSummary, RunResult

CLASSES = ("ant", "bee")
TEST_SCORES = ClassificationScores(
    images=20,
    groups=None,
    accuracy=0.75,
    accuracy_95=(0.5, 0.875),
    balanced_accuracy=0.625,
    balanced_accuracy_95=(0.25, 0.75),
    macro_f1=0.5,
    macro_f1_95=(0.125, 0.625),
    log_loss=0.25,
    brier_score=0.375,
    calibration_error=0.125,
    calibration_error_by_chance=0.0625,
    reliability=(ReliabilityBin(20, 0.8, 0.75, (0.5, 0.875)),),
    per_class=tuple(ClassScores(name, 10, 0.75, 0.75, 0.75) for name in CLASSES),
    confusion=((8, 2), (3, 7)),
)
NEAR_DUPLICATES = NearDuplicateSummary((), cannot_tell=False, test_images=0, accuracy_without=0.75, accuracy_without_95=None)


def make_data(**changes: Any) -> DataSummary:
    """A folder of 60 images; kind, source and root are those of its origin."""
    origin = {"kind": "folders", "source": "photos", "root": "/data/photos"}
    origin |= {name: changes.pop(name) for name in tuple(changes) if name in origin}
    data = DataSummary(
        origin=origin,
        used=60,
        duplicates=(),
        refused=(),
        ignored=(),
        notes=(),
        formats={"PNG": 60},
        unusual=(),
        listing="0" * 64,
    )
    return replace(data, **changes)


def make_metadata(**changes: Any) -> RunMetadata:
    """A run that has begun."""
    metadata = RunMetadata(
        config_hash="a" * 64,
        command="humeris sweep photos",
        humeris="0.1.0",
        data=make_data(),
        splits=SplitsSummary(CLASSES, train=40, val=0, test=20, select="cv", note=""),
        taps=(),
        left_out=(),
        specs={},
        heads=(),
        views=Views(),
        seed=7,
    )
    return replace(metadata, **changes)


def make_result(best: Trial, score: Score, **changes: Any) -> RunResult:
    """What a run ends with."""
    result = RunResult(
        best=BestTrial.from_trial(best, score),
        runner_up=None,
        test=TEST_SCORES,
        test_plain=None,
        groups=None,
        accuracy_95={},
        near_duplicates=NEAR_DUPLICATES,
        notes=(),
        advice=None,
        seconds=5.0,
    )
    return replace(result, **changes)
