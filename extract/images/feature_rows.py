"""Image source of an HDF5 file of features: each row stands for an image that is stored elsewhere, if at all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...cache.errors import DataError
from ..backbones.non_finite import find_faulty_images
from .feature_file import FeatureFile
from .image_source import ImageSource, Listing, Stamp
from .item import Item, Rejection
from .split_names import parse_split

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")


class FeatureRows(ImageSource):
    """Items whose `location` is a row number, and whose digest is the key of the row.

    Parameters
    ----------
    data : str or Path
        DATA as the user gave it.
    root : Path, optional
        The file; `data` by default.
    origin : mapping, optional
        The description of the source of the images, used only if `is_described`; otherwise it is read from the file.
    is_described : bool
        Whether to use `origin`, which may be None, instead of reading the file.
    """

    kinds = ("features",)
    holds_features = True
    root: Path

    def __init__(
        self, data: str | Path, root: Path | None = None, origin: Mapping[str, Any] | None = None, is_described: bool = False
    ) -> None:
        self.data, self.root = str(Path(data)), root or Path(data)
        if is_described:
            self._origin = origin

    @classmethod
    def matches(cls, data: str) -> bool:
        """Return whether DATA is a file with a suffix of HDF5."""
        path = Path(data)
        return path.suffix.lower() in _SUFFIXES and path.is_file()

    @classmethod
    def open(cls, data: str) -> FeatureRows:
        """Return the source of the file `data`."""
        return cls(data)

    def describe(self) -> dict[str, Any]:
        """Return the location of the file, and in ``images`` the description of the source of its images."""
        description = {"source": self.data, "root": os.path.abspath(self.root), "kind": "features"}
        return {**description, "images": self._origin}

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> FeatureRows:
        """Return the source of the file that is described."""
        return cls(description["source"], Path(description["root"]), description.get("images"), is_described=True)

    @property
    def title(self) -> str:
        """The file name."""
        return self.root.resolve().name

    @property
    def images(self) -> ImageSource:
        """The source of the images that the features were computed from; raises `DataError` if it is unknown."""
        from .registry import reopen_source

        if not self._origin:
            raise DataError(f"{self.data}: has no reference to its images, only features; give the images themselves")
        return reopen_source(self._origin)

    @cached_property
    def feature_file(self) -> FeatureFile:
        """The opened file; raises `DataError`."""
        return FeatureFile(self.root)

    @cached_property
    def _origin(self) -> Mapping[str, Any] | None:
        return self.feature_file.origin

    def list_items(self) -> Listing:
        """Return the rows; those without a label, or with values that are not finite, are rejected."""
        file = self.feature_file
        items: list[Item] = []
        rejections: list[Rejection] = []
        count = len(file.keys)
        is_non_finite = find_faulty_images(file.non_finite.values())
        names = file.columns["paths"]
        if len(set(names)) < count:
            names = [f"features/{row:0{max(5, len(str(count - 1)))}}" for row in range(count)]
        for row, (name, label) in enumerate(zip(names, file.labels, strict=True)):
            split, group = file.columns["split"][row], file.columns["groups"][row]
            if is_non_finite[row]:
                detail = f"row {row} has NaN, infinite or float32-overflowing values"
                rejections.append(Rejection(name, "not_finite", detail))
            elif not label:
                rejections.append(Rejection(name, "no_label", f"row {row} has no label, or a class number without a name"))
            elif split and parse_split(split) is None:
                detail = f"row {row}: unknown split {split[:80]!r}; use train, val or test"
                rejections.append(Rejection(name, "unknown_split", detail))
            else:
                items.append(Item(name, row, label, parse_split(split), group or None))
        if not items:
            raise DataError(f"{self.root}: all {count} rows are rejected ({_format_reasons(rejections)}); correct the file")
        return Listing(tuple(items), tuple(rejections))

    def identify(self, item: Item) -> tuple[bytes, str]:
        """Return the key of the row, and ``features``."""
        row = item.location
        return self.feature_file.keys[row : row + 1].tobytes(), "features"  # slice: NumPy strips trailing zeros of one S32

    def stamp(self, item: Item) -> Stamp | None:
        """Return None: the whole file is read when it is opened, so a stamp would save nothing."""
        return None

    def read(self, item: Item) -> bytes:
        """Return the image that the row was computed from; raises `DataError` if its source is unknown or unreadable."""
        images = self.images
        return images.read(images.get_item(item.name))


def _format_reasons(rejections: Sequence[Rejection]) -> str:
    counts = Counter(rejection.reason for rejection in rejections)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
