"""The Python face of extraction: strings, paths and keyword settings in, the typed core behind."""

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
from .images.images import Images
from .images.load import Progress

Cache = Store | Path | str | None
Data = Images | Path | str
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
    """Run frozen networks once over each image and cache the activations of the layers asked for.

    Only what the cache lacks is computed. An interrupted extraction keeps what it computed; called again, it goes on.

    Parameters
    ----------
    data : Images, Path or str
        A folder of class folders or of split folders, a CSV, JSONL or Parquet list with the columns path and label, an
        ``.npz`` file, ``keras.datasets.NAME``, or what `load_images` returned.
    backbones : str, BackboneSpec, sequence of them, or ExtractConfig, optional
        The networks, such as ``"mobilenet_v2,alpha=0.35"``, or ``"net.keras,preprocessing=tf"`` for a file; or all settings
        in one object, of which `settings` change some. ``mobilenet_v2`` by default.
    cache : Store, Path or str, optional
        The cache, which is left open if it is a `Store` (open for writing), or its folder; the user's by default.
    progress : callable, optional
        Called with the name of each stage; returns a callable that is told (done, total).
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
        For an unknown setting; it names the closest one.
    DataError
        If there are no images, or they are rows of features.
    BackboneError, LayerError, WeightsError, DeviceError
        If a network, a layer or a device does not exist.
    CacheError
        If the rows cannot be stored.

    Notes
    -----
    Where several devices are given, each gets a process of its own, started by `multiprocessing` with the method "spawn": a
    script must then call this under ``if __name__ == "__main__":``.

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
    data: Path | str,
    cache: Cache = None,
    *,
    limit: int | None = None,
    jobs: int | None = None,
    progress: ProgressFactory | None = None,
) -> Images:
    """List images with their labels and splits, and identify each by the SHA-256 of its bytes.

    Every other verb does this by itself where it is given a path. Load images once to look at them, or to give the same ones
    to several verbs without listing them again.

    Parameters
    ----------
    data : Path or str
        As for `extract`; or an HDF5 file of features, whose rows are the images.
    cache : Store, Path or str, optional
        The cache, which remembers what was read; the user's by default.
    limit : int, optional
        Keep the first so many images of each class and split.
    jobs : int, optional
        Threads that read; one for each core by default.
    progress : callable, optional
        As for `extract`.

    Returns
    -------
    Images
        The used images in order of name; every other listed path is a duplicate or rejected, with a reason.

    Raises
    ------
    DataError
        If there is nothing at `data`, or nothing that can be used.

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
    """Yield a store: the one given, which stays open, or the one in a folder, which is closed at the end."""
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
    """Return the images given, or load those of a path; raises `DataError`, and `ConfigError` for a late limit."""
    if not isinstance(data, Images):
        stage = progress("reading") if progress else None
        return load.load_images(data, store, limit=limit, jobs=jobs, features=allow_features, progress=stage)
    if limit is not None:
        raise ConfigError(f"limit {limit}: the images are already loaded; give it to load_images")
    return data
