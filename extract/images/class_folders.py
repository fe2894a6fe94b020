"""Images in folders: class folders, split folders of class folders, or images alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .dataset import SPLITS, Dataset, Item, Refusal

_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


def find(root: Path) -> Dataset:
    """The images below the folder `root`; each entry that is not one is refused or passed over as litter."""
    refused: list[Refusal] = []
    top = str(root)
    folders, files = listing(top, "", refused)
    splits = {folder: SPLITS.get(folder.lower()) for folder in folders}
    if any(listing(f"{top}/{folder}", "", [])[0] for folder, split in splits.items() if split):
        items, kind = [], "splits"
        for folder, split in splits.items():
            if split is None:
                refused.append(Refusal(folder, "not_a_split", "a folder beside split folders"))
                continue
            place = f"{top}/{folder}"
            classes, loose = listing(place, f"{folder}/", refused)
            refused += [Refusal(f"{folder}/{name}", "no_label", "a file beside class folders") for name in loose]
            items += [item for name in classes for item in _class(place, f"{folder}/", name, split, refused)]
        refused += [Refusal(name, "no_label", "a file beside split folders") for name in files]
    elif folders:
        items, kind = [item for name in folders for item in _class(top, "", name, None, refused)], "folders"
        refused += [Refusal(name, "no_label", "a file beside class folders") for name in files]
    else:
        items, kind = [Item(name, f"{top}/{name}") for name in files], "flat"
    return Dataset(root, root, kind, tuple(items), tuple(refused))


def _class(place: str, prefix: str, label: str, split: str | None, refused: list[Refusal]) -> Iterator[Item]:
    for name, location in walk(f"{place}/{label}", f"{prefix}{label}/", refused):
        yield Item(name, location, label, split)


def walk(folder: str, prefix: str, refused: list[Refusal]) -> Iterator[tuple[str, str]]:
    """(name, location) of each file below `folder`, a folder's own files first; names begin with `prefix`."""
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        folders, files = listing(folder, prefix, refused)
        for name in files:
            yield f"{prefix}{name}", f"{folder}/{name}"
        waiting += [(f"{folder}/{name}", f"{prefix}{name}/") for name in reversed(folders)]


def listing(folder: str, prefix: str, refused: list[Refusal]) -> tuple[list[str], list[str]]:
    """Names of the sub-folders and files of `folder`, sorted; hidden names are passed over, anything else odd is refused.

    A link to a file is followed, as data kept by DVC or git-annex needs; one to a folder is not, so there are no loops.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        refused.append(Refusal(prefix.rstrip("/") or ".", "unreadable", os.strerror(error.errno or 0)))
        return [], []
    for entry in entries:
        name = entry.name
        if name.startswith(".") or name.lower() in _LITTER:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_file():
                files.append(name)
            else:
                why = "a folder link (not followed), a dangling link or a device"
                refused.append(Refusal(f"{prefix}{name}", "not_a_file", why))
        except OSError as error:
            refused.append(Refusal(f"{prefix}{name}", "not_a_file", os.strerror(error.errno or 0)))
    return folders, files
