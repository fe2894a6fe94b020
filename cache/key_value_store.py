"""Key-value cache of values that can be recomputed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .atomic_files import publish, read_file
from .errors import CacheError


class KeyValueStore:
    """Small values in `folder`, each in a file with its own digest; a corrupt value is treated as missing.

    Parameters
    ----------
    folder : Path
        Where the values are.
    tmp : Path
        Folder for temporary files.
    prepare : callable or None
        Creates the cache before a write; if None, nothing is ever written.
    """

    def __init__(self, folder: Path, tmp: Path, prepare: Callable[[], None] | None) -> None:
        self._folder, self._tmp, self._prepare = folder, tmp, prepare

    def _build_path(self, kind: str, key: str) -> Path:
        return self._folder / f"{kind}-{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}"

    def get(self, kind: str, key: str) -> bytes | None:
        """Return the bytes stored for `key`, or None if they are missing or corrupt."""
        try:
            digest, _, value = read_file(self._build_path(kind, key)).partition(b"\n")
        except OSError:
            return None
        return value if hashlib.sha256(value).hexdigest().encode() == digest else None

    def put(self, kind: str, key: str, value: bytes) -> bool:
        """Store `value`; returns False if the cache cannot be written (the value is then recomputed)."""
        if self._prepare is None:
            return False
        try:
            self._prepare()
            digest = hashlib.sha256(value).hexdigest().encode()
            publish(digest + b"\n" + value, self._build_path(kind, key), self._tmp, mode=0o644)
        except CacheError:
            return False
        return True

    def get_json(self, kind: str, key: str) -> Any:
        """Return the JSON value stored for `key`, or None."""
        value = self.get(kind, key)
        return None if value is None else json.loads(value)

    def put_json(self, kind: str, key: str, value: Any) -> bool:
        """Store a JSON value; returns False if the cache cannot be written."""
        return self.put(kind, key, json.dumps(value).encode())
