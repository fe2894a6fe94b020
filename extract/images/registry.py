"""The sources of images there are, in the order in which they are asked whether DATA is theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...cache.errors import DataError, HumerisError
from ...cache.key_value_store import KeyValueStore
from .class_folders import ClassFolders
from .dataset import Dataset
from .feature_rows import FeatureRows
from .image_source import NOTHING_THERE, ImageSource
from .keras_datasets import KerasDatasets
from .manifest import Manifest
from .npz import Npz

_SOURCES: list[type[ImageSource]] = [
    KerasDatasets,
    FeatureRows,
    Manifest,
    ClassFolders,
    Npz,
]
_EXPECTED = (
    "images in class folders (root/cat/1.jpg), in split folders (root/train/cat/1.jpg), or listed with the columns "
    "path,label in a .csv, .tsv, .jsonl or .parquet file, or arrays of them in an .npz file"
)


def register_image_source(source_class: type[ImageSource]) -> type[ImageSource]:
    """Let `detect` and `reopen_source` know a source of images, which is asked before those that come with humeris.

    Parameters
    ----------
    source_class : type of ImageSource
        The class.

    Returns
    -------
    type of ImageSource
        The class, so that this can decorate it.

    Raises
    ------
    ValueError
        Where another class has one of its `kinds`.
    """
    for other_class in _SOURCES:
        shared_kinds = set(source_class.kinds) & set(other_class.kinds)
        if shared_kinds and other_class is not source_class:
            raise ValueError(f"{source_class.__name__}: the kind {min(shared_kinds)} is that of {other_class.__name__}")
    if source_class not in _SOURCES:
        _SOURCES.insert(0, source_class)
    return source_class


def list_image_sources() -> list[type[ImageSource]]:
    """The sources, in the order in which they are asked."""
    return list(_SOURCES)


def open_source(data: Path | str, kv_store: KeyValueStore | None = None) -> ImageSource:
    """The source of DATA, found out from what lies there, no image opened yet.

    Parameters
    ----------
    data : Path or str
        A folder of class folders, of split folders, or with a metadata file; a list of images; arrays in an `.npz` file; a
        file of features; `keras.datasets.NAME`; or what a registered source takes.
    kv_store : KeyValueStore or None
        Remembers what is costly to find out.

    Raises
    ------
    DataError
        Where there is nothing, or nothing that any source takes.
    """
    for source_class in _SOURCES:
        if source_class.matches(str(data)):
            source = source_class.open(str(data))
            source.kv_store = kv_store
            return source
    if not Path(data).exists():
        raise DataError(f"{Path(data)}: {NOTHING_THERE}")
    raise DataError(f"{Path(data)}: expected {_EXPECTED}, found a file of another kind")


def list_images(source: ImageSource, limit: int | None = None) -> Dataset:
    """The images of a source.

    Parameters
    ----------
    source : ImageSource
        What lists them.
    limit : int or None
        Keeps the first so many images of each class and split.

    Raises
    ------
    DataError
        Where there is none.
    """
    if not source.is_reachable:
        raise DataError(f"{source.root}: {NOTHING_THERE}")
    dataset = Dataset(source, *source.list_items())
    if not dataset.items:
        first_fault = next(
            (f", {rejection.name}: {rejection.detail}" for rejection in dataset.rejections if rejection.reason == "bad_row"),
            "",
        )
        raise DataError(f"{source.data}: expected {_EXPECTED}; found no image{first_fault}")
    return dataset if limit is None else dataset.limit_per_class(limit)


def detect(data: Path | str, limit: int | None = None, kv_store: KeyValueStore | None = None) -> Dataset:
    """The images of DATA; as `open_source`, and then `list_images`."""
    return list_images(open_source(data, kv_store), limit)


def reopen_source(description: Mapping[str, Any], kv_store: KeyValueStore | None = None) -> ImageSource:
    """The source that `ImageSource.describe` described, as a run wrote it down.

    Parameters
    ----------
    description : mapping
        The description; what else a run says of its data may be in it too.
    kv_store : KeyValueStore or None
        Remembers what is costly to find out.

    Raises
    ------
    DataError
        Where no source has that kind.
    KeyError, TypeError, ValueError
        For what is no description.
    """
    kind = description["kind"]
    for source_class in _SOURCES:
        if kind in source_class.kinds:
            source = source_class.reopen(description)
            source.kv_store = kv_store
            return source
    raise DataError(f"{description.get('source')}: the run's images are of the kind {kind!r}, which no source here has")


def try_reopen_source(description: Mapping[str, Any]) -> ImageSource | None:
    """The source described; None where the description is torn, or of a kind that is not known here."""
    try:
        return reopen_source(description)
    except (HumerisError, KeyError, TypeError, ValueError, AttributeError):
        return None
