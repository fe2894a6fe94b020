"""Batches of a fine-tuning: of cached maps, or of images."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from ...cache.store import Store
from ...extract.pixels.decode_pool import DecoderPool
from ..data import select_features
from .batch_options import BatchOptions
from .image_batches import ImageBatches
from .map_batches import MapBatches
from .prepare import FinetuneSetup


class Batches(Protocol):
    """Batches (maps or images, soft labels) of an `epoch`; `n_readers` threads may ask for them at once."""

    epoch: int
    n_readers: int

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]: ...


def make_batches(setup: FinetuneSetup, store: Store, rows: np.ndarray, training: bool, decoders: DecoderPool) -> Batches:
    """Return batches of the images `rows`: of maps at the cut, or of pixels without a cut."""
    if setup.map_tap is None:
        return make_image_batches(setup, rows, training, decoders)
    splits, views = setup.splits, setup.map_views
    (map_reader,) = select_features.open_readers(store, [setup.map_tap], views)
    return MapBatches(
        map_reader,
        setup.images.keys[rows],
        splits.target.to_matrix(splits.labels[rows]),
        _choose_options(setup, training),
        views.count if training else 0,
    )


def make_image_batches(setup: FinetuneSetup, rows: np.ndarray, training: bool, decoders: DecoderPool) -> ImageBatches:
    """Return batches of the pixels of the images `rows`."""
    splits = setup.splits
    return ImageBatches(
        setup.images.source,
        [setup.images.used[row] for row in rows],
        splits.target.to_matrix(splits.labels[rows]),
        setup.spec.image_size,
        decoders,
        _choose_options(setup, training),
    )


def _choose_options(setup: FinetuneSetup, training: bool) -> BatchOptions:
    """Return the options of the config, without mixing and augmentation unless `training`."""
    config = setup.config
    options = BatchOptions(config.batch_size, setup.seed, training)
    if not training:
        return options
    return replace(options, augmentation=config.augmentation, mixup=config.mixup, cutmix=config.cutmix)
