"""A trained head: layers from a row of features to class probabilities, in plain arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import RunError
from ..data.feature_matrix import Matrix
from .layers import Dense as Dense
from .layers import Layer, Neighbours, described, restored


@dataclass(frozen=True)
class Head:
    """Layers; what comes out of the last one are the probabilities of `classes`."""

    layers: tuple[Layer, ...]
    classes: tuple[str, ...]

    def predict_proba(self, features: np.ndarray | Matrix) -> np.ndarray:
        """Probabilities (n, classes) float32 of rows (n, ...), a block at a time; maps are flattened in row-major order."""
        matrix = features if isinstance(features, Matrix) else Matrix.of(features)
        out = np.empty((len(matrix), len(self.classes)), np.float32)
        for positions, values in matrix.blocks():
            for layer in self.layers:
                values = layer.apply(values)
            out[positions] = values
        return out

    def ties(self, features: np.ndarray | Matrix, rounding: float, bound: float) -> np.ndarray:
        """Mask (n,) of rows whose answers rest on a tie among neighbours; see `Neighbours.ties`."""
        matrix = features if isinstance(features, Matrix) else Matrix.of(features)
        found = np.zeros(len(matrix), bool)
        for positions, values in matrix.blocks():
            for layer in self.layers:
                if isinstance(layer, Neighbours):
                    found[positions] = layer.ties(values, rounding, bound)
                values = layer.apply(values)
        return found

    def arrays(self) -> bytes:
        """The layers' arrays (`weights0`, `bias0`, `weights1` and so on) as the bytes of an `.npz` file, without pickle."""
        buffer = io.BytesIO()
        named = {f"{name}{i}": getattr(layer, name) for i, layer in enumerate(self.layers) for name in layer.numbers}
        np.savez(buffer, allow_pickle=False, **named)
        return buffer.getvalue()

    def description(self) -> dict[str, Any]:
        """What the arrays do not say, as JSON values."""
        return {"classes": list(self.classes), "layers": [described(layer) for layer in self.layers]}

    @classmethod
    def load(cls, arrays: Path, description: Mapping[str, Any]) -> Head:
        """The head of an `.npz` file and its description; raises `RunError`.

        A description of the first format has no layers but the activations of dense ones.
        """
        try:
            dense = [{"kind": "dense", "activation": activation} for activation in description.get("activations", [])]
            with arrays.open("rb") as file, np.load(file, allow_pickle=False) as named:
                layers = tuple(restored(each, named, i) for i, each in enumerate(description.get("layers", dense)))
            classes, width = tuple(description["classes"]), None
            for layer in layers:
                width = layer.fits(width)
            if width != len(classes):
                raise ValueError(f"probabilities of {width} classes, where {len(classes)} are named")
        except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"{arrays}: expected a head written by `humeris sweep`, found: {error}") from error
        return cls(layers, classes)
