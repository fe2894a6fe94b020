"""Cached features from Python: as arrays for other libraries, and ranked without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...cache.errors import ConfigError
from ...extract.api import Backbones, Cache, Data, ProgressFactory, open_images, open_store
from ...extract.config import build_config, check_names
from ..data import features
from ..data.features import Features
from ..rank import Ranking
from ..rank import rank as rank_taps
from ..sweep.sweep_config import SweepConfig

_NOT_OF_FEATURES = {"heads", "grid", "search", "trials", "views", "augment", "average_views", "out", "cache"}
_OF_BACKBONES = ("weights", "image_size", "precision")
_FEATURE_SETTINGS = [name for name in SweepConfig.list_settings() if name not in _NOT_OF_FEATURES]


def load_features(
    data: Data,
    tap: str | None = None,
    *,
    backbone: Backbones | None = None,
    cache: Cache = None,
    progress: ProgressFactory | None = None,
    **settings: Any,
) -> Features:
    """Read the cached features of one tap as arrays, with labels and splits.

    Parameters
    ----------
    data : Images, Path or str
        As for `humeris.extract`; or an HDF5 file of features.
    tap : str, optional
        A layer, with a pool where several are cached: ``"mixed5:avg"``; several side by side: ``"mixed4+mixed7:max"``. It
        can be omitted if only one tap is cached.
    backbone : str or BackboneSpec, optional
        The network; it can be omitted if the tap is cached of one network only.
    cache : Store, Path or str, optional
        The cache or its folder; the user's by default.
    progress : callable, optional
        As for `humeris.extract`.
    **settings
        Fields of `SweepConfig` that say which images and features: ``limit``, ``select``, ``weights``, ``image_size`` …

    Returns
    -------
    Features
        X (n, d) float32, y (n,), class names, paths and splits, in the order of the paths.

    Raises
    ------
    ConfigError
        For an unknown setting.
    DataError
        If the features are not cached, or the images cannot be divided into splits.
    LayerError
        If no cached tap, or more than one, matches.

    Examples
    --------
    >>> import humeris
    >>> features = humeris.load_features("photos", "block5_out:avg", cache="features")
    >>> features.X.shape, features.class_names
    ((36, 144), ('blob', 'noise', 'stripes'))
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> model = KNeighborsClassifier().fit(*features.select("train"))
    >>> model.score(*features.select("test"))
    1.0
    """
    check_names("humeris.load_features", settings, _FEATURE_SETTINGS)
    config = build_config(SweepConfig, None, "heads", {"backbones": backbone or (), "layers": tap or (), **settings})
    check_backbones(config, settings)
    with open_store(cache, write=False) as store:
        images = open_images(data, store, config.limit, config.jobs, allow_features=True, progress=progress)
        return features.load_features(images, store, config.query, config.select)


def rank(
    data: Data,
    backbones: SweepConfig | Backbones | None = None,
    *,
    run: Path | str | None = None,
    cache: Cache = None,
    progress: ProgressFactory | None = None,
    **settings: Any,
) -> Ranking:
    """Score cached taps without training: LogME, H-score, nearest neighbors and nearest centroid.

    Parameters
    ----------
    data : Images, Path or str
        As for `humeris.extract`; or an HDF5 file of features.
    backbones : str, BackboneSpec, sequence of them, or SweepConfig, optional
        The networks whose taps are ranked, everything cached by default; or the settings of a sweep, to rank what it would
        sweep over.
    run : Path or str, optional
        A finished run of the same images to compare with; by default the latest one under ``runs``.
    cache : Store, Path or str, optional
        The cache or its folder; the user's by default.
    progress : callable, optional
        As for `humeris.extract`.
    **settings
        Fields of `SweepConfig` that say which images and features: ``layers``, ``pools``, ``limit``, ``select``, ``seed`` …

    Returns
    -------
    Ranking
        The taps, best first by the mean of their four ranks.

    Raises
    ------
    ConfigError
        For an unknown setting.
    DataError, LayerError
        If the images have no usable labels, or features are not cached.
    RunError
        If `run` is not a run of these images and taps.

    References
    ----------
    .. [1] You, Liu, Wang and Long (2021). LogME: practical assessment of pre-trained models for transfer learning. ICML.
    .. [2] Bao et al. (2019). An information-theoretic approach to transferability in task transfer learning. ICIP.

    Examples
    --------
    >>> import humeris
    >>> ranking = humeris.rank("photos", layers="block*_out", cache="features")
    >>> [str(scores.tap_refs[0]) for scores in ranking.rows]
    ['nano/block4_out:avg', 'nano/block5_out:avg']
    """
    check_names("humeris.rank", settings, _FEATURE_SETTINGS)
    config = build_config(SweepConfig, backbones, "backbones", settings)
    check_backbones(config, settings)
    with open_store(config.cache if cache is None else cache, write=False) as store:
        images = open_images(data, store, config.limit, config.jobs, allow_features=True, progress=progress)
        return rank_taps(
            images,
            store,
            config.query,
            select=config.select,
            run=run,
            seed=config.seed,
            jobs=config.jobs,
            progress=progress("taps") if progress else None,
        )


def check_backbones(config: SweepConfig, settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a setting of backbones where none is named: everything cached is used as it was extracted."""
    defaults = SweepConfig.list_settings()
    unused_settings = [name for name in _OF_BACKBONES if settings.get(name, defaults[name]) != defaults[name]]
    if unused_settings and not config.backbone_specs:
        raise ConfigError(
            f"{unused_settings[0]}: no backbone is given, so cached features are used as they were extracted; give one too"
        )
