"""Images that are rows of arrays."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from ...cache.file_stamp import FileStamp
from ..pixels import read_file, tiff
from ..pixels.decode import MAX_PIXELS, ImageRejected
from .image_source import ImageSource, Listing
from .item import Item, Rejection
from .label_names import to_label_names

_SUPPORTED_SHAPES = "(n, height, width), or (n, height, width, channels) with 1, 3 or 4 channels"


@dataclass(frozen=True)
class LabeledArray:
    """An array of images with its name, labels, class names and split."""

    name: str
    images: LazyImageArray
    labels: np.ndarray
    split: str | None
    classes: Sequence[str] | None = None


class LazyImageArray:
    """The images (n, height, width[, channels]) uint8 of one array, loaded when the first image is read."""

    def __init__(self, load: Callable[[], np.ndarray], shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._load, self._lock = load, threading.Lock()
        self._images: np.ndarray | None = None
        self._header = tiff.build_header(*shape[1:])

    def encode(self, row: int) -> bytes:
        """Return one image as an uncompressed TIFF file; raises `ImageRejected`."""
        with self._lock:
            if self._images is None:
                try:
                    self._images = self._load()
                except DataError as error:
                    raise ImageRejected("unreadable", str(error)) from error
            images = self._images
        return self._header + bytes(images[row].tobytes())


class ImageArrays(ImageSource):
    """Items called ``x_train/00017``, whose `location` is the number of the array and of its row.

    Each image is encoded as an uncompressed TIFF file. The stamp of every image is that of `root`.

    Parameters
    ----------
    data : str
        DATA as the user gave it.
    root : Path
        A file that changes when the arrays do.
    """

    root: Path

    def __init__(self, data: str, root: Path) -> None:
        self.data, self.root = data, root
        self._lock = threading.Lock()
        self._loaded_arrays: Sequence[LabeledArray] | None = None

    @abstractmethod
    def load_arrays(self) -> Sequence[LabeledArray]:
        """Return the arrays, whose images may still have to be loaded; raises `DataError`."""

    def list_items(self) -> Listing:
        """Return the rows; their labels are class numbers, class names or one-hot."""
        items: list[Item] = []
        rejections: list[Rejection] = []
        for index, array in enumerate(self._arrays):
            count = array.images.shape[0]
            if array.labels.ndim and len(array.labels) != count:
                raise DataError(f"{self.root}: {array.name} has {count} images but {len(array.labels)} labels")
            n_digits = max(5, len(str(count - 1)))
            labels = to_label_names(array.labels, array.classes, f"{self.root}: labels of {array.name}")
            for row, label in enumerate(labels):
                name = f"{array.name}/{row:0{n_digits}}"
                if label:
                    items.append(Item(name, (index, row), label, array.split))
                else:
                    detail = f"row {row} has no label, several labels, or a class number without a name"
                    rejections.append(Rejection(name, "no_label", detail))
        return Listing(tuple(items), tuple(rejections))

    def read(self, item: Item) -> bytes:
        """Return the row as an uncompressed TIFF file; raises `ImageRejected`."""
        index, row = item.location
        images: LazyImageArray = self._arrays[index].images
        return images.encode(row)

    def identify(self, item: Item) -> tuple[bytes, str]:
        """Return the digest of the row's TIFF file, and ``array``."""
        return read_file.compute_digest(self.read(item)), "array"

    def stamp(self, item: Item) -> FileStamp | None:
        """Return the stamp of the file that holds the arrays."""
        try:
            return FileStamp.from_path(self.root)
        except OSError:
            return None

    def read_stamps(self, items: Sequence[Item]) -> np.ndarray:
        """Return the stamp of the file, once for each item."""
        return np.repeat(super().read_stamps(items[:1]), len(items), axis=0)

    @property
    def index_key(self) -> str:
        """The path of the file, with links resolved."""
        return str(self.root.resolve())

    @property
    def _arrays(self) -> Sequence[LabeledArray]:
        with self._lock:
            if self._loaded_arrays is None:
                self._loaded_arrays = self.load_arrays()
            return self._loaded_arrays


def check_image_array(shape: tuple[int, ...], dtype: np.dtype, context: str) -> tuple[int, ...]:
    """Return `shape` if it and `dtype` are those of an array of images; raises `DataError`."""
    if dtype != np.uint8:
        raise DataError(f"{context}: pixels are {dtype}; convert them to uint8, 0 to 255")
    if len(shape) not in {3, 4} or (len(shape) == 4 and shape[3] not in {1, 3, 4}):
        raise DataError(f"{context}: shape {shape} is not supported; give images as {_SUPPORTED_SHAPES}")
    if not 0 < shape[1] * shape[2] <= MAX_PIXELS:
        raise DataError(f"{context}: images are {shape[1]} x {shape[2]} pixels; give images of 1 to {MAX_PIXELS:,} pixels")
    return shape
