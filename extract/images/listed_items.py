"""Collects the images that the rows of manifests list; each path becomes one item or is rejected."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .image_source import Listing
from .item import Item, Rejection
from .manifest_rows import read_rows
from .split_names import parse_split


class ItemCollector:
    """Collects the items of manifests below one root."""

    def __init__(self) -> None:
        self.listed_names: set[str] = set()
        self._items: dict[str, Item] = {}
        self._rejections: list[Rejection] = []
        self._conflicts: set[str] = set()

    def read(self, path: Path, prefix: str, split: str | None) -> None:
        """Add the rows of a manifest.

        Parameters
        ----------
        path : Path
            The manifest.
        prefix : str
            Its folder relative to the root, with a slash at the end, or "".
        split : str or None
            The split of rows that name none.
        """
        resolver = _PathResolver(path.parent)
        reject = self._rejections.append
        for row in read_rows(path):
            if row.fault:
                reject(
                    Rejection(f"{prefix}{path.name}:{row.position.split()[-1]}", "bad_row", f"{row.position}: {row.fault}")
                )
                continue
            if not row.path:
                reject(
                    Rejection(
                        f"{prefix}{path.name}:{row.position.split()[-1]}", "no_path", f"{row.position}: the path is empty"
                    )
                )
                continue
            relative_path, location, fault = resolver.resolve(row.path)
            name = prefix + relative_path
            self.listed_names.add(name)
            if fault == "outside":
                reject(Rejection(row.path, "outside", f"{row.position}: path is outside {path.parent}"))
            elif not row.label:
                reject(Rejection(name, "no_label", f"{row.position}: the label is empty"))
            elif row.split and parse_split(row.split) is None:
                detail = f"{row.position}: unknown split {row.split[:80]!r}; use train, val or test"
                reject(Rejection(name, "unknown_split", detail))
            elif fault:
                reject(Rejection(name, fault, f"{row.position}: no such file"))
            else:
                item_split = parse_split(row.split) if row.split else split
                self._add_item(Item(name, location, row.label, item_split, row.group or None), row.position)

    def _add_item(self, item: Item, position: str) -> None:
        existing = self._items.setdefault(item.name, item)
        if existing is item:
            return
        if (existing.label, existing.split, existing.group) == (item.label, item.split, item.group):
            self._rejections.append(Rejection(item.name, "listed_twice", f"{position}: listed before; used once"))
        else:
            self._conflicts.add(item.name)

    def get_listing(self) -> Listing:
        """Return the items in the order of the manifests, and the rejected paths."""
        for name in sorted(self._conflicts):
            del self._items[name]
            self._rejections.append(Rejection(name, "conflicting_rows", "listed with different labels, splits or groups"))
        return Listing(tuple(self._items.values()), tuple(self._rejections))


class _PathResolver:
    """Resolves listed paths and their links: each folder once, a file only if it is a link."""

    def __init__(self, root: Path) -> None:
        self._root_prefix = "" if str(root) == "." else f"{str(root).rstrip(os.sep)}{os.sep}"
        self._real_root = os.path.realpath(root)
        self._real_root_prefix = f"{self._real_root.rstrip(os.sep)}{os.sep}"
        self._real_folders: dict[str, str] = {}
        self._plain_folders: set[str] = (
            set()
        )  # folders whose path begins with the root as it is spelled, and whose real path is inside it

    def resolve(self, path: str) -> tuple[str, str, str]:
        """Return the name relative to the root, the location, and the fault ("", `outside` or `not_found`) of `path`."""
        location = os.path.normpath(path if path[0] == os.sep else self._root_prefix + path)
        folder, _, basename = location.rpartition(os.sep)
        if folder not in self._real_folders:
            self._real_folders[folder] = real_folder = _resolve_links(
                folder or (os.sep if location.startswith(os.sep) else ".")
            )
            starts_with_root = location.startswith(self._root_prefix) if self._root_prefix else not os.path.isabs(location)
            if starts_with_root and f"{real_folder}{os.sep}".startswith(self._real_root_prefix):
                self._plain_folders.add(folder)
        try:
            mode = os.lstat(location).st_mode
        except (OSError, ValueError):
            mode = 0
        if folder in self._plain_folders and stat.S_ISREG(mode):
            return location[len(self._root_prefix) :], location, ""
        return self._check_real_path(location, f"{self._real_folders[folder]}{os.sep}{basename}", mode)

    def _check_real_path(self, location: str, real_path: str, mode: int) -> tuple[str, str, str]:
        name = location.removeprefix(self._root_prefix)
        if not location.startswith(self._root_prefix) or os.path.isabs(name):  # the root is spelled in another way
            name = os.path.relpath(real_path, self._real_root)
        if stat.S_ISLNK(mode) or stat.S_ISDIR(mode):
            real_path = _resolve_links(location)
        if real_path and real_path != self._real_root and not real_path.startswith(self._real_root_prefix):
            return name, location, "outside"
        is_file = stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and os.path.isfile(location))
        return name, location, "" if is_file else "not_found"


def _resolve_links(path: str) -> str:
    """Return `path` with links resolved; "" for one that cannot exist."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return ""
