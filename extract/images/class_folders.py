"""Images in folders: class folders, split folders of class folders, or unlabelled images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .image_files import ImageFiles
from .image_source import Listing
from .item import SPLITS, Item, Rejection

_IGNORED_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}


class ClassFolders(ImageFiles):
    """The images below a folder; anything else is rejected, except hidden and system files, which are ignored.

    Parameters
    ----------
    data : str or Path
        DATA as the user gave it.
    root : Path, optional
        The folder; `data` by default.
    layout : str, optional
        ``folders`` (one folder per class), ``splits`` (split folders of class folders) or ``flat`` (images without
        labels); inferred from the names of the folders by default.
    """

    kinds = ("folders", "splits", "flat")

    def __init__(self, data: str | Path, root: Path | None = None, layout: str | None = None) -> None:
        self.data, self.root = str(Path(data)), root or Path(data)
        if layout is not None:
            self.layout = layout

    @classmethod
    def matches(cls, data: str) -> bool:
        """Return whether DATA is a folder."""
        return os.path.isdir(data)

    @classmethod
    def open(cls, data: str) -> ClassFolders:
        """Return the source of the folder `data`."""
        return cls(data)

    def describe(self) -> dict[str, Any]:
        """Return the location of the folder and its layout."""
        return {"source": self.data, "root": os.path.abspath(self.root), "kind": self.layout}

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> ClassFolders:
        """Return the source of the folder that is described."""
        return cls(description["source"], Path(description["root"]), description["kind"])

    @cached_property
    def layout(self) -> str:
        """The layout of the folder, one of `kinds`."""
        folders, _ = list_folder(str(self.root), "", [])
        split_folders = [folder for folder in folders if folder.lower() in SPLITS]
        if any(list_folder(f"{self.root}/{folder}", "", [])[0] for folder in split_folders):
            return "splits"
        return "folders" if folders else "flat"

    def list_items(self) -> Listing:
        """Return the files, ordered by the bytes of their names."""
        rejections: list[Rejection] = []
        root = str(self.root)
        folders, files = list_folder(root, "", rejections)
        if self.layout == "flat":
            return Listing(tuple(Item(name, f"{root}/{name}") for name in files), tuple(rejections))
        items: list[Item] = []
        if self.layout == "folders":
            for name in folders:
                items += _iter_class_items(root, "", name, None, rejections)
        else:
            for name in folders:
                items += _iter_split_items(root, name, rejections)
        folder_kind = "class" if self.layout == "folders" else "split"
        rejections += [Rejection(name, "no_label", f"file is not in a {folder_kind} folder") for name in files]
        return Listing(tuple(items), tuple(rejections))


def _iter_split_items(root: str, folder: str, rejections: list[Rejection]) -> Iterator[Item]:
    """Yield the images of the class folders in a split folder."""
    split = SPLITS.get(folder.lower())
    if split is None:
        rejections.append(Rejection(folder, "not_a_split", "folder is not named like a split"))
        return
    class_names, stray_files = list_folder(f"{root}/{folder}", f"{folder}/", rejections)
    rejections += [Rejection(f"{folder}/{name}", "no_label", "file is not in a class folder") for name in stray_files]
    for name in class_names:
        yield from _iter_class_items(f"{root}/{folder}", f"{folder}/", name, split, rejections)


def _iter_class_items(
    parent: str, prefix: str, label: str, split: str | None, rejections: list[Rejection]
) -> Iterator[Item]:
    for name, location in walk_files(f"{parent}/{label}", f"{prefix}{label}/", rejections):
        yield Item(name, location, label, split)


def walk_files(folder: str, prefix: str, rejections: list[Rejection]) -> Iterator[tuple[str, str]]:
    """Yield (name, location) of each file below `folder`, files before sub-folders; names begin with `prefix`."""
    pending = [(folder, prefix)]
    while pending:
        folder, prefix = pending.pop()
        folders, files = list_folder(folder, prefix, rejections)
        for name in files:
            yield f"{prefix}{name}", f"{folder}/{name}"
        pending += [(f"{folder}/{name}", f"{prefix}{name}/") for name in reversed(folders)]


def list_folder(folder: str, prefix: str, rejections: list[Rejection]) -> tuple[list[str], list[str]]:
    """Return the sorted names of the sub-folders and files of `folder`.

    Hidden files are ignored; broken links, devices and entries that cannot be read are appended to `rejections`. Links to
    files are followed, because DVC and git-annex use them; links to folders are not, so there are no loops.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        rejections.append(Rejection(prefix.rstrip("/") or ".", "unreadable", os.strerror(error.errno or 0)))
        return [], []
    for entry in entries:
        name = entry.name
        if name.startswith(".") or name.lower() in _IGNORED_NAMES:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_file():
                files.append(name)
            else:
                detail = "link to a folder (not followed), broken link or device"
                rejections.append(Rejection(f"{prefix}{name}", "not_a_file", detail))
        except OSError as error:
            rejections.append(Rejection(f"{prefix}{name}", "not_a_file", os.strerror(error.errno or 0)))
    return folders, files
