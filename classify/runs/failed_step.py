"""A step after a sweep that failed; what was finished before it stays."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...cache.errors import HumerisError
from ...cache.formatting import format_error


@dataclass(frozen=True)
class FailedStep:
    """A step that failed: ``export``, ``report`` or ``tracking``; why, and the command that does it."""

    step: str
    error: str
    command: str


@contextmanager
def collect_failure(step: str, command: Sequence[object], failed_steps: list[FailedStep]) -> Iterator[None]:
    """Append what the body raises to `failed_steps`, so that the steps after it run and the result is shown.

    Parameters
    ----------
    step : str
        The name of the step.
    command : sequence
        The words of the command that does it.
    failed_steps : list of FailedStep
        Where the failure is appended.
    """
    try:
        yield
    except Exception as error:  # whatever a converter or a tracker raises: the sweep is finished and must be shown
        failed_steps.append(FailedStep(step, _describe(error), shlex.join(map(str, command))))


def _describe(error: Exception) -> str:
    if isinstance(error, HumerisError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
        return f"{name}: {error.strerror}"
    return f"{type(error).__name__}: {format_error(error)}"
