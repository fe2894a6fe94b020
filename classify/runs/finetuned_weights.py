"""What fine-tuning leaves in a run: the weights of the layers that were trained, and the head."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.errors import RunError
from ...cache.atomic_files import read_json
from ..heads.head import Head
from .run import Run
from ..evaluate.trial import Trial

HEAD = "finetune"  # what a fine-tuned trial has in place of a head family


@dataclass(frozen=True)
class Tuned:
    """Weights by layer, as `backbone.build` takes them, and the head on the features of the network that has them.

    On disk `tuned/<trial>.npz` has the arrays `weights0`, `weights1`, …, `tuned/<trial>.head.npz` those of the head, and
    `tuned/<trial>.json`, written last, says what they are.
    """

    weights: Mapping[str, list[np.ndarray]]
    head: Head

    def save(self, run: Run, trial: Trial) -> None:
        """Write it into a run."""
        arrays = [array for each in self.weights.values() for array in each]
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{f"weights{number}": array for number, array in enumerate(arrays)})
        run.write(f"tuned/{trial.id}.npz", buffer.getvalue())
        run.write(f"tuned/{trial.id}.head.npz", self.head.arrays())
        layers = [{"name": name, "arrays": len(each)} for name, each in self.weights.items()]
        run.write_json(f"tuned/{trial.id}.json", {"layers": layers, "head": self.head.description()})

    @classmethod
    def load(cls, run: Run, trial: Trial) -> Tuned:
        """What `save` wrote for a trial; raises `RunError`."""
        path = run.path / "tuned" / f"{trial.id}.json"
        try:
            described: dict[str, Any] = read_json(path)
            head = Head.load(path.with_suffix(".head.npz"), described["head"])
            weights, number = {}, 0
            with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                for each in described["layers"]:
                    weights[each["name"]] = [arrays[f"weights{number + place}"] for place in range(each["arrays"])]
                    number += each["arrays"]
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path}: expected the weights that `humeris finetune` left, found: {error}; run the command again with "
                "another folder"
            ) from error
        return cls(weights, head)


def can_start(trial: Trial) -> bool:
    """Whether a trial's head can be trained further: it ends in weighted sums, which a vote of neighbours does not."""
    return not is_tuned(trial) and trial.head != "knn" and trial.setting.get("classifier") != "knn"


def is_tuned(trial: Trial | None) -> bool:
    """Whether there is a trial, of a fine-tuned network."""
    return trial is not None and trial.head == HEAD
