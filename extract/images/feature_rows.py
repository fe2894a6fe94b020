"""Rows of an HDF5 file of features as images that are elsewhere."""

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
from .item import SPLITS, Item, Rejection

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")


class FeatureRows(ImageSource):
    """Items whose `location` is the number of their row, and whose digest is the row's key.

    Parameters
    ----------
    data : str or Path
        DATA as it was given.
    root : Path, optional
        The file, where that is not `data`.
    origin : mapping, optional
        The description of the source of the images; what the file says, unless `is_described`.
    is_described : bool
        Whether `origin` is all that is known of it.
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
        """Whether the name says that the file is HDF5."""
        path = Path(data)
        return path.suffix.lower() in _SUFFIXES and path.is_file()

    @classmethod
    def open(cls, data: str) -> FeatureRows:
        """The file at the path `data`."""
        return cls(data)

    def describe(self) -> dict[str, Any]:
        """Where the file is, and in ``images`` where the images are."""
        description = {"source": self.data, "root": os.path.abspath(self.root), "kind": "features"}
        return {**description, "images": self._origin}

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> FeatureRows:
        """The file described."""
        return cls(description["source"], Path(description["root"]), description.get("images"), is_described=True)

    @property
    def title(self) -> str:
        """The file's own name."""
        return self.root.resolve().name

    @property
    def images(self) -> ImageSource:
        """Where the images are that the features were made from; raises `DataError`."""
        from .registry import reopen_source

        if not self._origin:
            raise DataError(f"{self.data}: expected to say where its images are, to check an export on, found nothing")
        return reopen_source(self._origin)

    @cached_property
    def feature_file(self) -> FeatureFile:
        """The file; raises `DataError`."""
        return FeatureFile(self.root)

    @cached_property
    def _origin(self) -> Mapping[str, Any] | None:
        return self.feature_file.origin

    def list_items(self) -> Listing:
        """The rows, those without a label or a finite row rejected."""
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
                detail = f"row {row} holds NaN, infinity or what float32 cannot hold"
                rejections.append(Rejection(name, "not_finite", detail))
            elif not label:
                rejections.append(Rejection(name, "no_label", f"row {row} has no label, or one without a name"))
            elif split and split.lower() not in SPLITS:
                detail = f"row {row}: expected train, val or test, found {split[:80]!r}"
                rejections.append(Rejection(name, "unknown_split", detail))
            else:
                items.append(Item(name, row, label, SPLITS.get(split.lower()), group or None))
        if not items:
            raise DataError(
                f"{self.root}: expected rows with labels, found none among {count} ({_format_reasons(rejections)})"
            )
        return Listing(tuple(items), tuple(rejections))

    def identify(self, item: Item) -> tuple[bytes, str]:
        """The row's key, and ``features``."""
        row = item.location
        return self.feature_file.keys[row : row + 1].tobytes(), "features"  # a slice: one element loses its zeros

    def stamp(self, item: Item) -> Stamp | None:
        """None: the file is read whole when it is opened, so that nothing is saved by a stamp."""
        return None

    def read(self, item: Item) -> bytes:
        """The image that the row was made of; raises `DataError` where nobody knows it, and as its own source does."""
        images = self.images
        return images.read(images.get_item(item.name))


def _format_reasons(rejections: Sequence[Rejection]) -> str:
    counts = Counter(rejection.reason for rejection in rejections)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
