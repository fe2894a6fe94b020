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
from ..pixels.decode import MAX_PIXELS, Refused
from .dataset import SPLITS, Dataset, Item, Refusal
from .manifest import MISSING

_PAIRS = (("x", "y"), ("images", "labels"), ("image", "label"))
_CLASSES = ("classes", "class_names", "label_names")
_SHAPES = "(n, height, width), or that with 1, 3 or 4 channels behind"
_DAMAGED = (
    OSError, ValueError, LookupError, EOFError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An array of images: what it is called, its shape, the labels beside it, and its split."""

    name: str
    shape: tuple[int, ...]
    labels: np.ndarray
    split: str | None


class Rows:
    """The images (n, height, width[, channels]) uint8 of one array, loaded when the first one is read."""

    def __init__(self, load: Callable[[], np.ndarray], shape: tuple[int, ...]) -> None:
        self._load, self._lock = load, threading.Lock()
        self._images: np.ndarray | None = None
        self._header = tiff.header(*shape[1:])

    def encoded(self, row: int) -> bytes:
        """One image as an uncompressed TIFF file; raises `Refused`."""
        with self._lock:
            if self._images is None:
                try:
                    self._images = self._load()
                except DataError as error:
                    raise Refused("unreadable", str(error)) from error
            images = self._images
        return self._header + bytes(images[row].tobytes())


def find(path: Path) -> Dataset:
    """The images of the `.npz` file at `path`: `x_train, y_train` and the like, `x, y` or `images, labels`.

    Only headers and labels are read; nothing that could run code. Raises `DataError`.
    """
    archive = _Archive(path)
    names = {name.lower(): name for name in archive.names}
    parts = []
    for images, labels, split in _roles():
        if images not in names:
            continue
        if labels not in names:
            raise DataError(f"{path}: expected the labels {labels} beside {images}, found {', '.join(archive.names)}")
        parts.append(Part(names[images], archive.images(names[images]), archive.load(names[labels]), split))
    if not parts:
        raise DataError(
            f"{path}: expected the arrays x_train, y_train (and x_test, y_test), or x, y, or images, labels, "
            f"found {', '.join(archive.names)[:200] or 'none'}"
        )
    classes = next((archive.load(names[name]) for name in _CLASSES if name in names), None)
    stacks = [Rows(partial(archive.load, part.name), part.shape) for part in parts]
    return dataset(path, "arrays", parts, stacks, class_names(classes, path))


def dataset(data: Path, kind: str, parts: Sequence[Part], stacks: Sequence[Rows], classes: Sequence[str] | None) -> Dataset:
    """The rows of `parts` as items called `x_train/00017`; labels are class numbers (of `classes`), names, or one-hot."""
    items, refused = [], []
    for part, stack in zip(parts, stacks, strict=True):
        if part.labels.ndim and len(part.labels) != part.shape[0]:
            raise DataError(f"{data}: expected {part.shape[0]} labels of {part.name}, found {len(part.labels)}")
        width = max(5, len(str(part.shape[0] - 1)))
        for row, label in enumerate(texts(part.labels, classes, f"{data}: the labels of {part.name}")):
            name = f"{part.name}/{row:0{width}}"
            if label:
                items.append(Item(name, data, label, part.split, None, partial(stack.encoded, row)))
            else:
                refused.append(Refusal(name, "no_label", f"row {row} has no label, no single one, or one without a name"))
    return Dataset(data, data, kind, tuple(items), tuple(refused))


def texts(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> list[str]:
    """Class names (n,) of labels: numbers (n,) or (n, 1), names (n,), or one-hot (n, k); "" for a missing one."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    kind = labels.dtype.kind
    if labels.ndim == 2 and kind in "iuf":
        hot = ((labels != 0).sum(axis=1) == 1) & (labels.max(axis=1, initial=0) == 1)
        labels, classes = np.where(hot, labels.argmax(axis=1), -1), classes or [str(k) for k in range(labels.shape[1])]
    elif labels.ndim != 1 or kind not in "iufSU":
        raise DataError(f"{where}: expected numbers or names (n,), or one-hot (n, k), found {labels.dtype} {labels.shape}")
    if kind in "SU":
        return [text(label) for label in labels.tolist()]
    numbers, which = np.unique(labels, return_inverse=True)
    names = [_name(number, classes, where) for number in numbers.tolist()]
    return [names[each] for each in which.tolist()]


def class_names(values: np.ndarray | None, where: Path) -> list[str] | None:
    """The names (k,) of class numbers, as text."""
    if values is None:
        return None
    if values.ndim != 1 or values.dtype.kind not in "SUiu":
        raise DataError(f"{where}: expected class names (k,), found {values.dtype} {values.shape}")
    return [text(value) for value in values.tolist()]


def _name(number: float, classes: Sequence[str] | None, where: str) -> str:
    if not math.isfinite(number):
        return ""
    if number != int(number):
        raise DataError(f"{where}: expected class numbers, found {number}")
    if classes is None:
        return str(int(number))
    return classes[int(number)] if 0 <= number < len(classes) else ""


def text(value: str | bytes | float) -> str:
    """A label, name or number as text; "" for a missing one."""
    if isinstance(value, bytes):
        text = value.decode("utf-8", "surrogateescape").strip()
    else:
        text = str(value).strip().encode("utf-8", "backslashreplace").decode()
    return "" if text in MISSING else text


def _roles() -> Iterator[tuple[str, str, str | None]]:
    """(images, labels, split) under every usual name: x_train, train_images, images and so on."""
    for images, labels in _PAIRS:
        yield images, labels, None
        for word, split in SPLITS.items():
            yield f"{images}_{word}", f"{labels}_{word}", split
            yield f"{word}_{images}", f"{word}_{labels}", split


class _Archive:
    """The arrays of an `.npz`, whose sizes are known before they are loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._damage(), zipfile.ZipFile(path) as archive:
            self.names = [re.sub(r"\.npy$", "", info.filename) for info in archive.infolist()]

    def images(self, name: str) -> tuple[int, ...]:
        """The shape of an array of images; raises `DataError` when it is something else."""
        shape, dtype = self._header(name)
        return checked(shape, dtype, f"{self.path}: {name}")

    def load(self, name: str) -> np.ndarray:
        """An array, read whole."""
        shape, dtype = self._header(name)
        needed, free = math.prod(shape) * dtype.itemsize, memory.available()
        if needed > free:
            raise DataError(f"{self.path}: {name} needs {needed:,} bytes of memory, found {free:,}")
        with self._damage(), np.load(self.path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype, if the archive holds as many bytes as they say."""
        with self._damage(), zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if dtype.hasobject:
                raise DataError(
                    f"{self.path}: {name} holds Python objects, which would run code when loaded; "
                    "save it as numbers or text, np.array(values, dtype=str)"
                )
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise ValueError(f"{name} is shorter than its shape {shape}")
            return shape, dtype

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(f"{self.path}: not enough memory to load it") from error
        except _DAMAGED as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: expected arrays written by np.savez, found: {reason}") from error


def checked(shape: tuple[int, ...], dtype: np.dtype, where: str) -> tuple[int, ...]:
    """`shape` if it is one of images; raises `DataError`."""
    if dtype != np.uint8:
        raise DataError(f"{where}: expected images as uint8, 0 to 255, found {dtype} {shape}; convert them first")
    if len(shape) not in {3, 4} or (len(shape) == 4 and shape[3] not in {1, 3, 4}):
        raise DataError(f"{where}: expected images {_SHAPES}, found {shape}")
    if not 0 < shape[1] * shape[2] <= MAX_PIXELS:
        raise DataError(f"{where}: expected images of 1 to {MAX_PIXELS:,} pixels, found {shape[1]} x {shape[2]}")
    return shape
