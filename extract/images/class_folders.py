"""Images in folders: class folders, split folders of class folders, or images alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .dataset import SPLITS, Dataset, Item, Rejection

_IGNORED_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}


def find(root: Path) -> Dataset:
    """The images below the folder `root`; each entry that is not one is refused or passed over as litter."""
    rejections: list[Rejection] = []
    root_path = str(root)
    folders, files = list_folder(root_path, "", rejections)
    splits = {folder: SPLITS.get(folder.lower()) for folder in folders}
    if any(list_folder(f"{root_path}/{folder}", "", [])[0] for folder, split in splits.items() if split):
        items, kind = [], "splits"
        for folder, split in splits.items():
            if split is None:
                rejections.append(Rejection(folder, "not_a_split", "a folder beside split folders"))
                continue
            split_path = f"{root_path}/{folder}"
            class_names, stray_files = list_folder(split_path, f"{folder}/", rejections)
            rejections += [Rejection(f"{folder}/{name}", "no_label", "a file beside class folders") for name in stray_files]
            items += [
                item for name in class_names for item in _iter_class_items(split_path, f"{folder}/", name, split, rejections)
            ]
        rejections += [Rejection(name, "no_label", "a file beside split folders") for name in files]
    elif folders:
        items, kind = (
            [item for name in folders for item in _iter_class_items(root_path, "", name, None, rejections)],
            "folders",
        )
        rejections += [Rejection(name, "no_label", "a file beside class folders") for name in files]
    else:
        items, kind = [Item(name, f"{root_path}/{name}") for name in files], "flat"
    return Dataset(root, root, kind, tuple(items), tuple(rejections))


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
