"""Quantize weights to eight bits, and decide whether activations may follow them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras
from ...evaluate.target import Target
from .format import PredictFn

MAX_FLOAT16_THRESHOLD, FLOAT16_THRESHOLD_DIVISOR = 1 << 14, 64
MAX_LEVEL = 127  # on either side of zero
MIN_KERNEL_SIZE = 4096  # smaller kernels stay in float32 where activations do
MIN_CLASS_AGREEMENT = 0.99  # on so many of the images the class is that of float32
MAX_MEAN_DIFFERENCE = 0.01  # of a probability
BATCH_SIZE = 16
_HEAD = re.compile(r"humeris_(dense|neighbours)\d+(_near)?|probabilities(_near)?")


def quantize(weights: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Round weights to eight bits, symmetrically, so that 0 stays 0.

    Parameters
    ----------
    weights : ndarray
        The weights.
    axes : sequence of int
        The axes along which weights share a scale: all but that of the channels.

    Returns
    -------
    levels : ndarray
        int8, of the shape of `weights`.
    scales : ndarray
        float32, with 1 along `axes`; `levels * scales` is close to `weights`.
    """
    largest = np.abs(weights).max(axis=tuple(axes), keepdims=True)
    scales = np.where(largest > 0, largest / MAX_LEVEL, 1).astype(np.float32)
    return np.rint(weights / scales).clip(-MAX_LEVEL, MAX_LEVEL).astype(np.int8), scales


def compute_float16_threshold(sizes: Iterable[int]) -> int:
    """How many values a constant must have to be stored in float16.

    Small constants matter more than they weigh: with all of them in float16, probabilities moved ten times as far.

    Parameters
    ----------
    sizes : iterable of int
        How many values each constant of the model has.
    """
    return min(MAX_FLOAT16_THRESHOLD, sum(sizes) // FLOAT16_THRESHOLD_DIVISOR)


def count_head_kernels(model: Any) -> int:
    """How many matrices the head multiplies by: the last ones of the model. They are small and stay exact."""
    dense = load_keras().layers.Dense
    return sum(type(layer) is dense and _HEAD.fullmatch(layer.name) is not None for layer in model.layers)


def choose_quantization(
    target: Target,
    model: Any,
    images: np.ndarray,
    quantize_all: Callable[[], bytes],
    quantize_weights: Callable[[], bytes],
    load: Callable[[bytes], PredictFn],
) -> tuple[bytes, str]:
    """Quantize weights and activations of a model if its predictions stay the same, else the weights alone.

    A network of many thin layers, such as MobileNetV2, often cannot do with 256 values of an activation.

    Parameters
    ----------
    target : Target
        What a label is.
    model : keras.Model
        The model in float32.
    images : ndarray
        (n, height, width, 3) uint8 that predictions are compared on.
    quantize_all, quantize_weights : callable
        Return the bytes of the model with weights and activations in eight bits, and with the weights alone.
    load : callable
        From the bytes of a model to its function.

    Returns
    -------
    data : bytes
        The model that was chosen.
    activations : str
        What its activations are computed in, ``int8`` or ``float32``.
    """
    expected = np.concatenate([np.asarray(model.predict_on_batch(batch)) for batch in _split_batches(images)])
    try:
        model_bytes = quantize_all()
        predict_fn = load(model_bytes)
        predictions = np.concatenate([predict_fn(batch) for batch in _split_batches(images)])
    except Exception:  # quantizers know some graphs only; quantizing weights alone needs none
        return quantize_weights(), "float32"
    agreement = 1 - target.find_disagreements(expected, predictions).mean()
    mean_difference = np.abs(predictions - expected).mean()
    return (
        (model_bytes, "int8")
        if agreement >= MIN_CLASS_AGREEMENT and mean_difference <= MAX_MEAN_DIFFERENCE
        else (quantize_weights(), "float32")
    )


def _split_batches(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
