"""Checkpoint after each epoch, from which an interrupted training resumes."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...cache.errors import RunError
from ..runs.run import Run

_FILE = "checkpoint.npz"


@dataclass
class Checkpoint:
    """The state of a training: `metadata` in JSON values, `arrays` as lists of arrays by name.

    The file is replaced atomically after every epoch.
    """

    run: Run
    start_time: float  # by `time.monotonic`, less the seconds of earlier sessions
    metadata: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def load(cls, run: Run) -> Checkpoint:
        """Return the checkpoint of a run, an empty one if there is none; raises `RunError` if it cannot be read."""
        path = run.path / _FILE
        if not path.exists():
            return cls(run, time.monotonic())
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                header = json.loads(archive["facts"].tobytes())
                arrays = {
                    name: [archive[f"{name}{number}"] for number in range(count)] for name, count in header["arrays"].items()
                }
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path}: the checkpoint cannot be read: {error}; delete this file to train from the start"
            ) from error
        return cls(run, time.monotonic() - header["seconds"], header["facts"], arrays)

    def write(self, metadata: Mapping[str, Any], arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Replace the checkpoint; it is on disk when this returns."""
        self.metadata, self.arrays = dict(metadata), {name: list(members) for name, members in arrays.items()}
        seconds = time.monotonic() - self.start_time
        header = {
            "seconds": seconds,
            "facts": self.metadata,
            "arrays": {name: len(members) for name, members in self.arrays.items()},
        }
        buffer = io.BytesIO()
        members_by_name = {
            f"{name}{number}": array for name, members in self.arrays.items() for number, array in enumerate(members)
        }
        np.savez(buffer, allow_pickle=False, facts=np.frombuffer(json.dumps(header).encode(), np.uint8), **members_by_name)
        self.run.write(_FILE, buffer.getvalue())
        self.run.heartbeat()


def delete(run: Run) -> None:
    """Delete the checkpoint of a run."""
    (run.path / _FILE).unlink(missing_ok=True)
