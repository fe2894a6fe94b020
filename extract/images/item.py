"""What a source lists: images, and paths that are not used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    """One listed image.

    Parameters
    ----------
    name : str
        Its path below the root of the data, or what stands for one (``x_train/00017``). It is unique in its source, and
        all that a run writes down to find the image again.
    location : object
        Where its source finds it: a file, the row of an array, a range of bytes. Only the source knows what it means.
    label, split, group : str or None
        `split` is ``train``, ``val``, ``test`` or None.
    """

    name: str
    location: Any = None
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Rejection:
    """A path that is not used, with a short reason code and a detail for people."""

    name: str
    reason: str
    detail: str
