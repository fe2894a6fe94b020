"""The trackers there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...cache.errors import TrackingError
from ...extract.images.load import Progress
from ..runs.run import Run
from . import mlflow, tensorboard
from .tracker import Tracked, Tracker

TRACKERS: dict[str, Tracker] = {each.TRACKER.name: each.TRACKER for each in (mlflow, tensorboard)}


def check(names: Sequence[str]) -> list[Tracker]:
    """The trackers of these names, each once; raises `TrackingError` for one that there is not, or not installed."""
    found = []
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise TrackingError(f"--track {name!r}: expected {' or '.join(TRACKERS)}")
        TRACKERS[name].check_installed()
        found.append(TRACKERS[name])
    return found


def track(run: Run, names: Sequence[str], progress: Callable[[str], Progress] | None = None) -> list[Tracked]:
    """Where a complete run was logged, by each tracker; logged again, it is there once.

    `progress` gives the callback of a named stage. Raises `TrackingError` where a tracker does not take the run, and
    `RunError` while another process works on it.
    """
    trackers = check(names)
    if not trackers:
        return []
    with run.claimed():
        return [tracker.log(run, progress(tracker.name) if progress else None) for tracker in trackers]
