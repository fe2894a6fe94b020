"""Verification of shards, and the record of corrupt files."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from . import shard
from .file_stamp import FileStamp
from .key_value_store import KeyValueStore


@dataclass(frozen=True)
class CorruptFileRecord:
    """A corrupt file, with the reason."""

    path: Path
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return the fields as JSON values."""
        return {"path": str(self.path), "reason": self.reason}


class Verifier:
    """Verifies each file's digest once, remembered by inode, size, mtime and ctime.

    Parameters
    ----------
    root : Path
        The cache folder.
    kv_store : KeyValueStore
        Stores which files were verified.
    write : bool
        Whether a corrupt shard is quarantined, that is, renamed.

    Attributes
    ----------
    corrupt_files : list of CorruptFileRecord
        The corrupt files so far.
    """

    def __init__(self, root: Path, kv_store: KeyValueStore, write: bool) -> None:
        self._root, self._kv_store, self._write = root, kv_store, write
        self._prefix = os.path.join(root, "")
        self._verified: dict[str, list[int]] = kv_store.get_json("verified", "") or {}
        self._unverified: list[Path] = []
        self._changed = False
        self.corrupt_files: list[CorruptFileRecord] = []

    def verify(self, path: Path | str) -> None:
        """Check a shard's digest, unless this file was checked before; raises `shard.CorruptFile`.

        Raises `FileNotFoundError` if the file is gone, which is not corruption.
        """
        now = time.time_ns()
        fingerprint = _fingerprint(path)  # taken first: a file that changes while it is read must not be trusted
        name = self._to_name(path)
        if self._verified.get(name) != fingerprint:
            shard.check_digest(Path(path))
            if FileStamp(*fingerprint).is_stable(now):
                self._verified[name] = fingerprint
                self._changed = True

    def register(self, path: Path) -> None:
        """Register a new shard, and verify those registered before, which are still in the page cache.

        A file just written is never trusted: a change within one tick of the clock shows in no timestamp. Without this,
        readers that cannot store what they verified would verify each new shard every time.
        """
        self._verify_registered()
        self._unverified.append(path)

    def _verify_registered(self) -> None:
        paths, self._unverified = self._unverified, []
        for path in paths:
            with contextlib.suppress(FileNotFoundError, shard.CorruptFile):  # detected when it is read
                if FileStamp(*_fingerprint(path)).is_stable(time.time_ns()):
                    self.verify(path)
                else:
                    self._unverified.append(path)

    def forget(self) -> None:
        """Forget which files were verified; every digest is checked again."""
        self._verified.clear()

    def quarantine(self, path: Path, reason: str, *, rename: bool = True) -> None:
        """Record a corrupt file; if the cache is writable, rename a shard, unless it may be intact (`rename=False`)."""
        record = CorruptFileRecord(path, reason)
        if record not in self.corrupt_files:
            self.corrupt_files.append(record)
        if rename and self._write and shard.NAME.fullmatch(path.name):
            # The second name is for when the first is a folder's.
            for name in (f"{path.name}.corrupt", f"{path.stem}-{secrets.token_hex(4)}.h5.corrupt"):
                with contextlib.suppress(OSError):  # a read-only disk, or another process was faster
                    path.rename(path.with_name(name))
                    break

    def save(self) -> None:
        """Store which files were verified, if the cache is writable."""
        self._verify_registered()
        if self._changed:
            fingerprints = {name: value for name, value in self._verified.items() if (self._root / name).exists()}
            self._changed = not self._kv_store.put_json("verified", "", fingerprints)

    def _to_name(self, path: Path | str) -> str:
        return os.fspath(path).removeprefix(self._prefix)


def _fingerprint(path: Path | str) -> list[int]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise shard.UnreadableFile(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):  # a FIFO would wait for ever, a link may lead outside
        raise shard.CorruptFile("not a regular file")
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
