"""What a tracker is, and what it says of a run that it took."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ...cache.errors import TrackingError
from ...cache.formatting import safe
from ...extract.images.load import Progress
from ..runs.run import Run

_SECRET = re.compile(r"(?<=://)[^/@\s]*@")
_LONGEST = 500  # letters of what a tracker says is wrong


@dataclass(frozen=True)
class Tracked:
    """Where a run was logged.

    name: the tracker. where: an address or a folder, "" where there was nothing to log. look: the command, or the address,
    to look at it with. note: what else there is to say, or "".
    """

    name: str
    where: str
    look: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Tracker:
    """Something that runs are logged to.

    name: as `--track` has it, and what is installed to have it. modules: what must be importable; a function, since it may
    depend on the environment. log: log a complete run, once however often it is called; raises `TrackingError`.
    """

    name: str
    modules: Callable[[], tuple[str, ...]]
    log: Callable[[Run, Progress | None], Tracked]

    def check_installed(self) -> None:
        """Raise `TrackingError` where a package is missing; imports nothing."""
        for module in self.modules():
            if importlib.util.find_spec(module) is None:
                raise TrackingError(
                    f"--track {self.name}: expected {module}, found it not installed; pip install 'humeris[{self.name}]'"
                )


def without_secrets(address: object) -> str:
    """An address, or a text that holds some, on one line and without names and passwords before a host's name."""
    return _SECRET.sub("***@", safe(address))


def failed(run: Run, name: str, where: object, error: Exception) -> TrackingError:
    """The error that says that a tracker did not take a run, and that the run is not lost."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    found = without_secrets(lines[0])
    found = found if len(found) <= _LONGEST else f"{found[:_LONGEST]} …"
    return TrackingError(
        f"--track {name}: expected {without_secrets(where)} to take the run, found: {found}; the run in {run.path} is "
        "complete: put that right and type the command again, which logs it and computes nothing again"
    )
