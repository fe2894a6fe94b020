"""What the trainer is fed with: batches of a prepared fine-tuning's cached maps, or of its images."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ...cache.store import Store
from ...extract.pixels.decode_pool import DecoderPool
from ..data import select_features
from ..data.views import Views
from .augmentation import Augmentation
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
    """Batches of the images numbered `rows`, in training as the recipe says: of maps at the cut, else of pixels."""
    if setup.map_tap is None:
        return make_image_batches(setup, rows, training, decoders)
    config, splits = setup.config, setup.splits
    views = Views(setup.views, setup.policy)
    (map_reader,) = select_features.open_readers(store, [setup.map_tap], views)
    return MapBatches(
        map_reader,
        setup.images.keys[rows],
        splits.labels[rows],
        len(splits.classes),
        batch_size=config.batch_size,
        seed=setup.seed,
        training=training,
        views=views.count if training else 0,
        mixup=config.mixup if training else 0.0,
        cutmix=config.cutmix if training else 0.0,
    )


def make_image_batches(setup: FinetuneSetup, rows: np.ndarray, training: bool, decoders: DecoderPool) -> ImageBatches:
    """Batches of the pixels of the images numbered `rows`."""
    config, splits = setup.config, setup.splits
    return ImageBatches(
        setup.images.source,
        [setup.images.used[row] for row in rows],
        splits.labels[rows],
        len(splits.classes),
        setup.spec.image_size,
        decoders,
        batch_size=config.batch_size,
        seed=setup.seed,
        training=training,
        augmentation=Augmentation.parse(config.augment) if config.augment and training else None,
        mixup=config.mixup if training else 0.0,
        cutmix=config.cutmix if training else 0.0,
    )
