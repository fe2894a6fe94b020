"""The images of a run, read from its `images.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import RunError
from .csv_table import read_csv


@dataclass(frozen=True)
class ImageRecord:
    """A used image of a run: path relative to the data's root, label, split (train, val, test), digest.

    group: images with the same group belong together; "" if the image is its own group.
    """

    name: str
    label: str
    split: str
    digest: bytes
    group: str = ""


def read_image_records(path: Path) -> list[ImageRecord]:
    """Return the used images in an `images.csv`, in its order; raises `RunError`."""
    try:
        return [
            ImageRecord(row["path"], row["label"], row["split"], bytes.fromhex(row["sha256"]), row["group"])
            for row in read_csv(path)
            if row["outcome"] == "used"
        ]
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"{path}: cannot read the run's table of images: {error}; sweep again into another folder with -o"
        ) from error
