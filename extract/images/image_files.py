"""Images that are files below one folder."""

from __future__ import annotations

import os
from pathlib import Path

from ...cache.file_stamp import FileStamp
from ..pixels import read_file
from .image_source import ImageSource
from .item import Item


class ImageFiles(ImageSource):
    """Items whose `location` is the path of their file, and whose name is that path relative to `root`."""

    root: Path

    def read(self, item: Item) -> bytes:
        """Return the bytes of the file; raises `ImageRejected`."""
        return read_file.read_bytes(Path(item.location))

    def fetch(self, item: Item) -> Path | bytes:
        """Return the path of the file."""
        return Path(item.location)

    def stamp(self, item: Item) -> FileStamp | None:
        """Return the inode, size and times of the file; None if it does not exist."""
        try:
            return FileStamp.from_path(item.location)
        except (OSError, ValueError):
            return None

    def get_item(self, name: str) -> Item:
        """Return the item of that name, whether or not its file exists."""
        return Item(name, os.path.join(self.root, name))

    def exists(self, name: str) -> bool:
        """Return whether the file of that name exists."""
        return os.path.isfile(os.path.join(self.root, name))

    @property
    def is_reachable(self) -> bool:
        """Whether the root exists."""
        return os.path.exists(self.root)

    @property
    def title(self) -> str:
        """The name of the root folder."""
        return self.root.resolve().name

    @property
    def index_key(self) -> str:
        """The path of the root, with links resolved."""
        return str(self.root.resolve())
