"""What DATA is: found out from what lies there, no image opened yet."""

from __future__ import annotations

from pathlib import Path

from ..cache.errors import DataError
from . import folders, listed
from .dataset import Dataset

_EXPECTED = (
    "images in class folders (root/cat/1.jpg), in split folders (root/train/cat/1.jpg), or listed with the columns "
    "path,label in a .csv, .tsv, .jsonl or .parquet file"
)


def detect(data: Path | str, limit: int | None = None) -> Dataset:
    """The dataset at `data`: a folder of class folders, of split folders, or with a metadata file, or a list of images.

    `limit` keeps the first so many images of each class and split. Raises `DataError`.
    """
    root = Path(data)
    if not root.exists():
        raise DataError(f"{root}: expected a folder of images or a file that lists them, found nothing; check the path")
    if root.is_dir():
        dataset = _folder(root)
    elif listed.is_list(root):
        dataset = listed.find(root)
    else:
        raise DataError(f"{root}: expected {_EXPECTED}, found a file of another kind")
    if not dataset.items:
        first = next((f", {each.name}: {each.detail}" for each in dataset.refused if each.reason == "bad_row"), "")
        raise DataError(f"{root}: expected {_EXPECTED}; found no image{first}")
    return dataset if limit is None else dataset.limited(limit)


def _folder(root: Path) -> Dataset:
    """What a folder holds. A metadata file decides, unless it has no labels and the folders have."""
    try:
        dataset = listed.beside(root)
    except DataError:
        dataset = folders.find(root)
        if dataset.kind == "flat":
            raise
    return dataset or folders.find(root)
