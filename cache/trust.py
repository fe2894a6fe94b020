"""Which files have been checked, and which were refused."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from . import shard
from .memo import Memo


@dataclass(frozen=True)
class Damage:
    """A file that was not served: where, and why."""

    path: Path
    reason: str

    def to_dict(self) -> dict[str, str]:
        """JSON values."""
        return {"path": str(self.path), "reason": self.reason}


class Trust:
    """Digests verified once per file, remembered by inode, size, mtime and ctime.

    damaged: files refused since it was made. With `write`, a damaged shard is renamed so that nobody trips over it again.
    """

    def __init__(self, root: Path, memo: Memo, write: bool) -> None:
        self._root, self._memo, self._write = root, memo, write
        self._prefix = os.path.join(root, "")
        self._verified: dict[str, list[int]] = memo.get_json("verified", "") or {}
        self._changed = False
        self.damaged: list[Damage] = []

    def verify(self, path: Path | str) -> None:
        """Check a shard's digest, unless this very file was checked before; raises `shard.Damaged`.

        Raises `FileNotFoundError` when there is no file any more: that is no damage.
        """
        before = _fingerprint(path)  # taken first: a file that changes while it is read must not be trusted
        name = self._name(path)
        if self._verified.get(name) != before:
            shard.check_digest(Path(path))
            self._verified[name] = before
            self._changed = True

    def accept(self, path: Path) -> None:
        """Remember that the file at `path`, as it is now, matches its digest."""
        with contextlib.suppress(FileNotFoundError):  # removed by another process at once
            self._verified[self._name(path)] = _fingerprint(path)
            self._changed = True

    def forget(self) -> None:
        """Check every digest again from here on."""
        self._verified.clear()

    def refuse(self, path: Path, reason: str, *, aside: bool = True) -> None:
        """Note a damaged file; when writing, set a shard aside, unless it may be sound (`aside=False`)."""
        damage = Damage(path, reason)
        if damage not in self.damaged:
            self.damaged.append(damage)
        if aside and self._write and shard.NAME.fullmatch(path.name):
            with contextlib.suppress(OSError):  # a read-only disk, or another process was faster
                path.rename(path.with_name(path.name + ".damaged"))

    def save(self) -> None:
        """Write down which files were verified, where the cache may be written."""
        if self._changed:
            present = {name: value for name, value in self._verified.items() if (self._root / name).exists()}
            self._changed = not self._memo.put_json("verified", "", present)

    def _name(self, path: Path | str) -> str:
        return os.fspath(path).removeprefix(self._prefix)


def _fingerprint(path: Path | str) -> list[int]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise shard.Unreadable(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):  # a FIFO would wait for ever, a link may lead outside
        raise shard.Damaged("not a regular file")
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
