"""What the trainer is fed with: batches of a prepared fine-tuning's cached maps, or of its images."""

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
    """Batches (maps or images, soft labels), other ones in each `epoch`; `n_readers`: how many threads may ask ahead."""

    epoch: int
    n_readers: int

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]: ...


def make_batches(setup: FinetuneSetup, store: Store, rows: np.ndarray, training: bool, decoders: DecoderPool) -> Batches:
    """Batches of the images numbered `rows`, in training as the config says: of maps at the cut, else of pixels."""
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
    """Batches of the pixels of the images numbered `rows`."""
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
    """Those of the config; nothing is mixed or augmented but in training."""
    config = setup.config
    options = BatchOptions(config.batch_size, setup.seed, training)
    if not training:
        return options
    return replace(options, augmentation=config.augmentation, mixup=config.mixup, cutmix=config.cutmix)
