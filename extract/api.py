"""The Python API of extraction: takes strings, paths and keyword settings, and calls the typed functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..cache.errors import ConfigError
from ..cache.store import Store
from .backbones.backbone_spec import BackboneSpec
from .config import build_config, check_names
from .engine.extract import ExtractResult
from .engine.extract_config import ExtractConfig
from .engine.multi_device import extract_on_devices
from .images import load
from .images.image_list import ImageList
from .images.images import Images
from .images.load import Progress

Cache = Store | Path | str | None
Data = Images | ImageList | Path | str
Backbones = Sequence[BackboneSpec | str] | BackboneSpec | str
ProgressFactory = Callable[[str], Progress]


def extract(
    data: Data,
    backbones: ExtractConfig | Backbones | None = None,
    *,
    cache: Cache = None,
    progress: ProgressFactory | None = None,
    **settings: Any,
) -> list[ExtractResult]:
    """Run frozen networks once over each image and cache the activations of the requested layers.

    Only rows that are missing in the cache are computed. An interrupted extraction keeps its rows; call it again to resume.

    Parameters
    ----------
    data : Images, Path or str
        A folder of class folders or of split folders, a CSV, JSONL or Parquet list with the columns path and label, an
        ``.npz`` file, ``keras.datasets.NAME``, or what `load_images` returned.
    backbones : str, BackboneSpec, sequence of them, or ExtractConfig, optional
        The networks, such as ``"mobilenet_v2,alpha=0.35"``, or ``"net.keras,preprocessing=tf"`` for a file; or a config with
        all settings, which `settings` override. ``mobilenet_v2`` by default.
    cache : Store, Path or str, optional
        The folder of the cache, or a `Store` that is open for writing and stays open; the user's cache by default.
    progress : callable, optional
        Called with the name of each stage; returns a function of (number done, total).
    **settings
        The fields of `ExtractConfig`, such as ``layers="block_6*"``, ``pools=["avg", "max"]``, ``image_size=96`` (pixels) or
        ``limit=10`` (images of each class and split).

    Returns
    -------
    list of ExtractResult
        One for each backbone, in order.

    Raises
    ------
    ConfigError
        For an unknown setting; the message names the closest one.
    DataError
        If there are no images, or `data` is a file of features.
    BackboneError, LayerError, WeightsError, DeviceError
        If a network, a layer or a device does not exist.
    CacheError
        If the rows cannot be stored.

    Notes
    -----
    With several devices, one worker process runs on each. They are started with the "spawn" method of `multiprocessing`, so
    a script must call this function under ``if __name__ == "__main__":``.

    Examples
    --------
    >>> import humeris
    >>> (result,) = humeris.extract("photos", "nano", layers="block[45]_out", cache="features")
    >>> [str(tap) for tap in result.taps], len(result.images)
    (['block4_out:avg', 'block5_out:avg'], 36)
    >>> humeris.extract("photos", "nano", layers="block[45]_out", cache="features")[0].computed
    0
    """
    check_names("humeris.extract", settings, ExtractConfig.list_settings())
    config = build_config(ExtractConfig, backbones, "backbones", settings)
    with open_store(config.cache if cache is None else cache, write=True) as store:
        images = open_images(data, store, config.limit, config.jobs, progress=progress)
        return extract_on_devices(images, store, config, progress)


def load_images(
    data: ImageList | Path | str,
    cache: Cache = None,
    *,
    limit: int | None = None,
    jobs: int | None = None,
    progress: ProgressFactory | None = None,
) -> Images:
    """List images with their labels and splits, and identify each by the SHA-256 of its bytes.

    The other functions do this themselves if they are given a path. Load images to look at them, or to pass them to several
    functions without listing them again.

    Parameters
    ----------
    data : Path or str
        As for `extract`; or an HDF5 file of features, whose rows then stand for images.
    cache : Store, Path or str, optional
        The cache, which stores the digests; the user's cache by default.
    limit : int, optional
        Use only the first `limit` images of each class and split.
    jobs : int, optional
        Number of threads that read files; the number of cores by default.
    progress : callable, optional
        As for `extract`.

    Returns
    -------
    Images
        The used images, sorted by name; every other listed path is a duplicate or rejected with a reason.

    Raises
    ------
    DataError
        If `data` does not exist, or has no images.

    Examples
    --------
    >>> import humeris
    >>> images = humeris.load_images("photos", "features")
    >>> len(images), images.dataset.classes
    (36, ['blob', 'noise', 'stripes'])
    >>> images.used[0].name
    'blob/00.png'
    """
    with open_store(cache, write=True) as store:
        return open_images(data, store, limit, jobs, allow_features=True, progress=progress)


@contextmanager
def open_store(cache: Cache, *, write: bool) -> Iterator[Store]:
    """Yield `cache` if it is a store, which stays open; else the store in that folder, which is closed afterwards."""
    if isinstance(cache, Store):
        yield cache
    else:
        with Store(cache, write=write) as store:
            yield store


def open_images(
    data: Data,
    store: Store,
    limit: int | None,
    jobs: int | None,
    *,
    allow_features: bool = False,
    progress: ProgressFactory | None = None,
) -> Images:
    """Return `data` if it is loaded images, else load it; raises `DataError`, and `ConfigError` for images with `limit`."""
    if not isinstance(data, Images):
        stage = progress("reading") if progress else None
        return load.load_images(data, store, limit=limit, jobs=jobs, features=allow_features, progress=stage)
    if limit is not None:
        raise ConfigError(f"limit {limit}: the images are already loaded; give limit to load_images")
    return data
