"""The listed images of a source, with their labels and splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from .image_source import ImageSource
from .item import Item, Rejection


@dataclass(frozen=True)
class Dataset:
    """The listed images of one DATA argument, in a stable order.

    Parameters
    ----------
    source : ImageSource
        The source that lists and reads them.
    items : tuple of Item
        The images.
    rejections : tuple of Rejection
        The paths that are not used.
    ignored : tuple of str
        The paths of documents and system files.
    notes : tuple of str
        What the user may have meant otherwise, a line each.
    """

    source: ImageSource
    items: tuple[Item, ...]
    rejections: tuple[Rejection, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def root(self) -> Path | str:
        """The folder, file or address that the names of items are relative to."""
        return self.source.root

    @property
    def title(self) -> str:
        """The name of the data in reports."""
        return self.source.title

    @property
    def has_labels(self) -> bool:
        """Whether any image has a label."""
        return any(item.label is not None for item in self.items)

    @property
    def classes(self) -> list[str]:
        """The class names, sorted."""
        return sorted({item.label for item in self.items if item.label is not None})

    def limit_per_class(self, limit: int) -> Dataset:
        """Return the data set reduced to the first `limit` images of each class and split."""
        counts: Counter[tuple[str | None, str | None]] = Counter()
        items = []
        for item in self.items:
            stratum = (item.label, item.split)
            counts[stratum] += 1
            if counts[stratum] <= limit:
                items.append(item)
        return replace(self, items=tuple(items))
