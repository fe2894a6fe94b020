"""Rows of one tap of one extraction: a folder of shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from . import row_reader, shard
from .atomic_files import publish
from .errors import CacheError, RowsMissing
from .index import RowIndex
from .verification import Verifier

_THREADS = min(4, os.cpu_count() or 1)
_MIN_THREADED_BYTES = 1 << 25  # bytes: below this they take longer to start than to help
_ATTEMPTS = 5


class TapFeatures:
    """Rows keyed by image digest (32 bytes) and view, in the shards of one folder.

    Reading writes nothing. Of a row stored twice either copy may be returned: they are equal. Each call lists the folder
    and compares every shard with what was verified, so that rows added, corrupted or removed meanwhile are noticed; the
    index of the shards is kept from call to call.

    Parameters
    ----------
    path : Path
        The folder.
    identity : mapping
        Attributes that each shard must have: extraction, layer and pool.
    verifier : Verifier
        Verifies shards and quarantines corrupt ones.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], verifier: Verifier) -> None:
        self.path, self.identity = path, identity
        self.layer, self.pool = str(identity["layer"]), str(identity["pool"])
        self._verifier = verifier
        self._shards: dict[str, shard.Shard] = {}
        self._indexes: dict[int, RowIndex] = {}
        self._added: set[str] = set()
        self._unreadable: set[str] = set()  # their digest matches, but their rows cannot be read

    def list_shards(self) -> list[shard.Shard]:
        """Return the valid shards now in the folder; corrupt ones are skipped and recorded."""
        names, folder = self._list_names(), f"{self.path}{os.sep}"
        for name in set(self._shards) - set(names):
            self._drop(name)
        for name in names:
            try:
                self._verifier.verify(folder + name)
                if name not in self._shards:
                    self._shards[name] = shard.load(self.path / name, self.identity)
                    self._indexes.clear()
            except FileNotFoundError:  # removed since it was listed
                self._drop(name)
            except shard.CorruptFile as error:
                self._quarantine(name, error)
        return [self._shards[name] for name in names if name in self._shards]

    def _list_names(self) -> list[str]:
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if shard.NAME.fullmatch(name) and name not in self._unreadable)

    def _drop(self, name: str) -> None:
        if self._shards.pop(name, None) is not None:
            self._indexes.clear()

    def _quarantine(self, name: str, error: shard.CorruptFile) -> bool:
        """Record a corrupt shard; returns False if it is only gone (HDF5 reports a file removed while opened as corrupt)."""
        exists = os.path.lexists(self.path / name)
        if exists:
            self._verifier.quarantine(self.path / name, str(error), rename=not isinstance(error, shard.UnreadableFile))
        self._drop(name)
        return exists

    def find(self, keys: np.ndarray, view: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return shard number (n,) and row (n,) of the `view` of each of `keys` (n,) S32, -1 if missing."""
        return self._find(self.list_shards(), keys, view)

    def _find(self, shards: list[shard.Shard], keys: np.ndarray, view: int) -> tuple[np.ndarray, np.ndarray]:
        if view not in self._indexes:
            self._indexes[view] = RowIndex([item.keys for item in shards], [item.views for item in shards], view)
        return self._indexes[view].find(keys)

    @property
    def has_new_rows(self) -> bool:
        """Whether the folder has shards that no earlier call listed and this object did not add."""
        return not self._added.union(self._shards).issuperset(self._list_names())

    def find_missing(self, keys: np.ndarray, view: int = 0) -> np.ndarray:
        """Return the mask (n,) of the `keys` (n,) S32 that have no row of `view`."""
        return self.find(keys, view)[0] < 0

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Return rows in the order of `keys`, in the widest dtype among the shards; bfloat16 as float32.

        Parameters
        ----------
        keys : np.ndarray
            Image digests (n,) S32.
        view : int
            The view; 0 is the plain one.
        columns : slice, optional
            Columns of the flattened rows, with start and stop.

        Returns
        -------
        np.ndarray
            (n, ...), or (n, stop - start) with `columns`.

        Raises
        ------
        RowsMissing
            If a row is missing, also because another process removed its only shard meanwhile.
        """
        for _ in range(_ATTEMPTS):
            shards = self.list_shards()  # listed once: another process may add one, which would renumber them
            shard_numbers, rows = self._find(shards, keys, view)
            if not len(keys) or (shard_numbers < 0).any():
                break
            shape = shards[0].shape[1:]
            if any(item.shape[1:] != shape for item in shards):
                raise CacheError(
                    f"{self.path}: rows differ in shape: {sorted({item.shape[1:] for item in shards})}; "
                    "delete this folder and run `humeris extract` again"
                )
            if columns is not None:
                shape = (columns.stop - columns.start,)
            out = np.empty((len(keys), *shape), np.result_type(*(item.dtype for item in shards)))
            if self._gather(shards, shard_numbers, rows, out, columns):
                return out
        raise RowsMissing(
            f"{self.path}: rows are missing: {int((shard_numbers >= 0).sum())} of {len(keys)} images are cached; "
            "run `humeris extract` on the same data to compute the rest"
        )

    def _gather(
        self, shards: list[shard.Shard], shard_numbers: np.ndarray, rows: np.ndarray, out: np.ndarray, columns: slice | None
    ) -> bool:
        """Fill `out` from the shards; returns False if one cannot be read any more and the folder must be listed again."""

        def fill(positions: np.ndarray) -> bool:
            item = shards[shard_numbers[positions[0]]]
            try:
                row_reader.read(item.path, item.layout, rows[positions], out, positions, columns)
            except FileNotFoundError:
                return False
            except shard.CorruptFile as error:
                if self._quarantine(item.path.name, error):
                    self._unreadable.add(item.path.name)
                return False
            return True

        order = np.argsort(shard_numbers, kind="stable")
        positions_by_shard = np.split(order, np.nonzero(np.diff(shard_numbers[order]))[0] + 1)
        if out.nbytes < _MIN_THREADED_BYTES or len(positions_by_shard) == 1:
            return all(fill(positions) for positions in positions_by_shard)
        with ThreadPoolExecutor(_THREADS) as executor:
            return all(list(executor.map(fill, positions_by_shard)))

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
        """Store rows; once this returns they survive a crash. The folder may hold rows of different dtypes.

        Parameters
        ----------
        keys : np.ndarray
            Image digests (n,) S32.
        features : np.ndarray
            Rows (n, ...).
        tmp : Path
            Folder for the temporary file.
        attributes : mapping
            JSON values stored with the rows.
        views : np.ndarray, optional
            View numbers (n,) uint16; the plain view by default.
        compression : str
            ``none``, ``gzip`` or ``blosc2``.

        Returns
        -------
        int
            Bytes written.

        Raises
        ------
        CacheError
            If `compression` cannot be used or the rows cannot be written.
        """
        views = np.zeros(len(keys), np.uint16) if views is None else views
        data = shard.encode(features, keys, views, {**attributes, **self.identity}, compression)
        path = self.path / f"{hashlib.sha256(data).hexdigest()}.h5"
        publish(data, path, tmp)
        self._added.add(path.name)
        self._verifier.register(path)
        return len(data)
