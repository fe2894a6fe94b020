"""The data as a run saw it: where it is, and how much of it was used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...cache.errors import DataError, HumerisError
from ...cache.key_value_store import KeyValueStore
from ...cache.typed_json import to_json
from ...extract.images.image_source import ImageSource
from ...extract.images.images import Duplicate, Images
from ...extract.images.item import Rejection
from ...extract.images.registry import reopen_source


@dataclass(frozen=True)
class UnusualFormat:
    """An image in a format that few others have."""

    name: str
    format: str


@dataclass(frozen=True)
class DataSummary:
    """The data as a run saw it.

    origin: where it is, as `ImageSource.describe` says. used: how many images; formats: of how many which. listing: SHA-256
    of the names and digests of all of them.
    """

    origin: Mapping[str, Any]
    used: int
    duplicates: tuple[Duplicate, ...]
    refused: tuple[Rejection, ...]
    formats: Mapping[str, int]
    unusual: tuple[UnusualFormat, ...]
    listing: str

    @classmethod
    def from_images(cls, images: Images, listing: str) -> DataSummary:
        """What a run records of its images."""
        summary: dict[str, Any] = images.summarize()
        return cls(
            origin=images.source.describe(),
            used=len(images.used),
            duplicates=images.duplicates,
            refused=images.rejections,
            formats=summary["formats"],
            unusual=tuple(UnusualFormat(**entry) for entry in summary["unusual"]),
            listing=listing,
        )

    @property
    def location(self) -> str:
        """DATA as it was given."""
        return str(self.origin.get("source", ""))

    @property
    def root(self) -> str:
        """What the names of images are relative to."""
        return str(self.origin.get("root", ""))

    def open(self, kv_store: KeyValueStore | None = None) -> ImageSource:
        """Where the images, or features of them, come from; raises `DataError`."""
        with _explain_torn_origin():
            return reopen_source(self.origin, kv_store)

    def open_images(self) -> ImageSource:
        """Where the images themselves come from; raises `DataError` where that is not known."""
        with _explain_torn_origin():
            return reopen_source(self.origin).images

    def try_open(self) -> ImageSource | None:
        """As `open`; None where the origin is torn, or of a kind that is not known here."""
        try:
            return self.open()
        except HumerisError:
            return None

    def try_open_images(self) -> ImageSource | None:
        """As `open_images`; None where the images are not known."""
        try:
            return self.open_images()
        except HumerisError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as `Images.summarize` gives them."""
        fields = to_json(self)
        return {**fields.pop("origin"), **fields}


@contextmanager
def _explain_torn_origin() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, HumerisError):
            raise
        raise DataError(f"expected where the images are, as a run writes it down, found no sound {error}") from error
