"""The compiled forward pass: a network cut above its deepest tap, every tap an output, pooled on the device."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ...cache.errors import DeviceError
from . import taps
from .graph import Graph
from .keras_runtime import load_keras
from .taps import Tap

_OUT_OF_MEMORY = re.compile(r"ResourceExhausted|RESOURCE_EXHAUSTED|OutOfMemory|out of memory", re.IGNORECASE)


class ForwardPass:
    """Rows of several taps in one pass. Plain Keras, so it runs on any of its back ends.

    The batch always has `batch_size` images: a last, smaller one is padded, so that nothing is compiled twice and a
    row does not depend on where in the data its image stands.

    Parameters
    ----------
    graph : Graph
        The network; what lies above the taps is not computed.
    requested_taps : sequence of Tap
        Taps of layers of the network.
    batch_size : int
        Images in a batch.

    Attributes
    ----------
    passes : int
        Batches computed so far.
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
            Rows (n, ...) of each tap: maps in the precision of the computation, everything else in float32.

        Raises
        ------
        DeviceError
            Where the device has too little memory for the batch.
        """
        for index, image in enumerate(images):
            self._batch[index] = image
        self._batch[len(images) :] = 0
        try:
            results = self.model.predict_on_batch(self._batch)
        except Exception as error:  # each back end has a type of its own for it
            if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
                raise
            raise DeviceError(
                f"batches of {self.batch_size} images: expected memory for them, found too little; lower --batch-size"
            ) from error
        self.passes += 1
        rows = results if isinstance(results, list | tuple) else [results]
        return [
            np.asarray(row, dtype=None if tap.pool == "map" else np.float32)[: len(images)]
            for tap, row in zip(self.taps, rows, strict=True)
        ]
