"""The features of one network with its settings: a folder with the spec and a folder of rows per tap."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from .atomic_files import publish, read_json
from .spec import ExtractionSpec
from .tap_features import TapFeatures
from .verification import Verifier


def read_spec(path: Path) -> ExtractionSpec | None:
    """Return the spec in the file at `path`; None if it is missing, corrupt, or of another folder."""
    try:
        spec = ExtractionSpec.from_dict(read_json(path))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return spec if path.parent.name.endswith(f"-{spec.digest[:16]}") else None


class Extraction:
    """The features extracted with one `spec`, stored under `path` or not stored yet."""

    def __init__(self, path: Path, spec: ExtractionSpec, verifier: Verifier, tmp: Path, prepare: Callable[[], None]) -> None:
        self.path, self.spec = path, spec
        self._verifier, self._tmp, self._prepare = verifier, tmp, prepare
        self._features: dict[tuple[str, str], TapFeatures] = {}
        self._layers: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """The folder's name: the backbone's title and the spec's digest."""
        return self.path.name

    def get_features(self, layer: str, pool: str) -> TapFeatures:
        """Return the rows of one tap, stored or not."""
        if (layer, pool) not in self._features:
            identity = {"extraction": self.spec.digest, "layer": layer, "pool": pool}
            folder = self.path / f"{quote(layer, safe='')}.{pool}"
            self._features[layer, pool] = TapFeatures(folder, identity, self._verifier)
        return self._features[layer, pool]

    def list_taps(self) -> list[TapFeatures]:
        """Return the taps that have a folder, sorted by depth."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir() and "." in entry.name)
        except FileNotFoundError:
            return []
        taps = [self.get_features(unquote(layer), pool) for layer, _, pool in (name.rpartition(".") for name in names)]
        depths = {layer["name"]: index for index, layer in enumerate(self.layers)}
        return sorted(taps, key=lambda features: (depths.get(features.layer, 0), features.layer, features.pool))

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The network's layers as given to `create`, in the order of computation; [] before that."""
        self._layers = self._layers or self._read_layers()
        return self._layers

    def _read_layers(self) -> list[dict[str, Any]]:
        try:
            layers = read_json(self.path / "layers.json")
        except (OSError, ValueError):
            return []
        return layers if isinstance(layers, list) and all(map(_is_layer, layers)) else []

    @property
    def is_created(self) -> bool:
        """Whether the spec and the layers are stored and valid."""
        return read_spec(self.path / "spec.json") is not None and bool(self.layers)

    def create(self, layers: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write `spec.json`, and `layers.json` if `layers` is given, unless they exist.

        Each of `layers` has a `name` and a `cost`, in the order of computation. Raises `CacheReadOnly` if rows cannot be
        stored.
        """
        self._prepare()
        path = self.path / "spec.json"
        if read_spec(path) is None:
            publish((json.dumps(self.spec.to_dict(), indent=2) + "\n").encode(), path, self._tmp)
        self._layers = self._layers or [dict(layer) for layer in layers]
        if self._layers and not self._read_layers():
            publish((json.dumps(self._layers) + "\n").encode(), self.path / "layers.json", self._tmp)

    def add(
        self,
        layer: str,
        pool: str,
        keys: np.ndarray,
        features: np.ndarray,
        *,
        views: np.ndarray | None = None,
        compression: str = "none",
    ) -> int:
        """Store rows of one tap durably; see `TapFeatures.add`.

        Parameters
        ----------
        layer, pool : str
            The tap.
        keys : np.ndarray
            Image digests (n,) S32.
        features : np.ndarray
            Rows (n, ...).
        views : np.ndarray, optional
            View numbers (n,) uint16; the plain view by default.
        compression : str
            ``none``, ``gzip`` or ``blosc2``.

        Returns
        -------
        int
            Bytes written.
        """
        if not len(keys):
            return 0
        self.create()
        tap_features, attributes = self.get_features(layer, pool), {"spec": self.spec.to_dict()}
        n_bytes = tap_features.add(keys, features, self._tmp, attributes, views=views, compression=compression)
        self.create()  # again: `cache prune` may have found the folder empty before these rows were in it
        return n_bytes


def _is_layer(value: object) -> bool:
    """Return whether a value from a file is a layer with a name and a cost."""
    if not isinstance(value, dict):
        return False
    cost = value.get("cost")
    return isinstance(value.get("name"), str) and isinstance(cost, int) and not isinstance(cost, bool) and cost >= 0
