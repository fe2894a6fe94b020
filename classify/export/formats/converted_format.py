"""Base class of formats that are converted from a frozen TensorFlow graph and can store weights in fewer bits."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...evaluate.target import Target
from ..model_metadata import ModelMetadata
from .bias_correction import correct_biases
from .format import Format, PredictFn, explain_load_errors, explain_write_errors
from .frozen_graph import compute_in_float32, freeze
from .quantization import MIN_KERNEL_SIZE, choose_quantization, count_head_kernels
from .quiet_output import silence
from .weight_precision import FLOAT16, INT8, PRECISIONS


class ConvertedFormat(Format):
    """A format that a converter writes from the frozen graph of a Keras model.

    With ``float16`` the large constants are stored so, and computed with in float32: a processor is slower in float16, and
    the error is many times as large where small constants are in it too. With ``int8`` the kernels are stored in eight
    bits, and the activations follow if predictions stay the same, see `quantization.choose_quantization`; the metadata then
    say what the activations are computed in.

    Attributes
    ----------
    title : str
        The name of the format in messages.
    """

    title: ClassVar[str]
    precisions = tuple(PRECISIONS)
    computes_in_float32 = True

    @abstractmethod
    def convert(self, graph: Any) -> bytes:
        """The bytes of a model in float32, of a graph as `frozen_graph.freeze` returns it."""

    @abstractmethod
    def to_float16(self, data: bytes) -> bytes:
        """The model with its large constants stored in float16; it computes in float32."""

    @abstractmethod
    def to_int8_weights(self, data: bytes, n_exact_kernels: int) -> bytes:
        """The model with its large kernels, except the last `n_exact_kernels`, in eight bits; it computes in float32."""

    @abstractmethod
    def to_int8_full(self, graph: Any, images: np.ndarray, n_exact_kernels: int) -> bytes:
        """The bytes of a model that computes in eight bits, its ranges learned from images (n, height, width, 3) uint8."""

    @abstractmethod
    def embed_metadata(self, data: bytes, metadata: ModelMetadata) -> bytes:
        """The model with the metadata and the class names inside."""

    @abstractmethod
    def build_predict_fn(self, source: Path | bytes) -> PredictFn:
        """Return the predict function of a model in its runtime, on all cores; raises any error for a damaged model."""

    def write(self, model: Any, path: Path, metadata: ModelMetadata, precision: str, calibration: np.ndarray | None) -> None:
        """See `Format.write`."""
        self.check_installed(write=True)
        with explain_write_errors(path, f"{self.title} in {precision}"):
            with silence(), compute_in_float32(model):
                data, activations = self._convert_to_precision(metadata.get_target(), model, precision, calibration)
            data = self.embed_metadata(data, replace(metadata, activations=activations))
        path.write_bytes(data)

    def load(self, path: Path) -> PredictFn:
        """See `Format.load`."""
        with explain_load_errors(path):
            return self.build_predict_fn(path)

    def _convert_to_precision(
        self, target: Target, model: Any, precision: str, images: np.ndarray | None
    ) -> tuple[bytes, str]:
        """The bytes of the model, and what its activations are computed in where its weights are in eight bits."""
        if precision == INT8.name:
            assert images is not None
            return self._convert_to_int8(target, model, images)
        data = self.convert(freeze(model))
        return (self.to_float16(data) if precision == FLOAT16.name else data), ""

    def _convert_to_int8(self, target: Target, model: Any, images: np.ndarray) -> tuple[bytes, str]:
        n_exact_kernels = count_head_kernels(model)

        def quantize_all() -> bytes:
            with correct_biases(model, images):
                graph = freeze(model)
            return self.to_int8_full(graph, images, n_exact_kernels)

        def quantize_weights() -> bytes:
            with correct_biases(model, images, MIN_KERNEL_SIZE):
                graph = freeze(model)
            return self.to_int8_weights(self.convert(graph), n_exact_kernels)

        return choose_quantization(target, model, images, quantize_all, quantize_weights, self.build_predict_fn)
