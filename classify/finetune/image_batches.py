"""Batches of images for training through a whole network: decoded ahead, augmented, with soft labels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ...cache.errors import DataError
from ...extract.pixels import decode, read_file
from .augmentation import Augmentation, AugmentationLayers, BatchMixer

_PREFETCH = 2  # batches that are being made while another is trained on
Batch = tuple[np.ndarray, np.ndarray]


class ImageBatches:
    """Batches (images, labels), each decided by the seed, the epoch and its number alone.

    Images are (n, height, width, 3) in 0…255, uint8 as decoded or float32 when augmented or mixed; labels (n, classes)
    float32, whose rows sum to 1. In training each epoch has an order of its own; otherwise images keep theirs, and are
    neither augmented nor mixed. The last batch is short where the images do not fill it.

    read: gives an image's bytes by its name, as `make_image_reader` makes it. names and digests (of their bytes) have
    a row for each of `labels` (n), class numbers. epoch is to be set before each epoch. jobs: threads that decode.
    At most three batches are held, and as many again are being decoded.
    """

    n_readers = 1  # threads that ask for batches: what is ahead is made here

    def __init__(
        self,
        read: Callable[[str], bytes],
        names: Sequence[str],
        digests: Sequence[bytes],
        labels: np.ndarray,
        n_classes: int,
        image_size: tuple[int, int],
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
        self._n_classes, self._image_size, self._batch_size, self._seed = n_classes, image_size, batch_size, seed
        self._training, self._mixer = training, BatchMixer(mixup, cutmix)
        self._augmentation = augmentation
        self._decoders = ThreadPoolExecutor(jobs, "decode")
        self._assembler = ThreadPoolExecutor(1, "assemble")
        self._futures: dict[tuple[int, int], Future[Batch]] = {}
        self._lock = threading.Lock()
        self._order, self._order_epoch = np.arange(len(names)), -1  # and the epoch whose order it is
        self._layers: AugmentationLayers | None = None
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
            keys = [(epoch, index) for index in range(number, min(number + 1 + _PREFETCH, len(self)))]
            self._futures = {key: self._futures.get(key) or self._submit(*key) for key in keys}
            batch = self._futures[keys[0]]
        return batch.result()

    def close(self) -> None:
        """End the threads."""
        for pool in (self._assembler, self._decoders):
            pool.shutdown(cancel_futures=True)

    def _get_rows(self, epoch: int, number: int) -> np.ndarray:
        if self._training and self._order_epoch != epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._names))
            self._order_epoch = epoch
        return self._order[number * self._batch_size : (number + 1) * self._batch_size]

    def _submit(self, epoch: int, number: int) -> Future[Batch]:
        rows = self._get_rows(epoch, number)
        images = [self._decoders.submit(self._load_image, int(row)) for row in rows]
        return self._assembler.submit(self._assemble, images, rows, epoch, number)

    def _load_image(self, row: int) -> np.ndarray:
        name = self._names[row]
        try:
            data = self._read(name)
            if read_file.compute_digest(data) != self._digests[row]:
                raise decode.ImageRejected("changed", "the file is not the one the run was made from")
            return decode.decode(data, self._image_size)
        except decode.ImageRejected as error:
            raise DataError(
                f"{name}: expected the image that the run was made from, found: {error}; put it back, "
                "or, if the images were moved, run `humeris sweep` where they are now (it trains nothing again)"
            ) from error

    def _assemble(self, images: list[Future[np.ndarray]], rows: np.ndarray, epoch: int, number: int) -> Batch:
        stacked = np.stack([image.result() for image in images])
        labels = np.eye(self._n_classes, dtype=np.float32)[self._labels[rows]]
        if not self._training or not (self._augmentation or self._mixer):
            return stacked, labels
        self._layers = layers = self._layers or AugmentationLayers()
        random = np.random.default_rng([self._seed, epoch, number])
        tensor = layers.keras.ops.convert_to_tensor(stacked, dtype="float32")
        if self._augmentation:
            tensor = self._augmentation.apply(tensor, layers, random)
        if self._mixer:
            tensor, labels = self._mixer.apply(tensor, labels, layers, random)
        to_numpy = layers.keras.ops.convert_to_numpy
        return to_numpy(tensor), to_numpy(labels)
