"""Summary of a complete run, for the terminal and as JSON."""

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
    """Summary of a complete run: its folder, the winner and its test scores, and accuracy by depth.

    trials: number of finished trials. The other fields are those of `RunMetadata` and `RunResult`.
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
