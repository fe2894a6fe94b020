"""The trackers there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...cache.errors import TrackingError
from ...extract.images.load import Progress
from ..runs.run import Run
from . import mlflow, tensorboard
from .tracker import Tracker, TrackingResult

TRACKERS: dict[str, Tracker] = {module.TRACKER.name: module.TRACKER for module in (mlflow, tensorboard)}


def get_trackers(names: Sequence[str]) -> list[Tracker]:
    """The trackers of these names, each once; raises `TrackingError` for one that there is not, or not installed."""
    trackers = []
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise TrackingError(f"--track {name!r}: expected {' or '.join(TRACKERS)}")
        TRACKERS[name].check_installed()
        trackers.append(TRACKERS[name])
    return trackers


def track(run: Run, names: Sequence[str], progress: Callable[[str], Progress] | None = None) -> list[TrackingResult]:
    """Where a complete run was logged, by each tracker; logged again, it is there once.

    `progress` gives the callback of a named stage. Raises `TrackingError` where a tracker does not take the run, and
    `RunError` while another process works on it.
    """
    trackers = get_trackers(names)
    if not trackers:
        return []
    with run.lock():
        return [tracker.log(run, progress(tracker.name) if progress else None) for tracker in trackers]
