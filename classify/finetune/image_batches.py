"""Batches of images for training through a whole network: decoded ahead, augmented, with soft labels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ...cache.errors import DataError
from ...extract.pixels import decode, read_file
from .augmentation import Augmentation, Layers, Mixes

_AHEAD = 2  # batches that are being made while another is trained on
Batch = tuple[np.ndarray, np.ndarray]


class ImageBatches:
    """Batches (images, labels), each decided by the seed, the epoch and its number alone.

    Images are (n, height, width, 3) in 0…255, uint8 as decoded or float32 when augmented or mixed; labels (n, classes)
    float32, whose rows sum to 1. In training each epoch has an order of its own; otherwise images keep theirs, and are
    neither augmented nor mixed. The last batch is short where the images do not fill it.

    read: gives an image's bytes by its name, as `extract.detect.reader` makes it. names and digests (of their bytes) have
    a row for each of `labels` (n), class numbers. epoch is to be set before each epoch. jobs: threads that decode.
    At most three batches are held, and as many again are being decoded.
    """

    readers = 1  # threads that ask for batches: what is ahead is made here

    def __init__(
        self,
        read: Callable[[str], bytes],
        names: Sequence[str],
        digests: Sequence[bytes],
        labels: np.ndarray,
        classes: int,
        size: tuple[int, int],
        *,
        batch_size: int,
        seed: int,
        training: bool,
        augmentation: Augmentation | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        jobs: int,
    ) -> None:
        if not len(names) == len(digests) == len(labels):
            raise ValueError(
                f"expected as many names, digests and labels, found {len(names)}, {len(digests)}, {len(labels)}"
            )
        self._read, self._names, self._digests = read, names, digests
        self._labels = np.asarray(labels, np.int64)
        self._classes, self._size, self._batch_size, self._seed = classes, size, batch_size, seed
        self._training, self._mixes = training, Mixes(mixup, cutmix)
        self._augmentation = augmentation
        self._decoders = ThreadPoolExecutor(jobs, "decode")
        self._assembler = ThreadPoolExecutor(1, "assemble")
        self._waiting: dict[tuple[int, int], Future[Batch]] = {}
        self._lock = threading.Lock()
        self._order, self._shuffled = np.arange(len(names)), -1  # and the epoch whose order it is
        self._layers: Layers | None = None
        self.epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._names) // self._batch_size)

    def __getitem__(self, number: int) -> Batch:
        """Batch `number` of the epoch, made by now if the one before was asked for; raises `DataError`."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        epoch = self.epoch
        with self._lock:
            wanted = [(epoch, each) for each in range(number, min(number + 1 + _AHEAD, len(self)))]
            self._waiting = {key: self._waiting.get(key) or self._submit(*key) for key in wanted}
            batch = self._waiting[wanted[0]]
        return batch.result()

    def close(self) -> None:
        """End the threads."""
        for pool in (self._assembler, self._decoders):
            pool.shutdown(cancel_futures=True)

    def _rows(self, epoch: int, number: int) -> np.ndarray:
        if self._training and self._shuffled != epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._names))
            self._shuffled = epoch
        return self._order[number * self._batch_size : (number + 1) * self._batch_size]

    def _submit(self, epoch: int, number: int) -> Future[Batch]:
        rows = self._rows(epoch, number)
        images = [self._decoders.submit(self._image, int(row)) for row in rows]
        return self._assembler.submit(self._assemble, images, rows, epoch, number)

    def _image(self, row: int) -> np.ndarray:
        name = self._names[row]
        try:
            found = self._read(name)
            if read_file.digest(found) != self._digests[row]:
                raise decode.Refused("changed", "the file is not the one the run was made from")
            return decode.decode(found, self._size)
        except decode.Refused as refused:
            raise DataError(
                f"{name}: expected the image that the run was made from, found: {refused}; put it back, "
                "or, if the images were moved, run `humeris sweep` where they are now (it trains nothing again)"
            ) from refused

    def _assemble(self, images: list[Future[np.ndarray]], rows: np.ndarray, epoch: int, number: int) -> Batch:
        stacked = np.stack([image.result() for image in images])
        labels = np.eye(self._classes, dtype=np.float32)[self._labels[rows]]
        if not self._training or not (self._augmentation or self._mixes):
            return stacked, labels
        self._layers = layers = self._layers or Layers()
        random = np.random.default_rng([self._seed, epoch, number])
        changed = layers.keras.ops.convert_to_tensor(stacked, dtype="float32")
        if self._augmentation:
            changed = self._augmentation.apply(changed, layers, random)
        if self._mixes:
            changed, labels = self._mixes.apply(changed, labels, layers, random)
        to_numpy = layers.keras.ops.convert_to_numpy
        return to_numpy(changed), to_numpy(labels)
