"""Images with their identity, and the outcome of every other path."""

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
    """One used image: its listing, its digest (32 bytes) and the format of its file."""

    item: Item
    digest: bytes
    format: str

    @property
    def name(self) -> str:
        """Path relative to the data's root."""
        return self.item.name


@dataclass(frozen=True)
class Duplicate:
    """A listed image that is byte for byte `original`; `across` when the two lay in different splits."""

    name: str
    original: str
    across: bool


@dataclass(frozen=True)
class Images:
    """Used images in order of name, and the outcome of every other path.

    No two used images have the same bytes, so none can straddle splits or folds.
    """

    dataset: Dataset
    used: tuple[Image, ...]
    duplicates: tuple[Duplicate, ...]
    rejections: tuple[Rejection, ...]

    @property
    def source(self) -> ImageSource:
        """Where the images come from."""
        return self.dataset.source

    @property
    def feature_file(self) -> FeatureFile | None:
        """The features themselves, where DATA is a file of them."""
        return self.source.feature_file

    @cached_property
    def keys(self) -> np.ndarray:
        """Digests of the used images, (n,) S32."""
        return to_keys([image.digest for image in self.used])

    @property
    def labels(self) -> list[str]:
        """Label of each used image ("" where the data has none)."""
        return [image.item.label or "" for image in self.used]

    def reject(self, rejections: dict[str, Rejection]) -> Images:
        """The same images with `rejections` (by name) moved from the used to the refused."""
        return replace(
            self,
            used=tuple(image for image in self.used if image.name not in rejections),
            rejections=self.rejections + tuple(rejections.values()),
        )

    def sort_by_digest(self) -> Images:
        """The same images in the order of their digests, which renaming does not change."""
        return replace(self, used=tuple(sorted(self.used, key=lambda image: image.digest)))

    def summarize(self) -> dict[str, object]:
        """Counts for people and JSON; formats other than the commonest are listed by name when they are few."""
        formats = Counter(image.format for image in self.used)
        rare_formats = [name for name, count in formats.items() if count <= 5 and count < max(formats.values())]
        return {
            **self.source.describe(),
            "used": len(self.used),
            "duplicates": [vars(duplicate) for duplicate in self.duplicates],
            "refused": [vars(rejection) for rejection in self.rejections],
            "formats": dict(formats.most_common()),
            "unusual": [{"name": image.name, "format": image.format} for image in self.used if image.format in rare_formats],
        }
