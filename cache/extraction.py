"""One network with its settings: a folder with its spec and a folder of rows per tap."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from .features import Features
from .files import publish
from .spec import Spec
from .trust import Trust


def read_spec(path: Path) -> Spec | None:
    """The spec in the file at `path`; None when there is none, it is damaged, or it belongs to another folder."""
    try:
        spec = Spec.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return spec if path.parent.name.endswith(f"-{spec.digest[:16]}") else None


class Extraction:
    """The features made with one `spec`, stored or not yet, under `path`."""

    def __init__(self, path: Path, spec: Spec, trust: Trust, tmp: Path, prepare: Callable[[], None]) -> None:
        self.path, self.spec = path, spec
        self._trust, self._tmp, self._prepare = trust, tmp, prepare
        self._features: dict[tuple[str, str], Features] = {}

    def features(self, layer: str, pool: str) -> Features:
        """The rows of one tap, stored or not yet."""
        if (layer, pool) not in self._features:
            identity = {"extraction": self.spec.digest, "layer": layer, "pool": pool}
            folder = self.path / f"{quote(layer, safe='')}.{pool}"
            self._features[layer, pool] = Features(folder, identity, self._trust)
        return self._features[layer, pool]

    def taps(self) -> list[Features]:
        """The taps that have a folder, by name."""
        if not self.path.is_dir():
            return []
        names = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir() and "." in entry.name)
        return [self.features(unquote(layer), pool) for layer, _, pool in (name.rpartition(".") for name in names)]

    def create(self) -> None:
        """Write `spec.json` unless it is there; raises `CacheReadOnly` where rows could not be stored."""
        self._prepare()
        path = self.path / "spec.json"
        if read_spec(path) is None:
            publish((json.dumps(self.spec.to_dict(), indent=2) + "\n").encode(), path, self._tmp)

    def attach(self, name: str, value: Any) -> None:
        """Keep a JSON value beside the spec, as `<name>.json`, unless it is there."""
        if self.attached(name) is None:
            self.create()
            publish((json.dumps(value) + "\n").encode(), self.path / f"{name}.json", self._tmp)

    def attached(self, name: str) -> Any:
        """The JSON value kept as `<name>.json`, or None."""
        try:
            return json.loads((self.path / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None

    def add(self, layer: str, pool: str, keys: np.ndarray, features: np.ndarray) -> int:
        """Store rows (n, ...) of one tap for `keys` (n,) S32; the bytes written. They then survive a crash."""
        if not len(keys):
            return 0
        self.create()
        return self.features(layer, pool).add(keys, features, self._tmp, {"spec": self.spec.to_dict()})
