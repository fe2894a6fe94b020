"""Where a training stands after its last epoch, in one file of the run: one that is killed goes on from there."""

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
    """What is kept: `metadata` are JSON values, `arrays` lists of arrays by name.

    The file is replaced as a whole after every epoch, so that there is always one of a whole epoch, or none.
    """

    run: Run
    start_time: float  # when the training did, were it one session, by `time.monotonic`
    metadata: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def load(cls, run: Run) -> Checkpoint:
        """The checkpoint of a run, empty where there is none; raises `RunError` where it cannot be read."""
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
                f"{path}: expected where the training stood, found: {error}; delete this file, and it begins anew"
            ) from error
        return cls(run, time.monotonic() - header["seconds"], header["facts"], arrays)

    def write(self, metadata: Mapping[str, Any], arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Replace what is kept; it is on the disk when this returns."""
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
    """Take the checkpoint of a run away."""
    (run.path / _FILE).unlink(missing_ok=True)
