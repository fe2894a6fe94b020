"""Pruning of a cache: removes whole taps, those without new rows for longest first."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from . import shard
from .atomic_files import list_stale, publish, read_file, translate_write_errors
from .errors import CacheError
from .extraction import read_spec
from .store import Store

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def parse_age(text: str) -> float:
    """Return the seconds in `30d`, `12h`, `2w`; raises `CacheError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhdw])", text.strip())
    if match is None:
        raise CacheError(f"invalid age {text!r}; give a number followed by s, m, h, d or w, such as 30d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes in `10GB`, `500 MB`, `1.5GiB`, `0`; raises `CacheError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kKMGT]|[KMGT]i)?B?)", text.strip())
    if match is None:
        raise CacheError(f"invalid size {text!r}; give a number followed by kB, MB, GB or TB, such as 10GB")
    return int(float(match[1]) * _BYTES["k" if match[2] == "K" else match[2] or ""])


@dataclass(frozen=True)
class _TapFolder:
    """The shards of one folder; written_at: time of the newest one, in seconds since 1970."""

    path: Path
    shards: list[Path]
    n_bytes: int
    written_at: float

    def to_dict(self, now: float) -> dict[str, Any]:
        layer, _, pool = self.path.name.rpartition(".")
        return {
            "extraction": self.path.parent.name,
            "tap": f"{unquote(layer)}:{pool}",
            "shards": len(self.shards),
            "bytes": self.n_bytes,
            "age_days": round((now - self.written_at) / 86400, 2),
        }


@dataclass
class _Deleter:
    """Removes files unless `dry_run`; a missing file is no failure, those that cannot be removed are in `failures`."""

    dry_run: bool
    failures: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, path: Path) -> bool:
        try:
            if not self.dry_run:
                path.unlink(missing_ok=True)
        except OSError as error:
            self.failures.append({"path": str(path), "reason": error.strerror or str(error)})
            return False
        return True


def prune(
    store: Store, *, older_than: float | None = None, max_bytes: int | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Remove taps by age or to fit a size.

    A tap is removed as a whole, since a sweep cannot use a part of it. Its age is the time since rows were last added to
    it, as no file system reliably records when a file was last read. Quarantined files, temporary files that killed
    processes left more than a day ago, and folders without rows are removed too. Other processes may read and write
    meanwhile: a removed row looks to a reader as if it was never stored, and a writer creates its folder again.

    Parameters
    ----------
    store : Store
        The cache.
    older_than : float, optional
        Remove taps that are older than this, in seconds.
    max_bytes : int, optional
        Remove the oldest taps until the rest fits.
    dry_run : bool
        Whether to remove nothing and return what would be removed.

    Returns
    -------
    dict
        What was removed and what is kept, as JSON values.

    Raises
    ------
    CacheError
        If neither criterion is given.
    CacheReadOnly
        If the cache is read-only.
    """
    if older_than is None and max_bytes is None:
        raise CacheError("prune: no age and no size is given; give --older-than or --max-size")
    root, now = store.path / "features", time.time()
    drafts = list_stale(store.path / "tmp")
    if not dry_run and root.is_dir():
        store.create()
    taps = sorted(_scan_taps(root), key=lambda tap: (tap.written_at, tap.path))
    kept_taps = [tap for tap in taps if older_than is None or now - tap.written_at <= older_than]
    while kept_taps and max_bytes is not None and sum(tap.n_bytes for tap in kept_taps) > max_bytes:
        kept_taps.pop(0)
    removed_taps = [tap for tap in taps if tap not in kept_taps]
    delete = _Deleter(dry_run)
    for tap in removed_taps:
        for path in tap.shards:
            delete(path)
    quarantined_paths = [path for path in sorted(root.glob("*/*/*.h5.corrupt")) if not path.is_dir() or path.is_symlink()]
    result = {
        "cache": str(store.path),
        "dry_run": dry_run,
        "removed": [tap.to_dict(now) for tap in removed_taps],
        "bytes": sum(tap.n_bytes for tap in removed_taps),
        "set_aside": [str(path) for path in quarantined_paths if delete(path)],
        "drafts": sum(delete(path) for path in drafts),
        "kept": len(kept_taps),
        "bytes_kept": sum(tap.n_bytes for tap in kept_taps),
        "left_out": delete.failures,
    }
    if not dry_run:
        for folder in _list_folders(root):
            with translate_write_errors(folder):
                _remove_empty_folders(folder, store.path / "tmp")
    return result


def _list_folders(path: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _scan_taps(root: Path) -> Iterator[_TapFolder]:
    for folder in (tap for extraction in _list_folders(root) for tap in _list_folders(extraction)):
        shards, size, written_at = [], 0, 0.0
        for path in sorted(folder.iterdir()):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if shard.NAME.fullmatch(path.name):
                shards.append(path)
                size, written_at = size + status.st_size, max(written_at, status.st_mtime)
        if shards:
            yield _TapFolder(folder, shards, size, written_at)


def _remove_empty_folders(extraction: Path, tmp: Path) -> None:
    """Remove the empty folders of an extraction; rmdir fails on one that is not empty."""
    for folder in _list_folders(extraction):
        _remove_folder(folder)
    if _list_folders(extraction):
        return
    spec = read_spec(extraction / "spec.json")
    layers_path = extraction / "layers.json"
    layers_json = b""
    with suppress(OSError):
        layers_json = read_file(layers_path)
    for path in (extraction / "spec.json", layers_path):
        path.unlink(missing_ok=True)
    if spec is not None and _list_folders(extraction):  # a writer was faster: restore the spec of its rows
        publish((json.dumps(spec.to_dict(), indent=2) + "\n").encode(), extraction / "spec.json", tmp)
        if layers_json:
            publish(layers_json, layers_path, tmp)
    _remove_folder(extraction)


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
