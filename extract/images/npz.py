"""Images in the arrays of an `.npz` file, with the usual names of arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...cache.errors import DataError
from .image_arrays import ImageArrays, LabeledArray, LazyImageArray
from .image_source import NOTHING_THERE
from .label_names import parse_class_names
from .npz_archive import NpzArchive
from .split_names import SPLITS

_ARRAY_NAME_PAIRS = (("x", "y"), ("images", "labels"), ("image", "label"))
_CLASS_NAME_KEYS = ("classes", "class_names", "label_names")


class Npz(ImageArrays):
    """The images of an `.npz` file: `x_train, y_train` and so on, `x, y`, or `images, labels`.

    Listing them reads only headers and labels. Pickled objects are never loaded.

    Parameters
    ----------
    data : str
        DATA as the user gave it.
    root : Path, optional
        The file; `data` by default.
    """

    kinds = ("arrays",)

    def __init__(self, data: str, root: Path | None = None) -> None:
        super().__init__(str(Path(data)), root or Path(data))

    @classmethod
    def matches(cls, data: str) -> bool:
        """Return whether DATA is a file with the suffix `.npz`."""
        path = Path(data)
        return path.suffix.lower() == ".npz" and path.exists() and not path.is_dir()

    @classmethod
    def open(cls, data: str) -> Npz:
        """Return the source of the file `data`."""
        return cls(data)

    def describe(self) -> dict[str, Any]:
        """Return the location of the file."""
        return {"source": self.data, "root": os.path.abspath(self.root), "kind": "arrays"}

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> Npz:
        """Return the source of the file that is described."""
        return cls(description["source"], Path(description["root"]))

    @property
    def title(self) -> str:
        """The file name."""
        return self.root.resolve().name

    @property
    def is_reachable(self) -> bool:
        """Whether the file exists."""
        return self.root.exists()

    def load_arrays(self) -> Sequence[LabeledArray]:
        """Return the arrays that have a usual name; raises `DataError`."""
        path = self.root
        if not path.exists():
            raise DataError(f"{path}: {NOTHING_THERE}")
        archive = NpzArchive(path)
        names_by_lower = {name.lower(): name for name in archive.names}
        class_array = next((archive.load(names_by_lower[name]) for name in _CLASS_NAME_KEYS if name in names_by_lower), None)
        classes = parse_class_names(class_array, path)
        arrays = []
        for image_key, label_key, split in _iter_array_names():
            if image_key not in names_by_lower:
                continue
            if label_key not in names_by_lower:
                raise DataError(
                    f"{path}: no labels {label_key} for {image_key} (arrays: {', '.join(archive.names)[:200]}); add them"
                )
            name = names_by_lower[image_key]
            images = LazyImageArray(partial(archive.load, name), archive.read_image_shape(name))
            arrays.append(LabeledArray(name, images, archive.load(names_by_lower[label_key]), split, classes))
        if not arrays:
            raise DataError(
                f"{path}: no images and labels (arrays: {', '.join(archive.names)[:200] or 'none'}); "
                "name the arrays x_train, y_train, x_test and y_test, or x and y, or images and labels"
            )
        return arrays


def _iter_array_names() -> Iterator[tuple[str, str, str | None]]:
    """Yield the usual names of arrays as (images, labels, split), such as (x_train, y_train, train)."""
    for image_key, label_key in _ARRAY_NAME_PAIRS:
        yield image_key, label_key, None
        for split_word, split in SPLITS.items():
            yield f"{image_key}_{split_word}", f"{label_key}_{split_word}", split
            yield f"{split_word}_{image_key}", f"{split_word}_{label_key}", split
