"""Summary of the data of a run: where it is, and how many images were used."""

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
    """An image in a format that few other images have."""

    name: str
    format: str


@dataclass(frozen=True)
class DataSummary:
    """Summary of the data of a run.

    origin: where the data is, as `ImageSource.describe` returns it. used: number of used images. refused: rejected images,
    with reasons. ignored: paths of documents and system files. notes: what the user may have meant otherwise.
    formats: number of images by format. listing: SHA-256 of the names and digests of all images.
    """

    origin: Mapping[str, Any]
    used: int
    duplicates: tuple[Duplicate, ...]
    refused: tuple[Rejection, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    formats: Mapping[str, int]
    unusual: tuple[UnusualFormat, ...]
    listing: str

    @classmethod
    def from_images(cls, images: Images, listing: str) -> DataSummary:
        """Return the summary that a run records."""
        summary: dict[str, Any] = images.summarize()
        return cls(
            origin=images.source.describe(),
            used=len(images.used),
            duplicates=images.duplicates,
            refused=images.rejections,
            ignored=images.dataset.ignored,
            notes=images.dataset.notes,
            formats=summary["formats"],
            unusual=tuple(UnusualFormat(**entry) for entry in summary["unusual"]),
            listing=listing,
        )

    @property
    def location(self) -> str:
        """DATA as given on the command line."""
        return str(self.origin.get("source", ""))

    @property
    def root(self) -> str:
        """The folder that image names are relative to."""
        return str(self.origin.get("root", ""))

    def open(self, kv_store: KeyValueStore | None = None) -> ImageSource:
        """Open the source of the images or features; raises `DataError`."""
        with _explain_torn_origin():
            return reopen_source(self.origin, kv_store)

    def open_images(self) -> ImageSource:
        """Open the source of the images themselves; raises `DataError` if it is unknown."""
        with _explain_torn_origin():
            return reopen_source(self.origin).images

    def try_open(self) -> ImageSource | None:
        """Like `open`, but return None if the origin is invalid or of an unknown kind."""
        try:
            return self.open()
        except HumerisError:
            return None

    def try_open_images(self) -> ImageSource | None:
        """Like `open_images`, but return None if the images are unknown."""
        try:
            return self.open_images()
        except HumerisError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, as `Images.summarize` does."""
        fields = to_json(self)
        return {**fields.pop("origin"), **fields}


@contextmanager
def _explain_torn_origin() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, HumerisError):
            raise
        raise DataError(
            f"run.json: invalid record of where the images are ({error!r}); sweep again into another folder with -o"
        ) from error
