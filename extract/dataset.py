"""Which images there are, with their labels and splits: detected from a folder or a CSV, nothing opened yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..cache.errors import DataError
from . import source
from .manifest import read_rows

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True, slots=True)
class Item:
    """One listed image: `name` is its path relative to the data's root, `split` is train, val, test or None.

    location: its file. encoded: what gives the bytes of an image that is a row of an array, and has no file.
    """

    name: str
    location: Path | str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    encoded: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.location)

    @property
    def in_file(self) -> bool:
        """Whether the image is a file of its own at `path`."""
        return self.encoded is None

    def read(self) -> bytes:
        """The encoded image, which its digest is of; raises `pixels.Refused`."""
        return source.read(self.path) if self.encoded is None else self.encoded()


@dataclass(frozen=True)
class Refusal:
    """A path that is not used, with a short reason code and a detail for people."""

    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Dataset:
    """The images of one DATA argument, in a stable order.

    source: DATA itself; root: the folder that names are relative to.
    kind: `folders` (class folders), `splits` (split folders of class folders), `flat` (images without labels)
    or `manifest` (CSV).
    """

    source: Path
    root: Path
    kind: str
    items: tuple[Item, ...]
    refused: tuple[Refusal, ...]

    @property
    def classes(self) -> list[str]:
        """The class names, sorted."""
        return sorted({item.label for item in self.items if item.label is not None})


def detect(data: Path | str, limit: int | None = None) -> Dataset:
    """The dataset at `data`: a folder of class folders, a folder of split folders, or a CSV manifest.

    `limit` keeps the first so many images of each class and split. Raises `DataError`.
    """
    root = Path(data)
    if not root.exists():
        raise DataError(f"{root}: expected a folder of images or a CSV file, found nothing; check the path")
    if root.is_dir():
        dataset = _folders(root)
    elif root.suffix.lower() in {".csv", ".tsv"}:
        items, refused = _manifest(root)
        dataset = Dataset(root, root.parent, "manifest", tuple(items), tuple(refused))
    else:
        raise DataError(
            f"{root}: expected a folder of class folders (root/cat/1.jpg) or a CSV file, found a file of another kind"
        )
    if not dataset.items:
        raise DataError(
            f"{root}: expected images in class folders (root/cat/1.jpg), in split folders (root/train/cat/1.jpg) "
            f"or a CSV file with the columns path,label; found no image"
        )
    return dataset if limit is None else _limited(dataset, limit)


def _folders(root: Path) -> Dataset:
    refused: list[Refusal] = []
    folders, files = _listing(root, root, refused)
    splits = {folder: SPLITS.get(folder.name.lower()) for folder in folders}
    if any(splits.values()) and any(_listing(folder, root, [])[0] for folder, split in splits.items() if split):
        items = []
        for folder, split in splits.items():
            if split is None:
                refused.append(Refusal(_name(folder, root), "not_a_split", "a folder beside split folders"))
            else:
                classes, loose = _listing(folder, root, refused)
                refused.extend(Refusal(_name(path, root), "no_label", "a file beside class folders") for path in loose)
                items += [item for path in classes for item in _class(path, root, split, refused)]
        kind = "splits"
    elif folders:
        items, kind = [item for folder in folders for item in _class(folder, root, None, refused)], "folders"
        refused.extend(Refusal(_name(path, root), "no_label", "a file beside class folders") for path in files)
        files = []
    else:
        items, kind = [Item(_name(path, root), path) for path in files], "flat"
        files = []
    refused.extend(Refusal(_name(path, root), "no_label", "a file beside split folders") for path in files)
    return Dataset(root, root, kind, tuple(items), tuple(refused))


def _class(folder: Path, root: Path, split: str | None, refused: list[Refusal]) -> list[Item]:
    return [Item(_name(path, root), path, folder.name, split) for path in _walk(folder, root, refused)]


def _walk(folder: Path, root: Path, refused: list[Refusal]) -> Iterator[Path]:
    folders, files = _listing(folder, root, refused)
    yield from files
    for inner in folders:
        yield from _walk(inner, root, refused)


def _listing(folder: Path, root: Path, refused: list[Refusal]) -> tuple[list[Path], list[Path]]:
    """Sub-folders and files of `folder`, sorted; hidden names are passed over, anything else odd is refused.

    A link to a file is followed, as data kept by DVC or git-annex needs; one to a folder is not, so there are no loops.
    """
    folders, files = [], []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        refused.append(Refusal(_name(folder, root), "unreadable", os.strerror(error.errno or 0)))
        return [], []
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.lower() in _LITTER:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_file():
                files.append(path)
            else:
                refused.append(
                    Refusal(_name(path, root), "not_a_file", "a folder link (not followed), a dangling link or a device")
                )
        except OSError as error:
            refused.append(Refusal(_name(path, root), "not_a_file", os.strerror(error.errno or 0)))
    return folders, files


def _manifest(path: Path) -> tuple[list[Item], list[Refusal]]:
    """Items of a CSV whose paths are relative to its folder and stay inside it."""
    root = path.parent
    inside = root.resolve()
    items: dict[str, Item] = {}
    refused: list[Refusal] = []
    conflicts: set[str] = set()
    for line, row in read_rows(path):
        target = Path(os.path.normpath(root / row.path))
        name = _name(target, root)
        where = f"line {line}"
        if not row.path:
            refused.append(Refusal(f"{path.name}:{line}", "no_path", f"{where}: the path is empty"))
        elif _leads_out(target, inside):
            refused.append(Refusal(row.path, "outside", f"{where}: expected a path inside {root}"))
        elif not row.label:
            refused.append(Refusal(name, "no_label", f"{where}: the label is empty"))
        elif row.split and row.split.lower() not in SPLITS:
            refused.append(Refusal(name, "unknown_split", f"{where}: expected train, val or test, found {row.split!r}"))
        elif not os.path.isfile(target):  # unlike `Path.is_file`, False for names that no file can have
            refused.append(Refusal(name, "not_found", f"{where}: no such file"))
        else:
            item = Item(name, target, row.label, SPLITS.get(row.split.lower()), row.group or None)
            if name not in items:
                items[name] = item
            elif items[name] == item:
                refused.append(Refusal(name, "listed_twice", f"{where}: listed before; used once"))
            else:
                conflicts.add(name)
    for name in sorted(conflicts):
        del items[name]
        refused.append(Refusal(name, "conflicting_rows", "listed with different labels, splits or groups"))
    return list(items.values()), refused


def _leads_out(path: Path, inside: Path) -> bool:
    """Whether `path`, links followed, lies outside of `inside`; a path that cannot exist leads nowhere."""
    try:
        return not Path(os.path.realpath(path)).is_relative_to(inside)
    except (OSError, ValueError):
        return False


def _name(path: Path, root: Path) -> str:
    """`path` relative to `root`; `relpath` would take seconds for 60,000 paths."""
    whole, start = str(path), f"{root}{os.sep}"
    return whole[len(start) :] if whole.startswith(start) else os.path.relpath(path, root)


def _limited(dataset: Dataset, limit: int) -> Dataset:
    taken: dict[tuple[str | None, str | None], int] = {}
    items = []
    for item in dataset.items:
        place = (item.label, item.split)
        taken[place] = taken.get(place, 0) + 1
        if taken[place] <= limit:
            items.append(item)
    return replace(dataset, items=tuple(items))
