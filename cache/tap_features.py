"""The rows of one tap of one extraction: a folder of shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from . import row_reader as reading
from . import shard
from .atomic_files import publish
from .errors import CacheError, RowsMissing
from .index import Index
from .verification import Trust

_THREADS = min(4, os.cpu_count() or 1)
_WORTH_THREADS = 1 << 25  # bytes: below this they take longer to start than to help
_ATTEMPTS = 5


class Features:
    """Rows keyed by image digest (32 bytes) and view, in the shards of one folder.

    Reading writes nothing. Where the same row was stored twice, either may be served: they are equal.
    `identity` is what each shard must say of itself to be served from here. Each call lists the folder and compares every
    shard with what was verified, so that rows added, damaged or removed meanwhile are noticed; what is in the shards is
    kept from call to call.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], trust: Trust) -> None:
        self.path, self.identity = path, identity
        self.layer, self.pool = str(identity["layer"]), str(identity["pool"])
        self._trust = trust
        self._shards: dict[str, shard.Shard] = {}
        self._index: dict[int, Index] = {}
        self._added: set[str] = set()
        self._unfit: set[str] = set()  # whole by their digest, and yet their rows could not be read

    def shards(self) -> list[shard.Shard]:
        """The valid shards now in the folder; damaged ones are refused and noted."""
        present, folder = self._present(), f"{self.path}{os.sep}"
        for name in set(self._shards) - set(present):
            self._drop(name)
        for name in present:
            try:
                self._trust.verify(folder + name)
                if name not in self._shards:
                    self._shards[name] = shard.load(self.path / name, self.identity)
                    self._index.clear()
            except FileNotFoundError:  # removed since it was listed
                self._drop(name)
            except shard.Damaged as damage:
                self._refuse(name, damage)
        return [self._shards[name] for name in present if name in self._shards]

    def _present(self) -> list[str]:
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if shard.NAME.fullmatch(name) and name not in self._unfit)

    def _drop(self, name: str) -> None:
        if self._shards.pop(name, None) is not None:
            self._index.clear()

    def _refuse(self, name: str, damage: shard.Damaged) -> bool:
        """Note a damaged shard; False when it is only gone (HDF5 calls a file damaged that goes while it is opened)."""
        there = os.path.lexists(self.path / name)
        if there:
            self._trust.refuse(self.path / name, str(damage), aside=not isinstance(damage, shard.Unreadable))
        self._drop(name)
        return there

    def find(self, keys: np.ndarray, view: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """For each of `keys` (n,) S32: shard number (n,) and row (n,) of its `view`, or -1 where there is none."""
        return self._find(self.shards(), keys, view)

    def _find(self, shards: list[shard.Shard], keys: np.ndarray, view: int) -> tuple[np.ndarray, np.ndarray]:
        if view not in self._index:
            self._index[view] = Index([item.keys for item in shards], [item.views for item in shards], view)
        return self._index[view].find(keys)

    @property
    def news(self) -> bool:
        """Whether the folder has shards that neither a call before found nor this object added."""
        return not self._added.union(self._shards).issuperset(self._present())

    def missing(self, keys: np.ndarray, view: int = 0) -> np.ndarray:
        """Mask (n,) of the keys that have no row of `view`."""
        return self.find(keys, view)[0] < 0

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Rows (n, ...) of `view` in the order of `keys`, in the widest dtype among the shards; bfloat16 as float32.

        With `columns` (from start to stop) only those of the flattened rows, (n, stop - start).

        Raises `RowsMissing` rather than fill a gap. A shard that another process removes while it is read is a gap too,
        unless another shard holds its rows.
        """
        for _ in range(_ATTEMPTS):
            shards = self.shards()  # listed once: another process may add one, which would number them anew
            numbers, rows = self._find(shards, keys, view)
            if not len(keys) or (numbers < 0).any():
                break
            shape = shards[0].shape[1:]
            if any(item.shape[1:] != shape for item in shards):
                raise CacheError(
                    f"{self.path}: expected rows of one shape, found {sorted({item.shape[1:] for item in shards})}; "
                    "delete this folder and run `humeris extract` again"
                )
            if columns is not None:
                shape = (columns.stop - columns.start,)
            out = np.empty((len(keys), *shape), np.result_type(*(item.dtype for item in shards)))
            if self._gather(shards, numbers, rows, out, columns):
                return out
        raise RowsMissing(
            f"{self.path}: expected rows for {len(keys)} images, found {int((numbers >= 0).sum())}; "
            "run `humeris extract` on the same data to compute the rest"
        )

    def _gather(
        self, shards: list[shard.Shard], numbers: np.ndarray, rows: np.ndarray, out: np.ndarray, columns: slice | None
    ) -> bool:
        """Fill `out` from the shards; False when one of them could not be read any more and another look is needed."""

        def fill(places: np.ndarray) -> bool:
            item = shards[numbers[places[0]]]
            try:
                reading.read(item.path, item.layout, rows[places], out, places, columns)
            except FileNotFoundError:
                return False
            except shard.Damaged as damage:
                if self._refuse(item.path.name, damage):
                    self._unfit.add(item.path.name)
                return False
            return True

        order = np.argsort(numbers, kind="stable")
        groups = np.split(order, np.nonzero(np.diff(numbers[order]))[0] + 1)
        if out.nbytes < _WORTH_THREADS or len(groups) == 1:
            return all(fill(places) for places in groups)
        with ThreadPoolExecutor(_THREADS) as pool:
            return all(list(pool.map(fill, groups)))

    def add(
        self,
        keys: np.ndarray,
        features: np.ndarray,
        tmp: Path,
        attributes: Mapping[str, Any],
        *,
        views: np.ndarray | None = None,
        compression: str = "none",
    ) -> int:
        """Store rows (n, ...) for `keys` (n,) and `views` (n,), the plain view unless given; the bytes written.

        When this returns the rows survive a crash. Rows of different dtypes may lie side by side. `compression` is one of
        none, gzip and blosc2; raises `CacheError` where it cannot be used.
        """
        views = np.zeros(len(keys), np.uint16) if views is None else views
        data = shard.encode(features, keys, views, {**attributes, **self.identity}, compression)
        path = self.path / f"{hashlib.sha256(data).hexdigest()}.h5"
        publish(data, path, tmp)
        self._added.add(path.name)
        self._trust.written(path)
        return len(data)
