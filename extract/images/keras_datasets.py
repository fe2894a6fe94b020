"""The image data sets of Keras, such as `keras.datasets.cifar10`."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import DataError
from ..backbones.keras_runtime import load_keras
from ..backbones.weights import get_keras_home
from .image_arrays import ImageArrays, LabeledArray, LazyImageArray, check_image_array

_PREFIX = "keras.datasets."


@dataclass(frozen=True)
class _KerasDataset:
    """The files below `KERAS_HOME/datasets`, and the class names, joined by commas ("" if the classes are digits)."""

    files: tuple[str, ...]
    classes: str = ""


_DATASETS = {
    "mnist": _KerasDataset(("mnist.npz",)),
    "fashion_mnist": _KerasDataset(
        tuple(
            f"fashion-mnist/{part}-ubyte.gz"
            for part in ("train-labels-idx1", "train-images-idx3", "t10k-labels-idx1", "t10k-images-idx3")
        ),
        "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    ),
    "cifar10": _KerasDataset(
        ("cifar-10-batches-py-target_archive",), "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
    ),
    "cifar100": _KerasDataset(
        ("cifar-100-python-target_archive",),
        "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,butterfly,camel,can,castle,"
        "caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,"
        "flatfish,forest,fox,girl,hamster,house,kangaroo,keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,maple_tree,"
        "motorcycle,mountain,mouse,mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,plain,plate,"
        "poppy,porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,snail,snake,spider,"
        "squirrel,streetcar,sunflower,sweet_pepper,table,tank,telephone,television,tiger,tractor,train,trout,tulip,turtle,"
        "wardrobe,whale,willow_tree,wolf,woman,worm",
    ),
}


class KerasDatasets(ImageArrays):
    """The images of `keras.datasets.NAME`, which Keras downloads if necessary.

    Shapes and labels are cached until the files change, so that Keras is imported only when an image is read.

    Parameters
    ----------
    data : str
        DATA as the user gave it.

    Raises
    ------
    DataError
        If Keras has no image data set of that name.
    """

    kinds = ("keras",)
    imports_keras = True

    def __init__(self, data: str) -> None:
        self._name = data.removeprefix(_PREFIX)
        if self._name not in _DATASETS:
            names = ", ".join(f"{_PREFIX}{name}" for name in _DATASETS)
            raise DataError(f"{data}: no such image data set in Keras; choose one of {names}")
        super().__init__(data, _get_datasets_folder() / _DATASETS[self._name].files[0])

    @classmethod
    def matches(cls, data: str) -> bool:
        """Return whether DATA begins with `keras.datasets.` and is not a path."""
        return data.startswith(_PREFIX) and not Path(data).exists()

    @classmethod
    def open(cls, data: str) -> KerasDatasets:
        """Return the data set of that name."""
        return cls(data)

    def describe(self) -> dict[str, Any]:
        """Return the name of the data set, and where Keras stores it."""
        return {"source": self.data, "root": os.path.abspath(self.root), "kind": "keras"}

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> KerasDatasets:
        """Return the data set of that name, in the current cache of Keras."""
        return cls(description["source"])

    @property
    def title(self) -> str:
        """The name of the data set, `keras.datasets.NAME`."""
        return self.data

    @property
    def location(self) -> str:
        """The name of the data set, `keras.datasets.NAME`."""
        return self.data

    def load_arrays(self) -> Sequence[LabeledArray]:
        """Return `x_train` and `x_test`; raises `DataError`."""
        name, kv_store = self._name, self.kv_store
        load_arrays = functools.cache(lambda: _load_arrays(name))
        cache_key = _build_cache_key(name)
        listing = kv_store.get_json("keras", cache_key) if kv_store is not None and cache_key else None
        if listing is None:
            listing = {
                part: [list(images.shape), labels.ravel().tolist()] for part, (images, labels) in load_arrays().items()
            }
            if kv_store is not None:
                kv_store.put_json("keras", _build_cache_key(name), listing)
        classes = _DATASETS[name].classes.split(",") if _DATASETS[name].classes else None
        return [
            LabeledArray(
                part,
                LazyImageArray(_make_loader(load_arrays, part), tuple(shape)),
                np.array(labels),
                part.removeprefix("x_"),
                classes,
            )
            for part, (shape, labels) in listing.items()
        ]


def _make_loader(
    load_arrays: Callable[[], Mapping[str, tuple[np.ndarray, np.ndarray]]], array_name: str
) -> Callable[[], np.ndarray]:
    return lambda: load_arrays()[array_name][0]


def _get_datasets_folder() -> Path:
    return get_keras_home() / "datasets"


def _build_cache_key(name: str) -> str:
    """Return a key of the files that Keras would read, with their sizes and times; "" if one is missing."""
    stamps = []
    for file in _DATASETS[name].files:
        try:
            status = os.stat(_get_datasets_folder() / file)
        except OSError:
            return ""
        stamps.append((file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return repr((name, importlib.metadata.version("keras"), stamps))


def _load_arrays(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Load (images, labels) of `x_train` and `x_test` with Keras; its download progress is shown on a terminal only."""
    datasets: Any = load_keras().datasets
    try:
        with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            (x_train, y_train), (x_test, y_test) = getattr(datasets, name).load_data()
    except Exception as error:  # Keras raises Exception if a download fails, and many types for a corrupt file
        url = re.search(r"URL fetch failure on (\S+?):? ", str(error))
        download_name = url[1].rstrip(":") if url else "it"
        detail = "" if url else f" ({' '.join(str(error).split())[:150]})"
        missing_file = next(
            (filename for filename in _DATASETS[name].files if not (_get_datasets_folder() / filename).exists()),
            _DATASETS[name].files[0],
        )
        raise DataError(
            f"{_PREFIX}{name}: {Path(missing_file).name} is missing or corrupt in "
            f"{(_get_datasets_folder() / missing_file).parent}, and cannot be downloaded{detail}; "
            f"download {download_name} on another machine and save it there under that name"
        ) from error
    for array_name, images in (("x_train", x_train), ("x_test", x_test)):
        check_image_array(images.shape, images.dtype, f"{_PREFIX}{name}: {array_name}")
    return {"x_train": (x_train, y_train), "x_test": (x_test, y_test)}
