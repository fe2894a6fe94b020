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
    """What is kept: `facts` are JSON values, `arrays` lists of arrays by name.

    The file is replaced as a whole after every epoch, so that there is always one of a whole epoch, or none.
    """

    run: Run
    began: float  # when the training did, were it one session, by `time.monotonic`
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Checkpoint:
        """The checkpoint of a run, empty where there is none; raises `RunError` where it cannot be read."""
        path = run.path / _FILE
        if not path.exists():
            return cls(run, time.monotonic())
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                facts = json.loads(found["facts"].tobytes())
                arrays = {
                    name: [found[f"{name}{number}"] for number in range(count)] for name, count in facts["arrays"].items()
                }
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path}: expected where the training stood, found: {error}; delete this file, and it begins anew"
            ) from error
        return cls(run, time.monotonic() - facts["seconds"], facts["facts"], arrays)

    def write(self, facts: Mapping[str, Any], arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Replace what is kept; it is on the disk when this returns."""
        self.facts, self.arrays = dict(facts), {name: list(each) for name, each in arrays.items()}
        seconds = time.monotonic() - self.began
        described = {
            "seconds": seconds,
            "facts": self.facts,
            "arrays": {name: len(each) for name, each in self.arrays.items()},
        }
        buffer = io.BytesIO()
        named = {f"{name}{number}": array for name, each in self.arrays.items() for number, array in enumerate(each)}
        np.savez(buffer, allow_pickle=False, facts=np.frombuffer(json.dumps(described).encode(), np.uint8), **named)
        self.run.write(_FILE, buffer.getvalue())
        self.run.beat()


def remove(run: Run) -> None:
    """Take the checkpoint of a run away."""
    (run.path / _FILE).unlink(missing_ok=True)
