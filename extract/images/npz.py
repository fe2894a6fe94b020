"""Images that are rows of arrays in an `.npz` file, under the names people use."""

from __future__ import annotations

import math
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from .. import memory
from ..pixels import tiff
from ..pixels.decode import MAX_PIXELS, ImageRejected
from .dataset import SPLITS, Dataset, Item, Rejection
from .manifest import MISSING

_ARRAY_NAME_PAIRS = (("x", "y"), ("images", "labels"), ("image", "label"))
_CLASS_NAME_KEYS = ("classes", "class_names", "label_names")
_EXPECTED_SHAPES = "(n, height, width), or that with 1, 3 or 4 channels behind"
_READ_ERRORS = (
    OSError, ValueError, LookupError, EOFError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class LabeledArray:
    """An array of images: what it is called, its shape, the labels beside it, and its split."""

    name: str
    shape: tuple[int, ...]
    labels: np.ndarray
    split: str | None


class LazyImageArray:
    """The images (n, height, width[, channels]) uint8 of one array, loaded when the first one is read."""

    def __init__(self, load: Callable[[], np.ndarray], shape: tuple[int, ...]) -> None:
        self._load, self._lock = load, threading.Lock()
        self._images: np.ndarray | None = None
        self._header = tiff.build_header(*shape[1:])

    def encode(self, row: int) -> bytes:
        """One image as an uncompressed TIFF file; raises `ImageRejected`."""
        with self._lock:
            if self._images is None:
                try:
                    self._images = self._load()
                except DataError as error:
                    raise ImageRejected("unreadable", str(error)) from error
            images = self._images
        return self._header + bytes(images[row].tobytes())


def find(path: Path) -> Dataset:
    """The images of the `.npz` file at `path`: `x_train, y_train` and the like, `x, y` or `images, labels`.

    Only headers and labels are read; nothing that could run code. Raises `DataError`.
    """
    archive = _NpzArchive(path)
    names_by_lower = {name.lower(): name for name in archive.names}
    labeled_arrays = []
    for image_key, label_key, split in _iter_array_names():
        if image_key not in names_by_lower:
            continue
        if label_key not in names_by_lower:
            raise DataError(f"{path}: expected the labels {label_key} beside {image_key}, found {', '.join(archive.names)}")
        labeled_arrays.append(
            LabeledArray(
                names_by_lower[image_key],
                archive.read_image_shape(names_by_lower[image_key]),
                archive.load(names_by_lower[label_key]),
                split,
            )
        )
    if not labeled_arrays:
        raise DataError(
            f"{path}: expected the arrays x_train, y_train (and x_test, y_test), or x, y, or images, labels, "
            f"found {', '.join(archive.names)[:200] or 'none'}"
        )
    classes = next((archive.load(names_by_lower[name]) for name in _CLASS_NAME_KEYS if name in names_by_lower), None)
    image_arrays = [
        LazyImageArray(partial(archive.load, labeled_array.name), labeled_array.shape) for labeled_array in labeled_arrays
    ]
    return build_dataset(path, "arrays", labeled_arrays, image_arrays, parse_class_names(classes, path))


def build_dataset(
    data: Path,
    kind: str,
    labeled_arrays: Sequence[LabeledArray],
    image_arrays: Sequence[LazyImageArray],
    classes: Sequence[str] | None,
) -> Dataset:
    """The rows of `image_arrays` as items called `x_train/00017`; labels are numbers (of `classes`), names, or one-hot."""
    items, rejections = [], []
    for labeled_array, image_array in zip(labeled_arrays, image_arrays, strict=True):
        if labeled_array.labels.ndim and len(labeled_array.labels) != labeled_array.shape[0]:
            raise DataError(
                f"{data}: expected {labeled_array.shape[0]} labels of {labeled_array.name}, found "
                f"{len(labeled_array.labels)}"
            )
        n_digits = max(5, len(str(labeled_array.shape[0] - 1)))
        for row, label in enumerate(
            to_label_names(labeled_array.labels, classes, f"{data}: the labels of {labeled_array.name}")
        ):
            name = f"{labeled_array.name}/{row:0{n_digits}}"
            if label:
                items.append(Item(name, data, label, labeled_array.split, None, partial(image_array.encode, row)))
            else:
                rejections.append(
                    Rejection(name, "no_label", f"row {row} has no label, no single one, or one without a name")
                )
    return Dataset(data, data, kind, tuple(items), tuple(rejections))


def to_label_names(labels: np.ndarray, classes: Sequence[str] | None, context: str) -> list[str]:
    """Class names (n,) of labels: numbers (n,) or (n, 1), names (n,), or one-hot (n, k); "" for a missing one."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    dtype_kind = labels.dtype.kind
    if labels.ndim == 2 and dtype_kind in "iuf":
        is_one_hot = ((labels != 0).sum(axis=1) == 1) & (labels.max(axis=1, initial=0) == 1)
        labels, classes = (
            np.where(is_one_hot, labels.argmax(axis=1), -1),
            classes or [str(k) for k in range(labels.shape[1])],
        )
    elif labels.ndim != 1 or dtype_kind not in "iufSU":
        raise DataError(f"{context}: expected numbers or names (n,), or one-hot (n, k), found {labels.dtype} {labels.shape}")
    if dtype_kind in "SU":
        return [to_text(label) for label in labels.tolist()]
    numbers, indices = np.unique(labels, return_inverse=True)
    names = [_get_class_name(number, classes, context) for number in numbers.tolist()]
    return [names[index] for index in indices.tolist()]


def parse_class_names(values: np.ndarray | None, path: Path) -> list[str] | None:
    """The names (k,) of class numbers, as text."""
    if values is None:
        return None
    if values.ndim != 1 or values.dtype.kind not in "SUiu":
        raise DataError(f"{path}: expected class names (k,), found {values.dtype} {values.shape}")
    return [to_text(value) for value in values.tolist()]


def _get_class_name(number: float, classes: Sequence[str] | None, context: str) -> str:
    if not math.isfinite(number):
        return ""
    if number != int(number):
        raise DataError(f"{context}: expected class numbers, found {number}")
    if classes is None:
        return str(int(number))
    return classes[int(number)] if 0 <= number < len(classes) else ""


def to_text(value: str | bytes | float) -> str:
    """A label, name or number as text; "" for a missing one."""
    if isinstance(value, bytes):
        stripped = value.decode("utf-8", "surrogateescape").strip()
    else:
        stripped = str(value).strip().encode("utf-8", "backslashreplace").decode()
    return "" if stripped in MISSING else stripped


def _iter_array_names() -> Iterator[tuple[str, str, str | None]]:
    """(images, labels, split) under every usual name: x_train, train_images, images and so on."""
    for image_key, label_key in _ARRAY_NAME_PAIRS:
        yield image_key, label_key, None
        for split_word, split in SPLITS.items():
            yield f"{image_key}_{split_word}", f"{label_key}_{split_word}", split
            yield f"{split_word}_{image_key}", f"{split_word}_{label_key}", split


class _NpzArchive:
    """The arrays of an `.npz`, whose sizes are known before they are loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._convert_errors(), zipfile.ZipFile(path) as archive:
            self.names = [re.sub(r"\.npy$", "", info.filename) for info in archive.infolist()]

    def read_image_shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array of images; raises `DataError` when it is something else."""
        shape, dtype = self._read_header(name)
        return check_image_array(shape, dtype, f"{self.path}: {name}")

    def load(self, name: str) -> np.ndarray:
        """An array, read whole."""
        shape, dtype = self._read_header(name)
        n_bytes, available_bytes = math.prod(shape) * dtype.itemsize, memory.get_available_bytes()
        if n_bytes > available_bytes:
            raise DataError(f"{self.path}: {name} needs {n_bytes:,} bytes of memory, found {available_bytes:,}")
        with self._convert_errors(), np.load(self.path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])

    def _read_header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype, if the archive holds as many bytes as they say."""
        with self._convert_errors(), zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(file)
            if dtype.hasobject:
                raise DataError(
                    f"{self.path}: {name} holds Python objects, which would run code when loaded; "
                    "save it as numbers or text, np.array(values, dtype=str)"
                )
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise ValueError(f"{name} is shorter than its shape {shape}")
            return shape, dtype

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(f"{self.path}: not enough memory to load it") from error
        except _READ_ERRORS as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: expected arrays written by np.savez, found: {reason}") from error


def check_image_array(shape: tuple[int, ...], dtype: np.dtype, context: str) -> tuple[int, ...]:
    """`shape` if it is one of images; raises `DataError`."""
    if dtype != np.uint8:
        raise DataError(f"{context}: expected images as uint8, 0 to 255, found {dtype} {shape}; convert them first")
    if len(shape) not in {3, 4} or (len(shape) == 4 and shape[3] not in {1, 3, 4}):
        raise DataError(f"{context}: expected images {_EXPECTED_SHAPES}, found {shape}")
    if not 0 < shape[1] * shape[2] <= MAX_PIXELS:
        raise DataError(f"{context}: expected images of 1 to {MAX_PIXELS:,} pixels, found {shape[1]} x {shape[2]}")
    return shape
