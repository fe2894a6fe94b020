"""The images of a run as it saw them, from its table of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import RunError
from .csv_table import read_csv


@dataclass(frozen=True)
class ImageRecord:
    """A used image as a run saw it: path relative to the data's root, label, role (train, val, test), digest.

    group: of images that belong together; "" where it stands for itself.
    """

    name: str
    label: str
    split: str
    digest: bytes
    group: str = ""


def read_image_records(path: Path) -> list[ImageRecord]:
    """The used images that an `images.csv` lists, in its order; raises `RunError`."""
    try:
        return [
            ImageRecord(row["path"], row["label"], row["split"], bytes.fromhex(row["sha256"]), row["group"])
            for row in read_csv(path)
            if row["outcome"] == "used"
        ]
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path}: expected the run's table of images, found: {error}") from error
