"""The compiled forward pass: a network up to its deepest tap, with the pooled taps as its outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ...cache.errors import BackboneError, DeviceError
from ...cache.formatting import format_error
from . import taps
from .graph import Graph
from .keras_runtime import load_keras
from .taps import Tap

_OUT_OF_MEMORY = re.compile(r"ResourceExhausted|RESOURCE_EXHAUSTED|OutOfMemory|out of memory", re.IGNORECASE)


class ForwardPass:
    """Computes the rows of several taps in one pass. It is plain Keras, so it runs on any Keras backend.

    Every batch has `batch_size` images: the last one is padded, so that nothing is compiled twice and a row does not depend
    on the position of its image in the data.

    Parameters
    ----------
    graph : Graph
        The network; layers above the taps are not computed.
    requested_taps : sequence of Tap
        Taps of layers of the network.
    batch_size : int
        Number of images in a batch.

    Attributes
    ----------
    passes : int
        Number of batches computed so far.
    """

    def __init__(self, graph: Graph, requested_taps: Sequence[Tap], batch_size: int) -> None:
        keras = load_keras()
        self.taps, self.batch_size = tuple(requested_taps), batch_size
        self.passes = 0
        outputs = [taps.apply(graph.outputs[tap.layer], tap) for tap in requested_taps]
        self.model = keras.Model(graph.image, outputs)
        self._batch = np.zeros((batch_size, *graph.image.shape[1:]), np.uint8)

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Compute the rows of a batch.

        Parameters
        ----------
        images : sequence of numpy.ndarray
            At most `batch_size` images, uint8 (height, width, 3) each.

        Returns
        -------
        list of numpy.ndarray
            Rows (n, ...) of each tap: maps in the precision of the computation, other pools in float32.

        Raises
        ------
        DeviceError
            If the device has too little memory for the batch.
        """
        for index, image in enumerate(images):
            self._batch[index] = image
        self._batch[len(images) :] = 0
        try:
            results = self.model.predict_on_batch(self._batch)
        except Exception as error:  # each backend has its own type of out-of-memory error
            if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
                height, width = self._batch.shape[1:3]
                raise BackboneError(
                    f"the network fails on images of {height}x{width}: {format_error(error)}; check --image-size, and try "
                    "the network in Keras"
                ) from error
            raise DeviceError(
                f"batches of {self.batch_size} images: the device is out of memory; lower --batch-size"
            ) from error
        self.passes += 1
        rows = results if isinstance(results, list | tuple) else [results]
        return [
            np.asarray(row, dtype=None if tap.pool == "map" else np.float32)[: len(images)]
            for tap, row in zip(self.taps, rows, strict=True)
        ]
