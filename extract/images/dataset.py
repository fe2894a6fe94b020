"""Which images there are, with their labels and splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from .image_source import ImageSource
from .item import Item, Rejection


@dataclass(frozen=True)
class Dataset:
    """The images of one DATA argument, in a stable order.

    Parameters
    ----------
    source : ImageSource
        What lists and reads them.
    items : tuple of Item
        The images.
    rejections : tuple of Rejection
        What lies there and is not used.
    """

    source: ImageSource
    items: tuple[Item, ...]
    rejections: tuple[Rejection, ...] = ()

    @property
    def root(self) -> Path | str:
        """What names are relative to."""
        return self.source.root

    @property
    def title(self) -> str:
        """A name for people."""
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
        """The first so many images of each class and split."""
        counts: Counter[tuple[str | None, str | None]] = Counter()
        items = []
        for item in self.items:
            stratum = (item.label, item.split)
            counts[stratum] += 1
            if counts[stratum] <= limit:
                items.append(item)
        return replace(self, items=tuple(items))
