"""Correct biases for the shift of a layer's mean output that weights in eight bits cause."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras
from .quantization import quantize

BATCH_SIZE = 16


@contextlib.contextmanager
def correct_biases(model: Any, images: np.ndarray, min_kernel_size: int = 0) -> Iterator[None]:
    """Correct the biases of a network's convolutions while the context lasts, for kernels that will be in eight bits.

    On average over images and positions, a convolution with the rounded kernel then gives what the exact one does (Nagel et
    al. 2019, arXiv:1906.04721, section 4.2, with data). As a convolution is linear, the mean of its input suffices to know
    the shift. The head, and layers without a bias, stay as they are.

    Parameters
    ----------
    model : keras.Model
        The model; its biases are as before afterwards.
    images : ndarray
        (n, height, width, 3) uint8.
    min_kernel_size : int
        How many weights a kernel has at least that will be in eight bits; 0 for all kernels, depthwise ones included.
    """
    keras = load_keras()
    layer_types = [keras.layers.Conv2D, keras.layers.Dense, *([] if min_kernel_size else [keras.layers.DepthwiseConv2D])]
    layers = {
        id(layer): layer
        for layer in model.layers
        if type(layer) in layer_types and layer.use_bias and layer.kernel.shape.num_elements() >= min_kernel_size
    }
    means = _compute_mean_inputs(model, layers, images)
    original_biases = [(layers[key], np.array(layers[key].bias)) for key in means]
    try:
        for key, mean in means.items():
            layer = layers[key]
            layer.bias.assign(np.array(layer.bias) - _compute_shift(layer, mean))
        yield
    finally:
        for layer, bias in original_biases:
            layer.bias.assign(bias)


def _compute_mean_inputs(model: Any, layers: dict[int, Any], images: np.ndarray) -> dict[int, np.ndarray]:
    """The mean input (1, height, width, channels) of each layer that is used once, on maps."""
    sums: dict[int, np.ndarray] = {}
    calls: dict[int, int] = {}
    batch_starts = range(0, len(images), BATCH_SIZE)

    def call_and_record(operation: Any, *inputs: Any, **kwargs: Any) -> Any:
        key = id(operation)
        if key in layers and len(inputs[0].shape) == 4:
            sums[key] = sums.get(key, 0) + np.asarray(inputs[0]).sum(axis=0, keepdims=True, dtype=np.float64)
            calls[key] = calls.get(key, 0) + 1
        return operation(*inputs, **kwargs)

    for start in batch_starts:
        tensor = load_keras().ops.convert_to_tensor(images[start : start + BATCH_SIZE])
        model._run_through_graph(tensor, call_fn=call_and_record)
    return {key: (total / len(images)).astype(np.float32) for key, total in sums.items() if calls[key] == len(batch_starts)}


def _compute_shift(layer: Any, mean: np.ndarray) -> np.ndarray:
    """By how much (channels,) the mean output before the activation rises with the rounded kernel."""
    keras = load_keras()
    kernel, activation = np.array(layer.kernel), layer.activation
    shared_axes = (0, 1) if type(layer) is keras.layers.DepthwiseConv2D else tuple(range(kernel.ndim - 1))
    levels, scales = quantize(kernel, shared_axes)
    try:
        layer.activation = keras.activations.linear
        exact_output = np.asarray(layer(mean))
        layer.kernel.assign(levels * scales)
        quantized_output = np.asarray(layer(mean))
    finally:
        layer.kernel.assign(kernel)
        layer.activation = activation
    return np.asarray((quantized_output - exact_output).mean(axis=(0, 1, 2)))
