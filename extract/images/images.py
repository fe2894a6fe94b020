"""The used images with their digests, and the duplicates and rejections among the listed paths."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ...cache.shard import to_keys
from .dataset import Dataset
from .feature_file import FeatureFile
from .image_source import ImageSource
from .item import Item, Rejection


@dataclass(frozen=True, slots=True)
class Image:
    """One used image: its item, its digest (32 bytes) and its file format."""

    item: Item
    digest: bytes
    format: str

    @property
    def name(self) -> str:
        """The name of the item: its path relative to the root of the data."""
        return self.item.name


@dataclass(frozen=True)
class Duplicate:
    """A listed image with the same bytes as `original`; `across` if the two are in different splits."""

    name: str
    original: str
    across: bool


@dataclass(frozen=True, repr=False)
class Images:
    """The used images sorted by name, and the outcome of every other listed path.

    No two used images have the same bytes, so no image can be in two splits or folds.

    Parameters
    ----------
    dataset : Dataset
        The listed images.
    used : tuple of Image
        The images that are used.
    duplicates : tuple of Duplicate
        The images that are not used because a used one has the same bytes.
    rejections : tuple of Rejection
        The paths that cannot be used.
    """

    dataset: Dataset
    used: tuple[Image, ...]
    duplicates: tuple[Duplicate, ...]
    rejections: tuple[Rejection, ...]

    def __len__(self) -> int:
        return len(self.used)

    def __repr__(self) -> str:
        classes, counts = self.dataset.classes, Counter(self.labels)
        class_counts = f", {len(classes)} classes: {', '.join(f'{name} {counts[name]}' for name in classes[:5])}"
        more = ", …" if len(classes) > 5 else ""
        others = f", {len(self.duplicates)} duplicates, {len(self.rejections)} rejected"
        return f"<Images of {self.source.data}: {len(self)} used{class_counts + more if classes else ''}{others}>"

    @property
    def source(self) -> ImageSource:
        """The source of the images."""
        return self.dataset.source

    @property
    def feature_file(self) -> FeatureFile | None:
        """The file of features, if DATA is one."""
        return self.source.feature_file

    @cached_property
    def keys(self) -> np.ndarray:
        """The digests (n,) S32 of the used images."""
        return to_keys([image.digest for image in self.used])

    @property
    def labels(self) -> list[str]:
        """The label of each used image; "" if the data has no labels."""
        return [image.item.label or "" for image in self.used]

    def reject(self, rejections: dict[str, Rejection]) -> Images:
        """Return the same images, with those named in `rejections` rejected instead of used."""
        return replace(
            self,
            used=tuple(image for image in self.used if image.name not in rejections),
            rejections=self.rejections + tuple(rejections.values()),
        )

    def sort_by_digest(self) -> Images:
        """Return the same images sorted by digest, an order that renaming files does not change."""
        return replace(self, used=tuple(sorted(self.used, key=lambda image: image.digest)))

    def summarize(self) -> dict[str, object]:
        """Return the summary that reports and JSON output show; images in rare formats are listed by name."""
        formats = Counter(image.format for image in self.used)
        rare_formats = [name for name, count in formats.items() if count <= 5 and count < max(formats.values())]
        return {
            **self.source.describe(),
            "used": len(self.used),
            "duplicates": [vars(duplicate) for duplicate in self.duplicates],
            "refused": [vars(rejection) for rejection in self.rejections],
            "ignored": list(self.dataset.ignored),
            "notes": list(self.dataset.notes),
            "formats": dict(formats.most_common()),
            "unusual": [{"name": image.name, "format": image.format} for image in self.used if image.format in rare_formats],
        }
