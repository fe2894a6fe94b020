"""Where images come from, as one object.

To add one: write this file, add a line to the registry. That is, a file with a class that inherits `ImageSource`, and a
line in `registry.py`; outside of the package, a call of `register_image_source`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ...cache.key_value_store import KeyValueStore
from ..pixels import decode, read_file
from .item import Item, Rejection

if TYPE_CHECKING:
    from .feature_file import FeatureFile

STAMP_BYTES = 32
NOTHING_THERE = "expected a folder of images or a file that lists them, found nothing; check the path"
_NO_STAMP = b"\xff" * STAMP_BYTES


class Listing(NamedTuple):
    """What a source holds, in a stable order, and what it does not use; each name has one outcome."""

    items: tuple[Item, ...]
    rejections: tuple[Rejection, ...] = ()


class Stamp(Protocol):
    """What changes when the bytes of an image do: of a file its size and times, of an object in a store its ETag."""

    def to_bytes(self) -> bytes:
        """The stamp in `STAMP_BYTES` bytes; equal ones mean the same image."""
        ...

    def is_stable(self, now_ns: int) -> bool:
        """Whether a change after `now_ns` (nanoseconds since 1970) must show in the stamp."""
        ...


class ImageSource(ABC):
    """Lists images and reads them, now and in a later process.

    `read`, `fetch` and `stamp` are called from several threads, for items roughly in the order of `list_items`, so that a
    source that is best read from front to back can read ahead.

    Attributes
    ----------
    kinds : tuple of str
        What descriptions of such data are called, in ``kind``; no other source has these names.
    data : str
        DATA as it was given.
    root : Path or str
        What the names of items are relative to: a folder, a file or an address.
    kv_store : KeyValueStore or None
        Remembers from one run to the next what is costly to find out, such as a listing. The registry sets it.
    """

    kinds: ClassVar[tuple[str, ...]]
    holds_features: ClassVar[bool] = False  # of images that are elsewhere, if anywhere
    imports_keras: ClassVar[bool] = False  # when an image is read
    data: str
    root: Path | str
    kv_store: KeyValueStore | None = None

    @classmethod
    @abstractmethod
    def matches(cls, data: str) -> bool:
        """Whether DATA is of this kind, by its name and what lies there; no image is opened."""

    @classmethod
    @abstractmethod
    def open(cls, data: str) -> ImageSource:
        """The source of DATA that `matches`.

        Parameters
        ----------
        data : str
            A path, an address or a name.

        Raises
        ------
        DataError
            Here or when it is listed, where the data cannot be used.
        """

    @abstractmethod
    def list_items(self) -> Listing:
        """The images with their labels, splits and groups, and what is not used; raises `DataError`."""

    @abstractmethod
    def read(self, item: Item) -> bytes:
        """The encoded image, which its digest is of; raises `ImageRejected`, or `DataError` where all images are gone."""

    @abstractmethod
    def stamp(self, item: Item) -> Stamp | None:
        """What tells that the bytes are the same as before; None where that cannot be told without reading them."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a run writes down, as JSON values, so that the images can be read later.

        Returns
        -------
        dict
            ``kind``, one of `kinds`; ``source``, DATA as it was given; ``root``, which no longer depends on the folder that
            the process runs in; and what else `reopen` needs.
        """

    @classmethod
    @abstractmethod
    def reopen(cls, description: Mapping[str, Any]) -> ImageSource:
        """The source that `describe` described; nothing is read until an image is.

        Raises `KeyError`, `TypeError` or `ValueError` for what is no such description.
        """

    @property
    def title(self) -> str:
        """A name for people."""
        return Path(self.data).name

    @property
    def location(self) -> str:
        """DATA as a command anywhere on this machine would have it."""
        return str(self.root)

    @property
    def images(self) -> ImageSource:
        """Where the images themselves are; raises `DataError` where there are only features, of images nobody knows."""
        return self

    @property
    def feature_file(self) -> FeatureFile | None:
        """The features, where it holds them."""
        return None

    @property
    def index_key(self) -> str:
        """What identifies the data, for what is remembered of it."""
        return json.dumps(self.describe(), sort_keys=True)

    @property
    def is_reachable(self) -> bool:
        """Whether the data still is where it was, as far as that is cheap to tell."""
        return True

    def exists(self, name: str) -> bool:
        """Whether there still is an item of that name, as far as that is cheap to tell; others are forgotten."""
        return True

    def get_item(self, name: str) -> Item:
        """The item of that name, for reading it; raises `ImageRejected` where there is none."""
        if (item := self._items_by_name.get(name)) is None:
            raise decode.ImageRejected("unreadable", "there is no such row")
        return item

    def fetch(self, item: Item) -> Path | bytes:
        """What a decoder process is given: a file that is the image, which it reads itself, or the bytes."""
        return self.read(item)

    def identify(self, item: Item) -> tuple[bytes, str]:
        """The digest (32 bytes) of the encoded image and the name of its format; raises `ImageRejected`."""
        data = self.read(item)
        return read_file.compute_digest(data), decode.detect_format(data)

    def read_stamps(self, items: Sequence[Item]) -> np.ndarray:
        """The stamps of many items (n, 4) int64, at once where that is cheaper; rows of -1 where there is none."""
        stamps = map(self.stamp, items)
        packed = b"".join(_NO_STAMP if stamp is None else stamp.to_bytes() for stamp in stamps)
        return np.frombuffer(packed, np.int64).reshape(-1, 4)

    @cached_property
    def _items_by_name(self) -> dict[str, Item]:
        return {item.name: item for item in self.list_items().items}
