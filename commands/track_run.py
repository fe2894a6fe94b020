"""Logs a run with the trackers that a command names; a tracker that fails loses nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .terminal import get_program

if TYPE_CHECKING:
    from ..classify.runs.run import Run
    from ..extract.images.load import Progress


def track_run(
    run: Run, names: Sequence[str], progress: Callable[[str], Progress]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Log a complete run with each tracker.

    Returns
    -------
    tracking_results : list of dict
        Where the run was logged.
    failed_steps : list of dict
        The trackers that failed; the same command logs the run, and computes nothing again.
    """
    from ..cache.typed_json import to_json
    from ..classify.runs.failed_step import FailedStep, collect_failure
    from ..classify.tracking import registry as trackers

    tracking_results: list[dict[str, Any]] = []
    failed_steps: list[FailedStep] = []
    for name in dict.fromkeys(names):
        with collect_failure("tracking", [get_program(), *sys.argv[1:]], failed_steps):
            tracking_results += [each.to_dict() for each in trackers.track(run, [name], progress)]
    return tracking_results, to_json(failed_steps)
