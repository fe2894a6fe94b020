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
    """Log a complete run with each tracker; logging it again changes nothing.

    Parameters
    ----------
    run : Run
        The run.
    names : sequence of str
        Names of trackers.
    progress : callable, optional
        Returns the progress callback of a named stage.

    Returns
    -------
    list of TrackingResult
        Where the run was logged, for each tracker.

    Raises
    ------
    TrackingError
        If a tracker is unknown, not installed, or fails.
    RunError
        If another process is writing to the run.
    """
    trackers = get_trackers(names)
    if not trackers:
        return []
    with run.lock():
        return [tracker.log(run, progress(tracker.name) if progress else None) for tracker in trackers]
