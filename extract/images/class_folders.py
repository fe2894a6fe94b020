"""Images in folders: class folders, split folders of class folders, or unlabelled images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...cache.errors import DataError
from ...cache.formatting import format_names
from .folder_walk import FolderEntries, FolderWalk
from .image_files import ImageFiles
from .image_source import Listing
from .item import Item, Rejection
from .layout_doubts import describe_doubts
from .litter import is_list
from .split_names import parse_split, parse_split_folders, to_nfc

# What data sets for detection and segmentation have in place of class folders.
_PARTS = {"images", "labels", "annotations", "masks", "jpegimages", "imagesets", "imgs", "img"}


class ClassFolders(ImageFiles):
    """The images below a folder; anything else is rejected, except hidden and system files and documents, which are ignored.

    A folder that is named after a split is never a class if all others are too. Class folders that contain split folders of
    images give these images that split.

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
        walk, root = FolderWalk(), str(self.root)
        folders = walk.list_folder(root).folders
        splits = parse_split_folders(folders)
        if splits and (
            len(splits) == len(folders)
            or any(_list_split_folder(walk, root, name, split).folders for name, split in splits.items())
        ):
            return "splits"
        return "folders" if folders else "flat"

    def list_items(self) -> Listing:
        """Return the files, ordered by the bytes of their names; raises `DataError` if the classes are not clear."""
        walk = FolderWalk()
        root = walk.list_folder(str(self.root))
        if self.layout == "flat":
            images = tuple(Item(name, f"{root.location}/{name}") for name in root.files)
            return Listing(images, tuple(walk.rejections), tuple(walk.ignored))
        if self.layout == "folders":
            items = self._list_class_folders(walk, root)
            folder_kind = "class"
        else:
            items = self._list_split_folders(walk, root)
            folder_kind = "split"
        walk.rejections += [Rejection(name, "no_label", f"file is not in a {folder_kind} folder") for name in root.files]
        notes = describe_doubts(self.data, items, walk.ignored, 1 if self.layout == "folders" else 2)
        return Listing(tuple(items), tuple(walk.rejections), tuple(walk.ignored), tuple(notes))

    def _list_class_folders(self, walk: FolderWalk, root: FolderEntries) -> list[Item]:
        """Return the images of folders that are classes."""
        folders = {name: list(walk.iter_folders(f"{root.location}/{name}", f"{name}/")) for name in root.folders}
        self._check_depth(folders, root)
        items: list[Item] = []
        has_splits = all(_is_all_splits(entries[0]) for entries in folders.values() if _has_files(entries))
        for label, entries in folders.items():
            if not _has_files(entries):
                walk.ignored.append(label)
            for folder in entries:
                inner_name = folder.prefix[len(label) + 1 :].partition("/")[0]
                items += _list_class_items(folder, label, parse_split(inner_name) if has_splits else None)
        return items

    def _check_depth(self, folders: Mapping[str, Sequence[FolderEntries]], root: FolderEntries) -> None:
        """Raise `DataError` if the class folders are further down than DATA says."""
        for name, entries in folders.items():
            inner = [folder for folder in entries[1:] if _is_all_splits(entries[0]) and folder.prefix.count("/") > 2]
            if any(folder.files for folder in inner):
                raise DataError(
                    f"{self.data}: one folder too high: {name} contains the split folders "
                    f"{format_names(entries[0].folders)} with class folders; give {self.data}/{name}"
                )
        if len(folders) == 1 and not root.files:
            ((name, entries),) = folders.items()
            n_inner_folders = sum(_has_files([folder]) and folder.prefix.count("/") == 2 for folder in entries)
            if not entries[0].files and n_inner_folders > 1:
                raise DataError(
                    f"{self.data}: one folder too high: all is in {name}, which has {format_names(entries[0].folders)}; "
                    f"give {self.data}/{name}"
                )

    def _list_split_folders(self, walk: FolderWalk, root: FolderEntries) -> list[Item]:
        """Return the images of the class folders in split folders."""
        splits, items = parse_split_folders(root.folders), list[Item]()
        n_stray_files, class_folders = 0, set[str]()
        for name in root.folders:
            if name not in splits:
                if _has_files(list(FolderWalk().iter_folders(f"{root.location}/{name}"))):
                    walk.rejections.append(Rejection(name, "not_a_split", "folder is not named like a split"))
                else:
                    walk.ignored.append(name)
                continue
            split_folder = _list_split_folder(walk, root.location, name, splits[name])
            n_stray_files += len(split_folder.files)
            walk.rejections += [
                Rejection(f"{split_folder.prefix}{file}", "no_label", "file is not in a class folder")
                for file in split_folder.files
            ]
            class_folders.update(split_folder.folders)
            for label in split_folder.folders:
                for folder in walk.iter_folders(f"{split_folder.location}/{label}", f"{split_folder.prefix}{label}/"):
                    items += _list_class_items(folder, label, splits[name])
        has_only_parts = bool(class_folders) and {name.lower() for name in class_folders} <= _PARTS
        if (n_stray_files and not items) or has_only_parts:
            contents = f"only {format_names(sorted(class_folders))}" if has_only_parts else f"{n_stray_files:,} images"
            lists = [name for name in walk.ignored if is_list(name)]
            unread = f" (not read: {format_names(lists)})" if lists else ""
            raise DataError(
                f"{self.data}: no class folders: {format_names(list(splits))} contain {contents}{unread}; put the images "
                f"into class folders, such as {next(iter(splits))}/cat/1.jpg, or give a list with the columns path,label"
            )
        return items


def _list_split_folder(walk: FolderWalk, parent: str, name: str, split: str) -> FolderEntries:
    """Return the entries of a split folder; of the one inside, if it contains nothing but a folder of the same split."""
    entries = walk.list_folder(f"{parent}/{name}", f"{name}/")
    while not entries.files and len(entries.folders) == 1:
        inner = entries.folders[0]
        if inner != name and parse_split(inner) != split:
            break
        entries = walk.list_folder(f"{entries.location}/{inner}", f"{entries.prefix}{inner}/")
    return entries


def _list_class_items(folder: FolderEntries, label: str, split: str | None) -> list[Item]:
    """Return the images of a folder that belongs to a class."""
    location, prefix, class_name = folder.location, folder.prefix, to_nfc(label)
    return [Item(f"{prefix}{name}", f"{location}/{name}", class_name, split) for name in folder.files]


def _is_all_splits(folder: FolderEntries) -> bool:
    """Return whether a folder contains split folders and nothing else."""
    return bool(folder.folders) and not folder.files and len(parse_split_folders(folder.folders)) == len(folder.folders)


def _has_files(folders: Sequence[FolderEntries]) -> bool:
    return any(folder.files for folder in folders)
