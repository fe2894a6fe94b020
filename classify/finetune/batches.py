"""What the trainer is fed with: batches of a prepared fine-tuning's cached maps, or of its images."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ...cache.store import Store
from ...extract.images.detect import reader
from ..data import select_features
from ..data.views import Views
from .augmentation import Augmentation
from .image_batches import ImageBatches
from .map_batches import MapBatches
from .prepare import Prepared


class Batches(Protocol):
    """Batches (maps or images, soft labels), of which each `epoch` has others; `readers`: how many threads may ask ahead."""

    epoch: int
    readers: int

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]: ...


def batches(prepared: Prepared, store: Store, rows: np.ndarray, training: bool, jobs: int) -> Batches:
    """Batches of the images numbered `rows`, in training as the recipe says: of maps at the cut, else of pixels."""
    if prepared.map is None:
        return of_images(prepared, rows, training, jobs)
    recipe, splits = prepared.recipe, prepared.splits
    views = Views.of(prepared.views, prepared.policy) or Views()
    (stored,) = select_features.stored(store, [prepared.map], views)
    return MapBatches(
        stored,
        prepared.images.keys[rows],
        splits.labels[rows],
        len(splits.classes),
        batch_size=recipe.batch_size,
        seed=prepared.seed,
        training=training,
        views=views.count if training else 0,
        mixup=recipe.mixup if training else 0.0,
        cutmix=recipe.cutmix if training else 0.0,
    )


def of_images(prepared: Prepared, rows: np.ndarray, training: bool, jobs: int) -> ImageBatches:
    """Batches of the pixels of the images numbered `rows`."""
    recipe, splits = prepared.recipe, prepared.splits
    used = [prepared.images.used[row] for row in rows]
    return ImageBatches(
        reader(prepared.run.description["data"]),
        [image.name for image in used],
        [image.digest for image in used],
        splits.labels[rows],
        len(splits.classes),
        prepared.spec.image_size,
        batch_size=recipe.batch_size,
        seed=prepared.seed,
        training=training,
        augmentation=Augmentation.parse(recipe.augment) if recipe.augment and training else None,
        mixup=recipe.mixup if training else 0.0,
        cutmix=recipe.cutmix if training else 0.0,
        jobs=jobs,
    )
