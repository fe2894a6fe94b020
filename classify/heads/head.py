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
from ..data.feature_matrix import FeatureMatrix
from .layers import Dense as Dense
from .layers import HeadLayer, NeighborVotes, describe_layer, restore_layer


@dataclass(frozen=True)
class Head:
    """Layers; what comes out of the last one are the probabilities of `classes`."""

    layers: tuple[HeadLayer, ...]
    class_names: tuple[str, ...]

    def predict_proba(self, features: np.ndarray | FeatureMatrix) -> np.ndarray:
        """Probabilities (n, classes) float32 of rows (n, ...), a block at a time; maps are flattened in row-major order."""
        matrix = features if isinstance(features, FeatureMatrix) else FeatureMatrix.from_array(features)
        out = np.empty((len(matrix), len(self.class_names)), np.float32)
        for positions, values in matrix.iter_blocks():
            for layer in self.layers:
                values = layer.apply(values)
            out[positions] = values
        return out

    def find_ties(self, features: np.ndarray | FeatureMatrix, rounding: float, tolerance: float) -> np.ndarray:
        """Mask (n,) of rows whose answers rest on a tie among neighbours; see `Neighbours.ties`."""
        matrix = features if isinstance(features, FeatureMatrix) else FeatureMatrix.from_array(features)
        mask = np.zeros(len(matrix), bool)
        for positions, values in matrix.iter_blocks():
            for layer in self.layers:
                if isinstance(layer, NeighborVotes):
                    mask[positions] = layer.find_ties(values, rounding, tolerance)
                values = layer.apply(values)
        return mask

    def to_npz_bytes(self) -> bytes:
        """The layers' arrays (`weights0`, `bias0`, `weights1` and so on) as the bytes of an `.npz` file, without pickle."""
        buffer = io.BytesIO()
        arrays = {f"{name}{i}": getattr(layer, name) for i, layer in enumerate(self.layers) for name in layer.array_fields}
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def to_metadata(self) -> dict[str, Any]:
        """What the arrays do not say, as JSON values."""
        return {"classes": list(self.class_names), "layers": [describe_layer(layer) for layer in self.layers]}

    @classmethod
    def load(cls, arrays_path: Path, metadata: Mapping[str, Any]) -> Head:
        """The head of an `.npz` file and its description; raises `RunError`.

        A description of the first format has no layers but the activations of dense ones.
        """
        try:
            dense_layers = [{"kind": "dense", "activation": activation} for activation in metadata.get("activations", [])]
            with arrays_path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
                layers = tuple(
                    restore_layer(layer_metadata, npz, i)
                    for i, layer_metadata in enumerate(metadata.get("layers", dense_layers))
                )
            class_names, width = tuple(metadata["classes"]), None
            for layer in layers:
                width = layer.compute_output_width(width)
            if width != len(class_names):
                raise ValueError(f"probabilities of {width} classes, where {len(class_names)} are named")
        except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"{arrays_path}: expected a head written by `humeris sweep`, found: {error}") from error
        return cls(layers, class_names)
