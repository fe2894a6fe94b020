"""Images that a file lists: a manifest, or a metadata file that lies beside them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ...cache.errors import DataError
from . import class_folders
from .dataset import SPLITS, Dataset, Item, Refusal
from .manifest import read_rows

_FORMS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def is_list(path: Path) -> bool:
    """Whether the name says that the file lists images."""
    return path.suffix.lower() in _FORMS


def find(path: Path) -> Dataset:
    """The images that the file at `path` lists, by paths relative to its folder that stay inside it."""
    listing = _Listing(path.parent)
    listing.read(path, "", None)
    return Dataset(path, path.parent, "manifest", *listing.result())


def beside(root: Path) -> Dataset | None:
    """The images below `root` that metadata files list, in the layout of Hugging Face's ImageFolder; None without any.

    A `metadata.csv`, `.jsonl` or `.parquet` lies in `root` or in its split folders, and its paths are relative to its own
    folder. Files that it does not list are refused. Raises `DataError`.
    """
    own, refused = _metadata_in(root), list[Refusal]()
    lists: dict[Path, tuple[str, str | None]] = {own: ("", None)} if own else {}
    for name in [] if own else class_folders.listing(str(root), "", [])[0]:
        if name.lower() in SPLITS and (there := _metadata_in(root / name)) is not None:
            lists[there] = (f"{name}/", SPLITS[name.lower()])
    if not lists:
        return None
    listing = _Listing(root)
    for path, (prefix, split) in lists.items():
        listing.read(path, prefix, split)
    files = {f"{prefix}{path.name}" for path, (prefix, _) in lists.items()}
    for name, _ in class_folders.walk(str(root), "", refused):
        if name not in listing.named and name not in files:
            refused.append(Refusal(name, "not_listed", "no metadata file lists it"))
    items, faults = listing.result()
    return Dataset(root, root, "manifest", items, (*faults, *refused))


def _metadata_in(folder: Path) -> Path | None:
    found = [folder / name for name in _METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: expected one metadata file, found {found[0].name} and {found[1].name}; keep one")
    return found[0] if found else None


class _Listing:
    """Items of lists under one root, each path with one outcome."""

    def __init__(self, root: Path) -> None:
        self.named: set[str] = set()
        self._root, self._items = root, dict[str, Item]()
        self._refused: list[Refusal] = []
        self._conflicts: set[str] = set()

    def read(self, path: Path, prefix: str, split: str | None) -> None:
        """Add what the file at `path` lists; `prefix` is its folder below the root, `split` holds for rows without one."""
        places = _Places(path.parent)
        refuse = self._refused.append
        for row in read_rows(path):
            if row.fault:
                refuse(Refusal(f"{prefix}{path.name}:{row.where.split()[-1]}", "bad_row", f"{row.where}: {row.fault}"))
                continue
            if not row.path:
                refuse(Refusal(f"{prefix}{path.name}:{row.where.split()[-1]}", "no_path", f"{row.where}: the path is empty"))
                continue
            place, location, fault = places.find(row.path)
            name = prefix + place
            self.named.add(name)
            if fault == "outside":
                refuse(Refusal(row.path, "outside", f"{row.where}: expected a path inside {path.parent}"))
            elif not row.label:
                refuse(Refusal(name, "no_label", f"{row.where}: the label is empty"))
            elif row.split and row.split.lower() not in SPLITS:
                refuse(Refusal(name, "unknown_split", f"{row.where}: expected train, val or test, found {row.split[:80]!r}"))
            elif fault:
                refuse(Refusal(name, fault, f"{row.where}: no such file"))
            else:
                own = SPLITS[row.split.lower()] if row.split else split
                self._add(Item(name, location, row.label, own, row.group or None), row.where)

    def _add(self, item: Item, where: str) -> None:
        known = self._items.setdefault(item.name, item)
        if known is item:
            return
        if (known.label, known.split, known.group) == (item.label, item.split, item.group):
            self._refused.append(Refusal(item.name, "listed_twice", f"{where}: listed before; used once"))
        else:
            self._conflicts.add(item.name)

    def result(self) -> tuple[tuple[Item, ...], tuple[Refusal, ...]]:
        """What is used, in the order of the lists, and what is not."""
        for name in sorted(self._conflicts):
            del self._items[name]
            self._refused.append(Refusal(name, "conflicting_rows", "listed with different labels, splits or groups"))
        return tuple(self._items.values()), tuple(self._refused)


class _Places:
    """Where listed paths lead, links followed: each folder is resolved once, a file only if it is a link."""

    def __init__(self, root: Path) -> None:
        self._start = "" if str(root) == "." else f"{str(root).rstrip(os.sep)}{os.sep}"
        self._inside = os.path.realpath(root)
        self._below = f"{self._inside.rstrip(os.sep)}{os.sep}"
        self._folders: dict[str, str] = {}
        self._sound: set[str] = set()  # folders that are spelt as the root is, and lie inside of it

    def find(self, path: str) -> tuple[str, str, str]:
        """Name below the root, location, and "", `outside` or `not_found`, of the file that the cell `path` names."""
        location = os.path.normpath(path if path[0] == os.sep else self._start + path)
        folder, _, last = location.rpartition(os.sep)
        if folder not in self._folders:
            self._folders[folder] = real = _real(folder or (os.sep if location.startswith(os.sep) else "."))
            spelt = location.startswith(self._start) if self._start else not os.path.isabs(location)
            if spelt and f"{real}{os.sep}".startswith(self._below):
                self._sound.add(folder)
        try:
            mode = os.lstat(location).st_mode
        except (OSError, ValueError):
            mode = 0
        if folder in self._sound and stat.S_ISREG(mode):
            return location[len(self._start) :], location, ""
        return self._look_closer(location, f"{self._folders[folder]}{os.sep}{last}", mode)

    def _look_closer(self, location: str, real: str, mode: int) -> tuple[str, str, str]:
        name = location.removeprefix(self._start)
        if not location.startswith(self._start) or os.path.isabs(name):  # another spelling of the root
            name = os.path.relpath(real, self._inside)
        if stat.S_ISLNK(mode) or stat.S_ISDIR(mode):
            real = _real(location)
        if real and real != self._inside and not real.startswith(self._below):
            return name, location, "outside"
        found = stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and os.path.isfile(location))
        return name, location, "" if found else "not_found"


def _real(path: str) -> str:
    """`path` with links followed; "" for one that cannot exist."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return ""
