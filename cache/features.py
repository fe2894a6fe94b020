"""The rows of one tap of one extraction: a folder of shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import shard
from .errors import RowsMissing
from .files import publish
from .trust import Trust


class Features:
    """Rows keyed by image digest (32 bytes) and view, in the shards of one folder.

    Reading writes nothing. Where the same row was stored twice, either may be served: they are equal.
    `identity` is what each shard must say of itself to be served from here.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], trust: Trust) -> None:
        self.path, self.identity = path, identity
        self.layer, self.pool = str(identity["layer"]), str(identity["pool"])
        self._trust = trust
        self._shards: dict[str, shard.Shard] = {}
        self._index: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def shards(self) -> list[shard.Shard]:
        """The valid shards now in the folder; damaged ones are refused and noted."""
        names = sorted(entry.name for entry in os.scandir(self.path)) if self.path.is_dir() else []
        present = [name for name in names if shard.NAME.fullmatch(name)]
        for name in set(self._shards) - set(present):
            del self._shards[name]
            self._index = None
        for name in present:
            try:
                self._trust.verify(self.path / name)
                if name not in self._shards:
                    self._shards[name] = shard.load(self.path / name, self.identity)
                    self._index = None
            except shard.Damaged as damage:
                self._trust.refuse(self.path / name, str(damage), aside=not isinstance(damage, shard.Unreadable))
                self._shards.pop(name, None)
                self._index = None
        return [self._shards[name] for name in present if name in self._shards]

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of `keys` (n,) S32: shard number (n,) and row (n,) of its plain view, or -1 where there is none."""
        return self._find(self.shards(), keys)

    def _find(self, shards: list[shard.Shard], keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._index is None:
            where = [np.nonzero(item.views == 0)[0] for item in shards]
            known = np.concatenate([item.keys[rows] for item, rows in zip(shards, where, strict=True)] or [keys[:0]])
            numbers = np.repeat(np.arange(len(shards)), [len(rows) for rows in where])
            order = np.argsort(known, kind="stable")
            self._index = known[order], numbers[order], np.concatenate(where or [np.zeros(0, np.int64)])[order]
        known, numbers, rows = self._index
        if not len(known):
            return np.full(len(keys), -1), np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        hit = known[at] == keys
        return np.where(hit, numbers[at], -1), np.where(hit, rows[at], -1)

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Mask (n,) of the keys that have no row."""
        return self.find(keys)[0] < 0

    def read(self, keys: np.ndarray) -> np.ndarray:
        """Rows (n, ...) in the order of `keys`; raises `RowsMissing` rather than fill a gap."""
        shards = self.shards()  # listed once: another process may add one, which would number them anew
        numbers, rows = self._find(shards, keys)
        if not len(keys) or (numbers < 0).any():
            raise RowsMissing(
                f"{self.path}: expected rows for {len(keys)} images, found {int((numbers >= 0).sum())}; "
                "run `humeris extract` on the same data to compute the rest"
            )
        out = np.empty((len(keys), *shards[0].shape[1:]), np.result_type(*(item.dtype for item in shards)))
        for number in np.unique(numbers):
            mine = np.nonzero(numbers == number)[0]
            out[mine] = shards[number].rows()[rows[mine]]
        return out

    def add(self, keys: np.ndarray, features: np.ndarray, tmp: Path, attributes: Mapping[str, Any]) -> int:
        """Store rows (n, ...) of the plain view for `keys` (n,); the bytes written.

        When this returns the rows survive a crash. Rows of `float16` and `float32` may lie side by side.
        """
        data = shard.encode(features, keys, np.zeros(len(keys), np.uint16), {**attributes, **self.identity})
        path = self.path / f"{hashlib.sha256(data).hexdigest()}.h5"
        publish(data, path, tmp)
        self._trust.accept(path)
        return len(data)
