"""Images of a run as its models see them, to check a model or to calibrate its activations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...cache.errors import DataError
from ...extract.pixels import read_file
from ...extract.pixels.decode import ImageRejected
from ...extract.pixels.decode_pool import DecoderPool
from ..runs.image_records import ImageRecord
from ..runs.run import Run

MIN_IMAGES = 16


def select_parity_records(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Select up to `count` evenly spaced test images to check a model on, and others if there are fewer than 16."""
    test_records = [record for record in records if record.split == "test"]
    other_records = [record for record in records if record.split != "test"]
    return select_evenly(test_records, count) + select_evenly(other_records, MIN_IMAGES - len(test_records))


def select_calibration_records(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Select up to `count` images outside the test split, evenly spaced in the order of their digests."""
    return select_evenly(
        sorted((record for record in records if record.split != "test"), key=lambda each: each.digest), count
    )


def select_evenly(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Select up to `count` records, evenly spaced from the first to the last."""
    if count <= 0 or not records:
        return []
    return [records[row] for row in np.unique(np.linspace(0, len(records) - 1, count).astype(int))]


def load_pixels(run: Run, records: Sequence[ImageRecord], size: tuple[int, int]) -> np.ndarray:
    """Read images of a run and decode them in decoder processes.

    Parameters
    ----------
    run : Run
        The run, which records where the images are.
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
        If an image is missing, has changed, or crashes its decoder.
    """
    source = run.metadata.data.open_images()
    images, jobs = np.empty((len(records), *size, 3), np.uint8), min(4, read_file.count_cores())
    with DecoderPool(jobs) as decoders:

        def decode_row(row: int) -> None:
            record = records[row]
            try:
                images[row] = decoders.decode(source.fetch(source.get_item(record.name)), size, record.digest)[0]
            except ImageRejected as error:
                reason = "the file has changed since the run" if error.reason == "changed" else error
                raise DataError(
                    f"{source.root}/{record.name}: cannot read an image that the export needs: {reason}; restore it, or, if "
                    "the images were moved, run `humeris sweep` on their new folder (no head is trained again)"
                ) from error

        for _ in read_file.map_in_order(decode_row, range(len(records)), jobs, 2 * jobs):
            pass
    return images
