"""Interface of trackers, and their results."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ...cache.errors import TrackingError
from ...cache.formatting import to_printable
from ...extract.images.load import Progress
from ..runs.run import Run

_SECRET_PATTERN = re.compile(r"(?<=://)[^/@\s]*@")
_MAX_REASON_LENGTH = 500  # characters of a tracker's error message, at most


@dataclass(frozen=True)
class TrackingResult:
    """Where a run was logged.

    name: the tracker. destination: an address or a folder, "" if nothing was logged. view_command: the command or address
    to look at it. note: further information, or "".
    """

    name: str
    destination: str
    view_command: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Tracker:
    """Something that runs are logged to.

    name: as in `--track`, and the name of the extra to install. list_modules: modules that must be importable; a
    function, since it may depend on the environment. log: log a complete run, only once however often it is called;
    raises `TrackingError`.
    """

    name: str
    list_modules: Callable[[], tuple[str, ...]]
    log: Callable[[Run, Progress | None], TrackingResult]

    def check_installed(self) -> None:
        """Raise `TrackingError` if a package is missing; imports nothing."""
        for module in self.list_modules():
            if importlib.util.find_spec(module) is None:
                raise TrackingError(
                    f"--track {self.name}: the package {module} is not installed; run `pip install 'humeris[{self.name}]'`"
                )


def mask_secrets(address: object) -> str:
    """Return an address, or text with addresses, on one line without user names and passwords."""
    return _SECRET_PATTERN.sub("***@", to_printable(address))


def build_error(run: Run, name: str, destination: object, error: Exception) -> TrackingError:
    """Return the error for a failed tracker, which says that the run itself is complete."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = mask_secrets(lines[0])
    reason = reason if len(reason) <= _MAX_REASON_LENGTH else f"{reason[:_MAX_REASON_LENGTH]} …"
    return TrackingError(
        f"--track {name}: cannot log the run to {mask_secrets(destination)}: {reason}; the run in "
        f"{run.path} is complete: fix this and repeat the command, which only logs the run"
    )
