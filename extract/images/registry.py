"""Registry of image sources, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...cache.errors import DataError, HumerisError
from ...cache.key_value_store import KeyValueStore
from .class_folders import ClassFolders
from .dataset import Dataset
from .feature_rows import FeatureRows
from .image_list import ImageList
from .image_source import NOTHING_THERE, ImageSource
from .item import describe_rejections
from .keras_datasets import KerasDatasets
from .manifest import Manifest
from .npz import Npz
from .unsupported_data import SUPPORTED, build_unsupported_error

_SOURCES: list[type[ImageSource]] = [
    KerasDatasets,
    FeatureRows,
    Manifest,
    ClassFolders,
    Npz,
]


def register_image_source(source_class: type[ImageSource]) -> type[ImageSource]:
    """Register an image source, which is then tried before those of humeris.

    Parameters
    ----------
    source_class : type of ImageSource
        The class.

    Returns
    -------
    type of ImageSource
        The class, so that this function can be used as a decorator.

    Raises
    ------
    ValueError
        If another class already has one of its `kinds`.

    Examples
    --------
    >>> import humeris
    >>> from humeris.extract.images.class_folders import ClassFolders
    >>> @humeris.register_image_source
    ... class Album(ClassFolders):
    ...     kinds = ("album",)
    ...
    ...     @classmethod
    ...     def matches(cls, data):
    ...         return data.endswith(".album")
    >>> Album in list_image_sources()
    True
    """
    for other_class in _SOURCES:
        shared_kinds = set(source_class.kinds) & set(other_class.kinds)
        if shared_kinds and other_class is not source_class:
            raise ValueError(
                f"{source_class.__name__}: kind {min(shared_kinds)!r} is already that of {other_class.__name__}; rename it"
            )
    if source_class not in _SOURCES:
        _SOURCES.insert(0, source_class)
    return source_class


def list_image_sources() -> list[type[ImageSource]]:
    """Return the source classes in the order in which they are tried."""
    return list(_SOURCES)


def open_source(data: ImageList | Path | str, kv_store: KeyValueStore | None = None) -> ImageSource:
    """Return the source of DATA; no image is opened.

    Parameters
    ----------
    data : ImageList, Path or str
        A folder of class folders, of split folders, or with a metadata file; a list of images; arrays in an `.npz` file; a
        file of features; `keras.datasets.NAME`; or anything that a registered source supports. An `ImageList` names the
        columns of a list.
    kv_store : KeyValueStore or None
        Stores what is costly to compute, such as a listing.

    Returns
    -------
    ImageSource
        The first registered source that matches.

    Raises
    ------
    DataError
        If DATA does not exist, or no source supports it.
    """
    for source_class in _SOURCES:
        if source_class.matches(str(data)):
            source = source_class.open_list(data) if isinstance(data, ImageList) else source_class.open(str(data))
            source.kv_store = kv_store
            return source
    if not Path(data).exists():
        raise DataError(f"{Path(data)}: {NOTHING_THERE}")
    raise build_unsupported_error(Path(data))


def list_images(source: ImageSource, limit: int | None = None) -> Dataset:
    """List the images of a source.

    Parameters
    ----------
    source : ImageSource
        The source.
    limit : int or None
        Use only the first `limit` images of each class and split.

    Returns
    -------
    Dataset
        At least one image.

    Raises
    ------
    DataError
        If the source does not exist, or has no image.
    """
    if not source.is_reachable:
        raise DataError(f"{source.root}: {NOTHING_THERE}")
    dataset = Dataset(source, *source.list_items())
    if not dataset.items:
        if not dataset.rejections:
            raise DataError(f"{source.data}: no images; give {SUPPORTED}")
        elsewhere = {"not_found", "outside"} & {rejection.reason for rejection in dataset.rejections}
        remedy = "; if the images are in another folder, give it with --images" if elsewhere else "; correct these"
        raise DataError(f"{source.data}: no images: {describe_rejections(dataset.rejections)}{remedy}")
    return dataset if limit is None else dataset.limit_per_class(limit)


def detect(data: ImageList | Path | str, limit: int | None = None, kv_store: KeyValueStore | None = None) -> Dataset:
    """List the images of DATA: `open_source`, then `list_images`."""
    return list_images(open_source(data, kv_store), limit)


def reopen_source(description: Mapping[str, Any], kv_store: KeyValueStore | None = None) -> ImageSource:
    """Return the source that `ImageSource.describe` described, for example in a run.

    Parameters
    ----------
    description : mapping
        The description; other keys are ignored.
    kv_store : KeyValueStore or None
        Stores what is costly to compute, such as a listing.

    Returns
    -------
    ImageSource
        The source; the data need not exist any more.

    Raises
    ------
    DataError
        If no registered source has that kind.
    KeyError, TypeError, ValueError
        If it is not a description.
    """
    kind = description["kind"]
    for source_class in _SOURCES:
        if kind in source_class.kinds:
            source = source_class.reopen(description)
            source.kv_store = kv_store
            return source
    raise DataError(
        f"{description.get('source')}: no image source of the kind {kind!r} is registered; call register_image_source first"
    )


def try_reopen_source(description: Mapping[str, Any]) -> ImageSource | None:
    """Return the source that is described; None if the description is invalid, or its kind is not registered."""
    try:
        return reopen_source(description)
    except (HumerisError, KeyError, TypeError, ValueError, AttributeError):
        return None
