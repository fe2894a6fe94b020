"""Images of a run as its models see them: to compare answers on, and to learn the ranges of activations from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from ...extract.images.detect import reader
from ...extract.pixels import decode, read_file
from ..runs.run import Record, Run

LEAST = 16


def compared(records: Sequence[Record], count: int) -> list[Record]:
    """Up to `count` images to compare answers on: of the test split, evenly chosen, and of the others where it has few."""
    test = [record for record in records if record.split == "test"]
    others = [record for record in records if record.split != "test"]
    return evenly(test, count) + evenly(others, LEAST - len(test))


def learnt(records: Sequence[Record], count: int) -> list[Record]:
    """Up to `count` images that are not of the test split, evenly chosen in the order of their digests."""
    return evenly(sorted((record for record in records if record.split != "test"), key=lambda each: each.digest), count)


def evenly(records: Sequence[Record], count: int) -> list[Record]:
    """Up to `count` of the records, from the first to the last."""
    if count <= 0 or not records:
        return []
    return [records[row] for row in np.unique(np.linspace(0, len(records) - 1, count).astype(int))]


def pixels_of(run: Run, records: Sequence[Record], size: tuple[int, int]) -> np.ndarray:
    """The images (n, height, width, 3) uint8; raises `DataError` where one is gone or has changed."""
    data = run.description["data"]
    read, root = reader(data), Path((data.get("images") or data)["root"])
    out = np.empty((len(records), *size, 3), np.uint8)
    for row, record in enumerate(records):
        try:
            found = read(record.name)
            if read_file.digest(found) != record.digest:
                raise decode.Refused("changed", "the file is not the one the run was made from")
            out[row] = decode.decode(found, size)
        except decode.Refused as refused:
            raise DataError(
                f"{root / record.name}: expected the image that the export is checked on, found: {refused}; put it back, "
                "or, if the images were moved, run `humeris sweep` where they are now (it trains nothing again)"
            ) from refused
    return out
