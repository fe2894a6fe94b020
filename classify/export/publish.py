"""Publish a model file or folder, atomically if possible, replacing an older one."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import time
from pathlib import Path

_STALE_SECONDS = 24 * 3600


def get_card_path(out: Path) -> Path:
    """Return the path of the model card of the model at `out`."""
    return out.with_name(f"{out.name}.md")


def remove_stale_drafts(out: Path, suffix: str) -> None:
    """Remove temporary files of the model at `out` that killed processes left more than a day ago."""
    for temp_path in out.absolute().parent.glob(f".{glob.escape(out.stem)}-????????{glob.escape(suffix)}"):
        with contextlib.suppress(OSError):
            if time.time() - temp_path.lstat().st_mtime > _STALE_SECONDS:
                remove(temp_path)


def move_into_place(temp_path: Path, out: Path) -> None:
    """Rename `temp_path` to `out`. A folder cannot be replaced atomically: the older one is renamed first, then deleted."""
    if not temp_path.is_dir() or not out.exists():
        os.replace(temp_path, out)
        return
    backup = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    os.rename(out, backup)
    try:
        os.rename(temp_path, out)
    except OSError:
        os.rename(backup, out)
        raise
    remove(backup)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def get_size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
