"""The registered trackers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...cache.errors import TrackingError
from ...extract.images.load import Progress
from ..runs.run import Run
from . import mlflow, tensorboard
from .tracker import Tracker, TrackingResult

TRACKERS: dict[str, Tracker] = {module.TRACKER.name: module.TRACKER for module in (mlflow, tensorboard)}


def get_trackers(names: Sequence[str]) -> list[Tracker]:
    """Return the trackers of these names, each once; raises `TrackingError` for one that is unknown or not installed."""
    trackers = []
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise TrackingError(f"--track {name}: unknown tracker; use {' or '.join(TRACKERS)}")
        TRACKERS[name].check_installed()
        trackers.append(TRACKERS[name])
    return trackers


def track(run: Run, names: Sequence[str], progress: Callable[[str], Progress] | None = None) -> list[TrackingResult]:
    """Log a complete run with each tracker, and return where it was logged; logging it again changes nothing.

    `progress` returns the progress callback of a named stage. Raises `TrackingError` if a tracker fails, and `RunError`
    if another process is writing to the run.
    """
    trackers = get_trackers(names)
    if not trackers:
        return []
    with run.lock():
        return [tracker.log(run, progress(tracker.name) if progress else None) for tracker in trackers]
