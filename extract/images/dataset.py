"""Which images there are, with their labels and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..pixels.read_file import read_bytes

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


@dataclass(frozen=True, slots=True)
class Item:
    """One listed image: `name` is its path relative to the data's root, `split` is train, val, test or None.

    location: its file. byte_loader: what gives the bytes of an image that is a row of an array, and has no file.
    """

    name: str
    location: Path | str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    byte_loader: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.location)

    @property
    def has_own_file(self) -> bool:
        """Whether the image is a file of its own at `path`."""
        return self.byte_loader is None

    def read(self) -> bytes:
        """The encoded image, which its digest is of; raises `decode.ImageRejected`."""
        return read_bytes(self.path) if self.byte_loader is None else self.byte_loader()


@dataclass(frozen=True)
class Rejection:
    """A path that is not used, with a short reason code and a detail for people."""

    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Dataset:
    """The images of one DATA argument, in a stable order.

    source: DATA itself; root: the folder that names are relative to.
    kind: `folders` (class folders), `splits` (split folders of class folders), `flat` (images without labels)
    `manifest` (a list of images, or one in a folder of them), `arrays` (rows of an .npz), `keras` (one of `keras.datasets`)
    or `features` (rows of an HDF5 file, whose images are elsewhere).
    """

    source: Path
    root: Path
    kind: str
    items: tuple[Item, ...]
    rejections: tuple[Rejection, ...]

    @property
    def title(self) -> str:
        """A name for people."""
        return self.source.name if self.kind == "keras" else self.root.resolve().name

    @property
    def classes(self) -> list[str]:
        """The class names, sorted."""
        return sorted({item.label for item in self.items if item.label is not None})

    def limit_per_class(self, limit: int) -> Dataset:
        """The first so many images of each class and split."""
        counts: Counter[tuple[str | None, str | None]] = Counter()
        items = []
        for item in self.items:
            stratum = (item.label, item.split)
            counts[stratum] += 1
            if counts[stratum] <= limit:
                items.append(item)
        return replace(self, items=tuple(items))
