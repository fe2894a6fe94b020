"""Where a model is written: its draft, its card, and how it takes an older one's place."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import time
from pathlib import Path

_STALE_SECONDS = 24 * 3600


def beside(out: Path) -> Path:
    """Where the card of the model at `out` lies."""
    return out.with_name(f"{out.name}.md")


def clear_stale(out: Path, suffix: str) -> None:
    """Remove the drafts of this model that killed processes left more than a day ago."""
    for draft in out.absolute().parent.glob(f".{glob.escape(out.stem)}-????????{glob.escape(suffix)}"):
        with contextlib.suppress(OSError):
            if time.time() - draft.lstat().st_mtime > _STALE_SECONDS:
                remove(draft)


def publish(draft: Path, out: Path) -> None:
    """Give the model its name. A folder cannot take another's place in one step: the older one is set aside meanwhile."""
    if not draft.is_dir() or not out.exists():
        os.replace(draft, out)
        return
    aside = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    os.rename(out, aside)
    try:
        os.rename(draft, out)
    except OSError:
        os.rename(aside, out)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files)
