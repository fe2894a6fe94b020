"""Atomic file writes: a file is complete or absent."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import CacheError, CacheFull, CacheReadOnly

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_STALE_SECONDS = 24 * 3600
_ATTEMPTS = 50
_ALTERNATIVE = "another folder with --cache"


@contextmanager
def translate_write_errors(path: Path, alternative: str = _ALTERNATIVE) -> Iterator[None]:
    """Convert an `OSError` of a write under `path` to a `CacheError` whose remedy is to give `alternative`."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise CacheFull(
                f"{path}: no space left to write ({reason}); everything written before is intact; "
                f"free some space, or give {alternative}, and run the same command again"
            ) from error
        if error.errno in _READ_ONLY:
            raise CacheReadOnly(
                f"{path}: folder is read-only ({reason}); change its permissions or give {alternative}"
            ) from error
        raise CacheError(f"{path}: cannot write: {reason}; give {alternative}") from error


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file; raises `OSError` for anything else (reading a FIFO would block forever)."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read()


def read_json(path: Path) -> Any:
    """Return the JSON value in a regular file; raises `OSError`, or `ValueError` for invalid JSON."""
    try:
        return json.loads(read_file(path))
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error


def sync_folder(folder: Path) -> None:
    """Sync `folder` so that the names in it survive a power cut (rename alone does not, see ext4's documentation)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, alternative: str = _ALTERNATIVE) -> None:
    """Create `folder` and its parents, and sync each parent."""
    if folder.is_dir():
        return
    with translate_write_errors(folder, alternative):
        parents: set[Path] = set()
        _retry(lambda: _make_folders(folder, parents))
        _sync(parents)


def _make_folders(folder: Path, parents: set[Path]) -> None:
    """Create `folder` and its parents; add the parent of each new folder to `parents`.

    Nothing is synced before all exist: `cache prune` removes empty folders, and a slow sync would give it the time.
    """
    new_folders = [folder, *folder.parents]
    while new_folders and new_folders[-1].is_dir():
        new_folders.pop()
    for new_folder in reversed(new_folders):
        with suppress(FileExistsError):  # pathlib's own exist_ok fails on a folder that comes and goes
            new_folder.mkdir()
            parents.add(new_folder.parent)


def _sync(folders: set[Path]) -> None:
    for folder in folders:
        with suppress(FileNotFoundError):  # pruned right after it was created
            sync_folder(folder)


def _retry(step: Callable[[], None]) -> None:
    """Retry `step` when a folder is missing: it was empty for a moment, and `cache prune` removed it.

    Waits up to 50 ms between attempts, as a file system may report a folder for a while after it was removed.
    """
    for attempt in range(_ATTEMPTS - 1):
        with suppress(FileNotFoundError):
            step()
            return
        time.sleep(min(0.05, 0.001 * attempt))
    step()


def publish(data: bytes, path: Path, tmp: Path, mode: int = 0o444, alternative: str = _ALTERNATIVE) -> None:
    """Write `data` to `path` atomically: private file in `tmp`, fsync, rename, fsync of the folder.

    Once this returns the file survives a crash; until then no part of it is visible.
    A folder that `cache prune` removes meanwhile is created again.

    Parameters
    ----------
    data : bytes
        The content.
    path : Path
        The file to write.
    tmp : Path
        Folder for the temporary file, on the same file system as `path`.
    mode : int
        Permissions of the file.
    alternative : str
        What an error message tells the user to give instead.

    Raises
    ------
    CacheFull, CacheReadOnly, CacheError
        If the file cannot be written.
    """
    make_folder(tmp, alternative)
    draft = tmp / f"{os.getpid()}-{secrets.token_hex(8)}"
    with translate_write_errors(path.parent, alternative):
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                unwritten = memoryview(data)
                while unwritten:
                    unwritten = unwritten[os.write(descriptor, unwritten) :]
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            parents = {path.parent}
            _retry(lambda: _move(draft, path, parents))
            _sync(parents)
        finally:
            draft.unlink(missing_ok=True)


def _move(draft: Path, path: Path, parents: set[Path]) -> None:
    _make_folders(path.parent, parents)
    os.rename(draft, path)


def list_stale(tmp: Path) -> list[Path]:
    """Return the files in `tmp` that are more than a day old, left by killed processes."""
    paths, now = [], time.time()
    for entry in os.scandir(tmp) if tmp.is_dir() else ():
        with suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False) and now - entry.stat().st_mtime > _STALE_SECONDS:
                paths.append(Path(entry.path))
    return paths


def clear_stale(tmp: Path) -> None:
    """Remove the files in `tmp` that are more than a day old, left by killed processes."""
    for path in list_stale(tmp):
        path.unlink(missing_ok=True)


def get_free_bytes(path: Path) -> int:
    """Return the free bytes on the disk that holds `path` or its nearest existing parent."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
