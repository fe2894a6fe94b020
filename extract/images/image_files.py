"""Images that are files below one folder."""

from __future__ import annotations

import os
from pathlib import Path

from ...cache.file_stamp import FileStamp
from ..pixels import read_file
from .image_source import ImageSource
from .item import Item


class ImageFiles(ImageSource):
    """Items whose `location` is their file, and whose name is its path below `root`."""

    root: Path

    def read(self, item: Item) -> bytes:
        """The file's bytes; raises `ImageRejected`."""
        return read_file.read_bytes(Path(item.location))

    def fetch(self, item: Item) -> Path | bytes:
        """The file."""
        return Path(item.location)

    def stamp(self, item: Item) -> FileStamp | None:
        """The file's inode, size and times; None where it is gone."""
        try:
            return FileStamp.from_path(item.location)
        except (OSError, ValueError):
            return None

    def get_item(self, name: str) -> Item:
        """The file of that name, whether it is there or not."""
        return Item(name, os.path.join(self.root, name))

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return os.path.isfile(os.path.join(self.root, name))

    @property
    def is_reachable(self) -> bool:
        """Whether there is anything at the root."""
        return os.path.exists(self.root)

    @property
    def title(self) -> str:
        """The root's own name."""
        return self.root.resolve().name

    @property
    def index_key(self) -> str:
        """The root, by whichever name it was reached."""
        return str(self.root.resolve())
