"""Load images: list them, compute their digests, and cache both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from ...cache.key_value_store import KeyValueStore
from ...cache.store import Store
from ..pixels import decode, read_file
from .dataset import Dataset
from .file_index import FileIndex, FileRecord
from .image_list import ImageList
from .image_source import ImageSource, Stamp
from .images import Images
from .item import Item, Rejection, describe_rejections
from .outcomes import resolve_outcomes
from .registry import list_images, open_source

Progress = Callable[[int, int], None]
_FILES_PER_TASK = 16  # files that a thread reads per task


def load_images(
    data: ImageList | Path | str,
    store: Store,
    *,
    limit: int | None = None,
    jobs: int | None = None,
    features: bool = False,
    progress: Progress | None = None,
) -> Images:
    """Load the images of DATA and identify each by the SHA-256 of its bytes.

    Parameters
    ----------
    data : ImageList, Path or str
        The data, as for `open_source`: class folders, a list of images, arrays and so on.
    store : Store
        The cache, which stores the digests.
    limit : int or None
        Use only the first `limit` images of each class and split.
    jobs : int or None
        Number of threads that read files; the number of cores by default.
    features : bool
        Whether to accept an HDF5 file of features, whose rows then stand for images.
    progress : callable or None
        Called with the number of images read so far and the number to read.

    Returns
    -------
    Images
        Every listed path is used, a duplicate or rejected.

    Raises
    ------
    DataError
        If the data cannot be used, no image of it can be read, or it is a file of features while `features` is false.
    """
    source = open_source(data, store.kv_store)
    if source.holds_features and not features:
        raise DataError(f"{Path(data)}: is a file of features, not of images; give it to `humeris sweep`")
    return load_source(source, store, limit=limit, jobs=jobs, progress=progress)


def load_source(
    source: ImageSource,
    store: Store,
    *,
    limit: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Images:
    """Load the images of a source; see `load_images` for the parameters."""
    images = identify_images(list_images(source, limit), store.kv_store, jobs or read_file.count_cores(), progress)
    if not images.used and not source.holds_features:
        raise DataError(f"{source.data}: no usable images: {describe_rejections(images.rejections)}; correct these")
    return images


def identify_images(dataset: Dataset, kv_store: KeyValueStore, jobs: int, progress: Progress | None = None) -> Images:
    """Compute the digests of the images; an image whose stamp has not changed is not read again.

    Parameters
    ----------
    dataset : Dataset
        The listed images.
    kv_store : KeyValueStore
        Stores digests and stamps, also if reading is interrupted.
    jobs : int
        Number of threads that read files.
    progress : callable or None
        Called with the number of images read so far and the number to read.

    Returns
    -------
    Images
        Every listed path is used, a duplicate or rejected.
    """
    source, items = dataset.source, dataset.items
    file_index = FileIndex(kv_store, source)
    records = file_index.look_up(items)
    unread = np.nonzero(~records.has_record)[0].tolist()
    chunks = [unread[start : start + _FILES_PER_TASK] for start in range(0, len(unread), _FILES_PER_TASK)]
    n_inspected = 0
    try:
        for inspections in read_file.map_in_order(
            lambda numbers: [_inspect_image(number, source, items[number]) for number in numbers], chunks, jobs, 4 * jobs
        ):
            for inspection in inspections:
                records.put(inspection.number, inspection.record)
                if inspection.stamp is not None:
                    file_index.put(
                        items[inspection.number].name, inspection.stamp, inspection.record, inspection.stamped_at_ns
                    )
                n_inspected += 1
                if progress is not None:
                    progress(n_inspected, len(unread))
    finally:
        file_index.save()
    return resolve_outcomes(dataset, records)


def remember_rejections(images: Images, rejections: Iterable[Rejection], kv_store: KeyValueStore) -> None:
    """Store the rejections whose reason is permanent, so that later runs do not decode these images again."""
    lasting_rejections = [rejection for rejection in rejections if rejection.reason in decode.PERMANENT_REASONS]
    if lasting_rejections:
        file_index = FileIndex(kv_store, images.source)
        for rejection in lasting_rejections:
            file_index.mark_rejected(rejection.name, rejection.reason, rejection.detail)
        file_index.save()


@dataclass(frozen=True)
class _Inspection:
    """The record of one image that was read; `stamp` is None if the record must not be stored."""

    number: int
    stamp: Stamp | None
    stamped_at_ns: int
    record: FileRecord


def _inspect_image(number: int, source: ImageSource, item: Item) -> _Inspection:
    """Read one image. The stamp is taken first, so that a change during reading invalidates the record."""
    stamped_at_ns = time.time_ns()
    stamp = source.stamp(item)
    try:
        return _Inspection(number, stamp, stamped_at_ns, FileRecord(*source.identify(item)))
    except decode.ImageRejected as error:
        lasting_stamp = stamp if error.reason in decode.PERMANENT_REASONS else None
        return _Inspection(number, lasting_stamp, stamped_at_ns, FileRecord(b"\0" * 32, "", error.reason, str(error)))
