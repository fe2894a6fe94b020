"""Walks folders of images: one rule for links, litter and documents, whichever command walks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from .item import Rejection
from .litter import is_document, is_litter


class FolderEntries(NamedTuple):
    """The sorted names of the folders and files in a folder; `prefix` is its path relative to the root, with a slash."""

    location: str
    prefix: str
    folders: list[str]
    files: list[str]


class FolderWalk:
    """Lists the folders below one root, and collects what is in them beside folders and files of images.

    Links to files are followed, because DVC and git-annex use them. A link to a folder is followed unless it leads to one
    that contains it, or to one that another link led to: so there are no loops.

    Attributes
    ----------
    rejections : list of Rejection
        Broken links, links that are not followed, devices, and entries that cannot be read.
    ignored : list of str
        Litter that is not hidden, and documents, by their paths relative to the root; of a folder its path alone.
    """

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []
        self.ignored: list[str] = []
        self._linked_folders: set[str] = set()

    def list_folder(self, location: str, prefix: str = "") -> FolderEntries:
        """Return the entries of a folder; nothing of one that cannot be read, which is a rejection."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(location) as scan:
                entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self._reject(prefix.rstrip("/") or ".", "unreadable", os.strerror(error.errno or 0))
            return FolderEntries(location, prefix, folders, files)
        for entry in entries:
            name = entry.name
            if is_litter(name):
                if not name.startswith("."):
                    self.ignored.append(f"{prefix}{name}")
                continue
            try:
                if entry.is_file():
                    if is_document(name):
                        self.ignored.append(f"{prefix}{name}")
                    else:
                        files.append(name)
                elif not entry.is_dir():
                    self._reject(f"{prefix}{name}", "not_a_file", "broken link or device")
                elif not entry.is_symlink() or self._follow(entry.path, location, f"{prefix}{name}"):
                    folders.append(name)
            except OSError as error:
                self._reject(f"{prefix}{name}", "not_a_file", os.strerror(error.errno or 0))
        return FolderEntries(location, prefix, folders, files)

    def iter_folders(self, location: str, prefix: str = "") -> Iterator[FolderEntries]:
        """Yield the entries of a folder and of each folder below it, in the order of their names."""
        pending = [(location, prefix)]
        while pending:
            entries = self.list_folder(*pending.pop())
            yield entries
            pending += [(f"{entries.location}/{name}", f"{entries.prefix}{name}/") for name in reversed(entries.folders)]

    def _follow(self, link: str, parent: str, name: str) -> bool:
        """Return whether a link to a folder is followed; if not, it is a rejection."""
        target, real_parent = os.path.realpath(link), os.path.realpath(parent)
        if f"{real_parent}/".startswith(f"{target}/"):
            self._reject(name, "not_a_file", f"link to {target}, which contains it; not followed")
            return False
        if target in self._linked_folders:
            self._reject(name, "not_a_file", f"second link to {target}; not followed")
            return False
        self._linked_folders.add(target)
        return True

    def _reject(self, name: str, reason: str, detail: str) -> None:
        self.rejections.append(Rejection(name, reason, detail))
