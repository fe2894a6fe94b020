"""Options of training batches."""

from __future__ import annotations

from dataclasses import dataclass

from .augmentation import Augmentation


@dataclass(frozen=True)
class BatchOptions:
    """Size, order and augmentation of the batches of `ImageBatches` and `MapBatches`.

    Parameters
    ----------
    batch_size : int
        Images per batch; the last one may be smaller.
    seed : int
        Seed of the order, the augmentation and the mixing.
    training : bool
        Whether to shuffle, augment and mix.
    augmentation : Augmentation or None
        Augmentation of images; maps are not augmented.
    mixup, cutmix : float
        Alpha of the Beta distributions; 0 for none.
    """

    batch_size: int
    seed: int = 0
    training: bool = False
    augmentation: Augmentation | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
