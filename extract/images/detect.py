"""What DATA is: found out from what lies there, no image opened yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...cache.errors import DataError
from ...cache.key_value_store import KeyValueStore
from ..pixels import read_file
from ..pixels.decode import ImageRejected
from . import class_folders, keras_datasets, listed, npz
from .dataset import SPLITS, Dataset
from .manifest import MissingColumn

_EXPECTED = (
    "images in class folders (root/cat/1.jpg), in split folders (root/train/cat/1.jpg), or listed with the columns "
    "path,label in a .csv, .tsv, .jsonl or .parquet file, or arrays of them in an .npz file"
)


def detect(data: Path | str, limit: int | None = None, kv_store: KeyValueStore | None = None) -> Dataset:
    """The dataset at `data`, which may be any of these.

    A folder of class folders, of split folders, or with a metadata file; a list of images; arrays in an `.npz` file; or
    `keras.datasets.NAME`, of which `kv_store` remembers what Keras need not be asked twice.
    `limit` keeps the first so many images of each class and split. Raises `DataError`.
    """
    root = Path(data)
    if keras_datasets.is_keras_dataset_name(root) and not root.exists():
        dataset = keras_datasets.find(root, kv_store)
    elif not root.exists():
        raise DataError(f"{root}: expected a folder of images or a file that lists them, found nothing; check the path")
    elif root.is_dir():
        dataset = _detect_folder(root)
    elif listed.is_image_list(root):
        dataset = listed.find(root)
    elif root.suffix.lower() == ".npz":
        dataset = npz.find(root)
    else:
        raise DataError(f"{root}: expected {_EXPECTED}, found a file of another kind")
    if not dataset.items:
        first_fault = next(
            (f", {rejection.name}: {rejection.detail}" for rejection in dataset.rejections if rejection.reason == "bad_row"),
            "",
        )
        raise DataError(f"{root}: expected {_EXPECTED}; found no image{first_fault}")
    return dataset if limit is None else dataset.limit_per_class(limit)


def _detect_folder(root: Path) -> Dataset:
    """What a folder holds. A metadata file decides, unless it has no labels and the folders have."""
    try:
        dataset = listed.find_metadata(root)
    except MissingColumn as error:
        dataset = class_folders.find(root)
        if error.column != "label" or dataset.kind == "flat" or set(dataset.classes) & set(SPLITS):
            raise
    return dataset or class_folders.find(root)


def make_image_reader(data: Mapping[str, Any]) -> Callable[[str], bytes]:
    """What reads the bytes of an image by its name, from the data as `Images.summarize` describes it.

    It raises `ImageRejected`; this raises `DataError` when arrays are gone.
    """
    if data["kind"] == "features":
        if not data.get("images"):
            raise DataError(f"{data['source']}: expected to say where its images are, to check an export on, found nothing")
        data = data["images"]
    if data["kind"] not in {"arrays", "keras"}:
        root = Path(data["root"])
        return lambda name: read_file.read_bytes(root / name)
    items = {item.name: item for item in detect(data["source"] if data["kind"] == "keras" else data["root"]).items}

    def read(name: str) -> bytes:
        if name not in items:
            raise ImageRejected("unreadable", "there is no such row")
        return items[name].read()

    return read
