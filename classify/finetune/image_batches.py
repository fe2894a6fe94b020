"""Batches of images for training a whole network: decoded ahead, augmented, with soft labels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ...cache.errors import DataError
from ...extract.images.image_source import ImageSource
from ...extract.images.images import Image
from ...extract.pixels.decode import ImageRejected
from ...extract.pixels.decode_pool import DecoderPool
from .augmentation import AugmentationLayers, BatchMixer
from .batch_options import BatchOptions

_PREFETCH = 2  # batches that are prepared while another is trained on
Batch = tuple[np.ndarray, np.ndarray]


class ImageBatches:
    """Batches (images, labels), each of which depends on seed, epoch and number alone.

    Images are (n, height, width, 3) in 0…255, uint8 as decoded, or float32 if augmented or mixed; labels (n, classes)
    float32, whose rows sum to 1. In training the images are shuffled in each epoch; otherwise they keep their order, and are
    neither augmented nor mixed. The last batch may be smaller.

    Set `epoch` before each epoch. At most three batches are in memory, and as many again are being decoded. An image that is
    missing, has changed or crashes its decoder raises `DataError` with its name when its batch is asked for.

    Parameters
    ----------
    source : ImageSource
        Reads the images.
    images : sequence of Image
        n images.
    labels : ndarray of float32, (n, outputs)
        Their labels as the loss takes them, see `Target.to_matrix`.
    image_size : tuple of int
        Height and width in pixels.
    decoders : DecoderPool
        Decodes them, in as many threads as it has processes, and is closed by its owner; others may use it too.
    options : BatchOptions
        How many in a batch, in which order, and what is done to them.
    """

    n_readers = 1  # threads that ask for batches; prefetching is done here

    def __init__(
        self,
        source: ImageSource,
        images: Sequence[Image],
        labels: np.ndarray,
        image_size: tuple[int, int],
        decoders: DecoderPool,
        options: BatchOptions,
    ) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, but {len(labels)} labels")
        self._source, self._images, self._decoders = source, images, decoders
        self._labels, self._image_size, self._options = labels, image_size, options
        self._mixer = BatchMixer(options.mixup, options.cutmix)
        self._decoder_threads = ThreadPoolExecutor(decoders.jobs, "decode")
        self._assembler = ThreadPoolExecutor(1, "assemble")
        self._futures: dict[tuple[int, int], Future[Batch]] = {}
        self._lock = threading.Lock()
        self._order, self._order_epoch = np.arange(len(images)), -1  # and the epoch whose order it is
        self._layers: AugmentationLayers | None = None
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return -(-len(self._images) // self._options.batch_size)

    def __getitem__(self, number: int) -> Batch:
        """Return batch `number` of the epoch, prefetched if the one before was asked for; raises `DataError`."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        epoch = self.epoch
        with self._lock:
            keys = [(epoch, index) for index in range(number, min(number + 1 + _PREFETCH, len(self)))]
            self._futures = {key: self._futures.get(key) or self._submit(*key) for key in keys}
            batch = self._futures[keys[0]]
        return batch.result()

    def close(self) -> None:
        """Stop the threads."""
        for pool in (self._assembler, self._decoder_threads):
            pool.shutdown(cancel_futures=True)

    def _get_rows(self, epoch: int, number: int) -> np.ndarray:
        if self._options.training and self._order_epoch != epoch:
            self._order = np.random.default_rng([self._options.seed, epoch]).permutation(len(self._images))
            self._order_epoch = epoch
        return self._order[number * self._options.batch_size : (number + 1) * self._options.batch_size]

    def _submit(self, epoch: int, number: int) -> Future[Batch]:
        rows = self._get_rows(epoch, number)
        images = [self._decoder_threads.submit(self._load_image, int(row)) for row in rows]
        return self._assembler.submit(self._assemble, images, rows, epoch, number)

    def _load_image(self, row: int) -> np.ndarray:
        image = self._images[row]
        try:
            pixels: np.ndarray = self._decoders.decode(self._source.fetch(image.item), self._image_size, image.digest)[0]
            return pixels
        except ImageRejected as error:
            reason = "the file has changed" if error.reason == "changed" else error
            raise DataError(
                f"{image.name}: cannot be read as the run saw it: {reason}; restore it, "
                "or, if the images were moved, run `humeris sweep` on their new place (it trains nothing again)"
            ) from error

    def _assemble(self, images: list[Future[np.ndarray]], rows: np.ndarray, epoch: int, number: int) -> Batch:
        stacked = np.stack([image.result() for image in images])
        labels = self._labels[rows]
        if not self._options.training or not (self._options.augmentation or self._mixer):
            return stacked, labels
        self._layers = layers = self._layers or AugmentationLayers()
        random = np.random.default_rng([self._options.seed, epoch, number])
        tensor = layers.keras.ops.convert_to_tensor(stacked, dtype="float32")
        if self._options.augmentation:
            tensor = self._options.augmentation.apply(tensor, layers, random)
        if self._mixer:
            tensor, labels = self._mixer.apply(tensor, labels, layers, random)
        to_numpy = layers.keras.ops.convert_to_numpy
        return to_numpy(tensor), to_numpy(labels)
