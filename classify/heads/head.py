"""A trained head: layers from a row of features to class probabilities, as plain arrays."""

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
from .layers import Dense, HeadLayer, L2Normalize, SelectColumns, Standardize
from .neighbor_votes import NeighborVotes

FORMAT_VERSION = 2
_LAYER_KINDS: Mapping[str, Any] = {
    kind.kind: kind for kind in (Dense, Standardize, L2Normalize, SelectColumns, NeighborVotes)
}


@dataclass(frozen=True)
class Head:
    """A trained head.

    Parameters
    ----------
    layers
        Layers applied to rows of features in turn; the last one returns class probabilities.
    class_names
        The classes, in the order of the probabilities.
    """

    layers: tuple[HeadLayer, ...]
    class_names: tuple[str, ...]

    def predict_proba(self, features: np.ndarray | FeatureMatrix) -> np.ndarray:
        """Predict class probabilities, in blocks of rows.

        Parameters
        ----------
        features : ndarray of shape (n, ...) or FeatureMatrix
            Rows, or maps, which are flattened in row-major order.

        Returns
        -------
        ndarray of shape (n, classes), float32
        """
        matrix = features if isinstance(features, FeatureMatrix) else FeatureMatrix.from_array(features)
        out = np.empty((len(matrix), len(self.class_names)), np.float32)
        for positions, values in matrix.iter_blocks():
            for layer in self.layers:
                values = layer.apply(values)
            out[positions] = values
        return out

    def find_ties(self, features: np.ndarray | FeatureMatrix, rounding: float, tolerance: float) -> np.ndarray:
        """Return the mask (n,) of rows whose prediction depends on a tie among neighbors; see `NeighborVotes.find_ties`."""
        matrix = features if isinstance(features, FeatureMatrix) else FeatureMatrix.from_array(features)
        mask = np.zeros(len(matrix), bool)
        for positions, values in matrix.iter_blocks():
            for layer in self.layers:
                if isinstance(layer, NeighborVotes):
                    mask[positions] = layer.find_ties(values, rounding, tolerance)
                values = layer.apply(values)
        return mask

    def to_npz_bytes(self) -> bytes:
        """Return the layers' arrays (`weights0`, `bias0`, `weights1` …) as the bytes of an `.npz` file without pickle."""
        buffer = io.BytesIO()
        arrays = {f"{name}{i}": getattr(layer, name) for i, layer in enumerate(self.layers) for name in layer.array_fields}
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def to_metadata(self) -> dict[str, Any]:
        """Return everything but the arrays, as JSON values."""
        layers = [_describe_layer(layer) for layer in self.layers]
        return {"format": FORMAT_VERSION, "class_names": list(self.class_names), "layers": layers}

    @classmethod
    def load(cls, arrays_path: Path, metadata: Mapping[str, Any]) -> Head:
        """Read an `.npz` file and the metadata from `to_metadata`; raises `RunError`."""
        try:
            if metadata["format"] != FORMAT_VERSION:
                raise ValueError(f"format {metadata['format']!r:.60}, not {FORMAT_VERSION}")
            with arrays_path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
                layers = tuple(_restore_layer(layer_metadata, npz, i) for i, layer_metadata in enumerate(metadata["layers"]))
            class_names, width = tuple(metadata["class_names"]), None
            for layer in layers:
                width = layer.compute_output_width(width)
            if width != len(class_names):
                raise ValueError(f"{width} probabilities for {len(class_names)} class names")
        except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{arrays_path}: cannot read the head: {error}; sweep again into another folder with -o"
            ) from error
        return cls(layers, class_names)


def _describe_layer(layer: HeadLayer) -> dict[str, Any]:
    """Return the fields of a layer that are not arrays, as JSON values."""
    return {"kind": layer.kind, **{name: getattr(layer, name) for name in layer.json_fields}}


def _restore_layer(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray], index: int) -> HeadLayer:
    """Read layer number `index`; raises `KeyError` if an array is missing, `ValueError` if its kind is unknown."""
    if metadata["kind"] not in _LAYER_KINDS:
        raise ValueError(f"unknown layer kind {metadata['kind']!r}")
    kind = _LAYER_KINDS[metadata["kind"]]
    values = {name: arrays[f"{name}{index}"] for name in kind.array_fields} | {
        name: metadata[name] for name in kind.json_fields
    }
    layer: HeadLayer = kind(**values)
    return layer
