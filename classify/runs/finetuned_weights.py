"""Result of fine-tuning in a run: the weights of the trained layers, and the head."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.atomic_files import read_json
from ...cache.errors import RunError
from ..evaluate.trial import Trial
from ..heads.head import Head
from ..heads.registry import find_head_family
from .run import Run

FINETUNE_HEAD = "finetune"  # stands for the head family of a fine-tuned trial


@dataclass(frozen=True)
class FinetunedWeights:
    """Weights by layer, as `backbone.build` takes them, and the head on the features of the fine-tuned network.

    On disk, `tuned/<trial>.npz` holds the arrays `weights0`, `weights1`, …, `tuned/<trial>.head.npz` those of the head, and
    `tuned/<trial>.json`, written last, the names of the layers and the head's metadata.
    """

    weights: Mapping[str, list[np.ndarray]]
    head: Head

    def save(self, run: Run, trial: Trial) -> None:
        """Write the weights and the head into a run."""
        arrays = [array for layer_arrays in self.weights.values() for array in layer_arrays]
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{f"weights{number}": array for number, array in enumerate(arrays)})
        run.write(f"tuned/{trial.id}.npz", buffer.getvalue())
        run.write(f"tuned/{trial.id}.head.npz", self.head.to_npz_bytes())
        layers = [{"name": name, "arrays": len(layer_arrays)} for name, layer_arrays in self.weights.items()]
        run.write_json(f"tuned/{trial.id}.json", {"layers": layers, "head": self.head.to_metadata()})

    @classmethod
    def load(cls, run: Run, trial: Trial) -> FinetunedWeights:
        """Load what `save` wrote for a trial; raises `RunError`."""
        path = run.path / "tuned" / f"{trial.id}.json"
        try:
            metadata: dict[str, Any] = read_json(path)
            head = Head.load(path.with_suffix(".head.npz"), metadata["head"])
            weights, offset = {}, 0
            with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                for layer in metadata["layers"]:
                    weights[layer["name"]] = [arrays[f"weights{offset + index}"] for index in range(layer["arrays"])]
                    offset += layer["arrays"]
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path}: cannot read the fine-tuned weights: {error}; run `humeris finetune` again into another folder"
            ) from error
        return cls(weights, head)


def can_finetune(trial: Trial) -> bool:
    """Return whether a trial's head can be trained further by gradient descent."""
    family = find_head_family(trial.head)
    return not is_finetuned(trial) and (family is None or family.can_finetune(trial.hyperparameters))


def is_finetuned(trial: Trial | None) -> bool:
    """Return whether there is a trial and it is a fine-tuned network."""
    return trial is not None and trial.head == FINETUNE_HEAD
