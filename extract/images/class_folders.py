"""Images in folders: class folders, split folders of class folders, or images alone."""

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
    """The images below a folder; each entry that is not one is refused or passed over as litter.

    Parameters
    ----------
    data : str or Path
        DATA as it was given.
    root : Path, optional
        The folder, where that is not `data`.
    layout : str, optional
        ``folders`` (a folder a class), ``splits`` (split folders of class folders) or ``flat`` (images without labels);
        by default what the folders there are called decides.
    """

    kinds = ("folders", "splits", "flat")

    def __init__(self, data: str | Path, root: Path | None = None, layout: str | None = None) -> None:
        self.data, self.root = str(Path(data)), root or Path(data)
        if layout is not None:
            self.layout = layout

    @classmethod
    def matches(cls, data: str) -> bool:
        """Whether DATA is a folder."""
        return os.path.isdir(data)

    @classmethod
    def open(cls, data: str) -> ClassFolders:
        """The folder at the path `data`."""
        return cls(data)

    def describe(self) -> dict[str, Any]:
        """Where the folder is, and its layout."""
        return {"source": self.data, "root": os.path.abspath(self.root), "kind": self.layout}

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> ClassFolders:
        """The folder described."""
        return cls(description["source"], Path(description["root"]), description["kind"])

    @cached_property
    def layout(self) -> str:
        """One of `kinds`."""
        folders, _ = list_folder(str(self.root), "", [])
        split_folders = [folder for folder in folders if folder.lower() in SPLITS]
        if any(list_folder(f"{self.root}/{folder}", "", [])[0] for folder in split_folders):
            return "splits"
        return "folders" if folders else "flat"

    def list_items(self) -> Listing:
        """The files, walked in the order of their names' bytes."""
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
        rejections += [Rejection(name, "no_label", f"a file beside {folder_kind} folders") for name in files]
        return Listing(tuple(items), tuple(rejections))


def _iter_split_items(root: str, folder: str, rejections: list[Rejection]) -> Iterator[Item]:
    """The images of the class folders in a split folder."""
    split = SPLITS.get(folder.lower())
    if split is None:
        rejections.append(Rejection(folder, "not_a_split", "a folder beside split folders"))
        return
    class_names, stray_files = list_folder(f"{root}/{folder}", f"{folder}/", rejections)
    rejections += [Rejection(f"{folder}/{name}", "no_label", "a file beside class folders") for name in stray_files]
    for name in class_names:
        yield from _iter_class_items(f"{root}/{folder}", f"{folder}/", name, split, rejections)


def _iter_class_items(
    parent: str, prefix: str, label: str, split: str | None, rejections: list[Rejection]
) -> Iterator[Item]:
    for name, location in walk_files(f"{parent}/{label}", f"{prefix}{label}/", rejections):
        yield Item(name, location, label, split)


def walk_files(folder: str, prefix: str, rejections: list[Rejection]) -> Iterator[tuple[str, str]]:
    """(name, location) of each file below `folder`, a folder's own files first; names begin with `prefix`."""
    pending = [(folder, prefix)]
    while pending:
        folder, prefix = pending.pop()
        folders, files = list_folder(folder, prefix, rejections)
        for name in files:
            yield f"{prefix}{name}", f"{folder}/{name}"
        pending += [(f"{folder}/{name}", f"{prefix}{name}/") for name in reversed(folders)]


def list_folder(folder: str, prefix: str, rejections: list[Rejection]) -> tuple[list[str], list[str]]:
    """Names of the sub-folders and files of `folder`, sorted; hidden names are passed over, anything else odd is refused.

    A link to a file is followed, as data kept by DVC or git-annex needs; one to a folder is not, so there are no loops.
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
                detail = "a folder link (not followed), a dangling link or a device"
                rejections.append(Rejection(f"{prefix}{name}", "not_a_file", detail))
        except OSError as error:
            rejections.append(Rejection(f"{prefix}{name}", "not_a_file", os.strerror(error.errno or 0)))
    return folders, files
