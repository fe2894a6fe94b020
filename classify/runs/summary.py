"""A finished run in short: what commands say of it, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..data.splits import SplitsSummary
from ..data.views import Views
from ..evaluate.depth_curve import DepthPoint
from ..evaluate.metrics import ClassificationScores
from .advice import Advice
from .metadata import LeftOutTap
from .result import BestTrial, NearDuplicateSummary, RunnerUp


@dataclass(frozen=True)
class RunSummary:
    """Where a run is, which trial won, how good heads are along the depth, and the winner on the test split.

    trials: how many have ended. The others are as in `RunMetadata` and `RunResult`.
    """

    run: str
    best: BestTrial
    depth: tuple[DepthPoint, ...]
    runner_up: RunnerUp | None
    groups: int | None
    accuracy_95: Mapping[str, tuple[float, float]]
    test: ClassificationScores
    test_plain: ClassificationScores | None
    near_duplicates: NearDuplicateSummary
    notes: tuple[str, ...]
    views: Views
    seconds: float
    trials: int
    splits: SplitsSummary
    left_out: tuple[LeftOutTap, ...]
    advice: Advice | None
