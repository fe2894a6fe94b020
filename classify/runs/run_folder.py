"""A folder whose files are written completely or not at all, locked by one process at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cache.atomic_files import make_folder, publish
from ...cache.errors import RunError
from ...cache.leases import Lease, Leases
from .csv_table import format_csv

ALTERNATIVE = "another folder with -o"
TEMP_FOLDER = ".drafts"  # of files being written


class RunFolder:
    """The files of a run, and its lock."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lease = Lease(None)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run against other processes; raises `RunError` if another process holds the lock.

        The lock is void once its process is gone (see `cache.leases`).
        """
        temp_folder = self.path / TEMP_FOLDER
        make_folder(temp_folder.absolute(), ALTERNATIVE)
        lease = Leases(temp_folder).acquire("sweep")
        if lease is None:
            raise RunError(
                f"cannot lock run {self.path}: another process is writing to it; wait until it ends, or give "
                "another folder with -o"
            )
        self._lease = lease
        try:
            yield
        finally:
            lease.release()
            with contextlib.suppress(OSError):
                temp_folder.rmdir()

    def heartbeat(self) -> None:
        """Renew the lock, which expires if it is not renewed."""
        self._lease.renew()

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the run atomically."""
        path = self.path / name
        make_folder(path.parent.absolute(), ALTERNATIVE)
        publish(data, path, self.path / TEMP_FOLDER, 0o644, ALTERNATIVE)
        with contextlib.suppress(OSError):  # another file may be being written
            (self.path / TEMP_FOLDER).rmdir()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one JSON file of the run."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write one CSV file of the run, with an apostrophe before cells that a spreadsheet would run as a formula."""
        self.write(name, format_csv(header, rows))
