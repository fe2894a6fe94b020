"""What a tracker is, and what it says of a run that it took."""

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
_MAX_REASON_LENGTH = 500  # letters of what a tracker says is wrong


@dataclass(frozen=True)
class TrackingResult:
    """Where a run was logged.

    name: the tracker. destination: an address or a folder, "" where there was nothing to log. view_command: the command, or
    the address, to look at it with. note: what else there is to say, or "".
    """

    name: str
    destination: str
    view_command: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Tracker:
    """Something that runs are logged to.

    name: as `--track` has it, and what is installed to have it. list_modules: what must be importable; a function, since it
    may depend on the environment. log: log a complete run, once however often it is called; raises `TrackingError`.
    """

    name: str
    list_modules: Callable[[], tuple[str, ...]]
    log: Callable[[Run, Progress | None], TrackingResult]

    def check_installed(self) -> None:
        """Raise `TrackingError` where a package is missing; imports nothing."""
        for module in self.list_modules():
            if importlib.util.find_spec(module) is None:
                raise TrackingError(
                    f"--track {self.name}: expected {module}, found it not installed; pip install 'humeris[{self.name}]'"
                )


def mask_secrets(address: object) -> str:
    """An address, or a text that holds some, on one line and without names and passwords before a host's name."""
    return _SECRET_PATTERN.sub("***@", to_printable(address))


def build_error(run: Run, name: str, destination: object, error: Exception) -> TrackingError:
    """The error that says that a tracker did not take a run, and that the run is not lost."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = mask_secrets(lines[0])
    reason = reason if len(reason) <= _MAX_REASON_LENGTH else f"{reason[:_MAX_REASON_LENGTH]} …"
    return TrackingError(
        f"--track {name}: expected {mask_secrets(destination)} to take the run, found: {reason}; the run in {run.path} is "
        "complete: put that right and type the command again, which logs it and computes nothing again"
    )
