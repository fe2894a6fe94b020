"""The interface of image sources: folders, lists, arrays, files of features and others.

To add one, write a file with a subclass of `ImageSource` and add a line to `registry.py`; outside the package, call
`register_image_source`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ...cache.errors import DataError
from ...cache.key_value_store import KeyValueStore
from ..config import format_option
from ..pixels import decode, read_file
from .item import Item, Rejection

if TYPE_CHECKING:
    from .feature_file import FeatureFile
    from .image_list import ImageList

STAMP_BYTES = 32
NOTHING_THERE = "no such file or folder; check the path"
_NO_STAMP = b"\xff" * STAMP_BYTES


class Listing(NamedTuple):
    """The images of a source in a stable order, and the paths that it rejects; no name is in both.

    `ignored` are the paths of documents and system files, which are no images; `notes` say in a line each what the user may
    have meant otherwise.
    """

    items: tuple[Item, ...]
    rejections: tuple[Rejection, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Stamp(Protocol):
    """A value that changes when the bytes of an image do: the size and times of a file, the ETag of an object."""

    def to_bytes(self) -> bytes:
        """Return the stamp as `STAMP_BYTES` bytes; equal stamps mean equal images."""
        ...

    def is_stable(self, now_ns: int) -> bool:
        """Return whether any change after `now_ns` (nanoseconds since 1970) is certain to change the stamp."""
        ...


class ImageSource(ABC):
    """A source of images, which lists and reads them, also in a later process.

    `read`, `fetch` and `stamp` are called from several threads, roughly in the order of `list_items`, so a source that is
    best read sequentially can read ahead.

    Attributes
    ----------
    kinds : tuple of str
        The values of ``kind`` in descriptions of such data; no two sources share one.
    holds_features : bool
        Whether the source holds features instead of images.
    imports_keras : bool
        Whether reading an image imports Keras.
    data : str
        DATA as the user gave it.
    root : Path or str
        The folder, file or address that the names of items are relative to.
    kv_store : KeyValueStore or None
        Stores what is costly to compute, such as a listing, between commands. The registry sets it.
    """

    kinds: ClassVar[tuple[str, ...]]
    holds_features: ClassVar[bool] = False
    imports_keras: ClassVar[bool] = False
    data: str
    root: Path | str
    kv_store: KeyValueStore | None = None

    @classmethod
    @abstractmethod
    def matches(cls, data: str) -> bool:
        """Return whether DATA is of this kind, from its name and what exists there; no image is opened."""

    @classmethod
    @abstractmethod
    def open(cls, data: str) -> ImageSource:
        """Return the source of DATA, for which `matches` is true.

        Parameters
        ----------
        data : str
            A path, an address or a name.

        Raises
        ------
        DataError
            If the data cannot be used; a source may raise it only when it is listed.
        """

    @classmethod
    def open_list(cls, image_list: ImageList) -> ImageSource:
        """Return the source of a list whose columns the user named; raises `DataError` if DATA of this kind is no list."""
        names = [name for name, value in image_list.to_dict().items() if name != "path" and value]
        raise DataError(f"{Path(image_list)}: is no list, so {format_option(names[0])} has no effect; leave it out")

    @abstractmethod
    def list_items(self) -> Listing:
        """Return the images with their labels, splits and groups, and the rejected paths; raises `DataError`."""

    @abstractmethod
    def read(self, item: Item) -> bytes:
        """Return the encoded image, whose SHA-256 is its digest.

        Raises
        ------
        ImageRejected
            If this image cannot be read.
        DataError
            If no image of the source can be read.
        """

    @abstractmethod
    def stamp(self, item: Item) -> Stamp | None:
        """Return a value that changes when the image does; None if that cannot be known without reading the image."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return a description in JSON values, from which `reopen` makes the source again.

        Returns
        -------
        dict
            ``kind``, one of `kinds`; ``source``, DATA as the user gave it; ``root``, absolute, so that it does not depend on
            the working directory; and whatever else `reopen` needs.
        """

    @classmethod
    @abstractmethod
    def reopen(cls, description: Mapping[str, Any]) -> ImageSource:
        """Return the source that `describe` described; nothing is read until an image is.

        Parameters
        ----------
        description : mapping
            What `describe` returned; other keys are ignored.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is not such a description.
        """

    @property
    def title(self) -> str:
        """The name of the data in reports."""
        return Path(self.data).name

    @property
    def location(self) -> str:
        """DATA in a form that works in any working directory."""
        return str(self.root)

    @property
    def arguments(self) -> list[str]:
        """DATA and the options that belong to it, for a command in any working directory."""
        return [self.location]

    @property
    def images(self) -> ImageSource:
        """The source of the images themselves; raises `DataError` for features whose images are unknown."""
        return self

    @property
    def feature_file(self) -> FeatureFile | None:
        """The file of features, if the source holds features."""
        return None

    @property
    def index_key(self) -> str:
        """The key under which the index of these images is stored."""
        return json.dumps(self.describe(), sort_keys=True)

    @property
    def is_reachable(self) -> bool:
        """Whether the data still exists, as far as that is cheap to check."""
        return True

    def exists(self, name: str) -> bool:
        """Return whether an item of that name still exists, as far as that is cheap to check."""
        return True

    def get_item(self, name: str) -> Item:
        """Return the item of that name; raises `ImageRejected` if there is none."""
        if (item := self._items_by_name.get(name)) is None:
            raise decode.ImageRejected("unreadable", "no image of this name in the data")
        return item

    def fetch(self, item: Item) -> Path | bytes:
        """Return what a decoder process is sent: the path of the image file, which it reads itself, or the bytes."""
        return self.read(item)

    def identify(self, item: Item) -> tuple[bytes, str]:
        """Return the digest (32 bytes) of the encoded image and the name of its format; raises `ImageRejected`."""
        data = self.read(item)
        return read_file.compute_digest(data), decode.detect_format(data)

    def read_stamps(self, items: Sequence[Item]) -> np.ndarray:
        """Return the stamps (n, 4) int64 of many items; a row of -1 if an item has none."""
        stamps = map(self.stamp, items)
        packed = b"".join(_NO_STAMP if stamp is None else stamp.to_bytes() for stamp in stamps)
        return np.frombuffer(packed, np.int64).reshape(-1, 4)

    @cached_property
    def _items_by_name(self) -> dict[str, Item]:
        return {item.name: item for item in self.list_items().items}
