"""How batches are made of images or of their maps."""

from __future__ import annotations

from dataclasses import dataclass

from .augmentation import Augmentation


@dataclass(frozen=True)
class BatchOptions:
    """What the batches of an epoch hold, and in which order; of `ImageBatches` and of `MapBatches`.

    Parameters
    ----------
    batch_size : int
        Images in a batch; the last one is short where they do not fill it.
    seed : int
        What the order, the augmentation and the mixing of an epoch follow from.
    training : bool
        Whether to shuffle, augment and mix; else images come in order, as they are.
    augmentation : Augmentation or None
        What is done to each image; nothing to a map.
    mixup, cutmix : float
        The parameters of the Beta distributions, 0 for neither.
    """

    batch_size: int
    seed: int = 0
    training: bool = False
    augmentation: Augmentation | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
