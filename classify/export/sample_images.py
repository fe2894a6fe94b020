"""Images of a run as its models see them: to check a model, and to learn ranges of activations from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from ...extract.images.detect import make_image_reader
from ...extract.pixels import decode, read_file
from ...extract.pixels.decode_pool import DecoderPool
from ..runs.run import ImageRecord, Run

MIN_IMAGES = 16


def select_parity_records(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Up to `count` images to check a model on: of the test split, evenly spaced, and of the others where it has few."""
    test_records = [record for record in records if record.split == "test"]
    other_records = [record for record in records if record.split != "test"]
    return select_evenly(test_records, count) + select_evenly(other_records, MIN_IMAGES - len(test_records))


def select_calibration_records(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Up to `count` images that are not of the test split, evenly spaced in the order of their digests."""
    return select_evenly(
        sorted((record for record in records if record.split != "test"), key=lambda each: each.digest), count
    )


def select_evenly(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Up to `count` of the records, evenly spaced from the first to the last."""
    if count <= 0 or not records:
        return []
    return [records[row] for row in np.unique(np.linspace(0, len(records) - 1, count).astype(int))]


def load_pixels(run: Run, records: Sequence[ImageRecord], size: tuple[int, int]) -> np.ndarray:
    """Read and decode images of a run.

    Parameters
    ----------
    run : Run
        The run, which says where the images are.
    records : sequence of ImageRecord
        The images, n of them.
    size : tuple of int
        (height, width) in pixels.

    Returns
    -------
    ndarray
        (n, height, width, 3) uint8.

    Raises
    ------
    DataError
        Where an image is gone or has changed.
    """
    data = run.metadata["data"]
    read_image, root = make_image_reader(data), Path((data.get("images") or data)["root"])
    images = np.empty((len(records), *size, 3), np.uint8)
    with DecoderPool(1) as decoders:
        for row, record in enumerate(records):
            try:
                encoded = read_image(record.name)
                if read_file.compute_digest(encoded) != record.digest:
                    raise decode.ImageRejected("changed", "the file is not the one the run was made from")
                images[row] = decoders.decode(encoded, size)[0]
            except decode.ImageRejected as error:
                raise DataError(
                    f"{root / record.name}: expected the image that the export is checked on, found: {error}; put it back, "
                    "or, if the images were moved, run `humeris sweep` where they are now (it trains nothing again)"
                ) from error
    return images
