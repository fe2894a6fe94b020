"""Constants in fewer bits: which of them, how they are rounded, and whether activations may follow them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras
from .format import PredictFn

MAX_FLOAT16_THRESHOLD, FLOAT16_THRESHOLD_DIVISOR = 1 << 14, 64
MAX_LEVEL = 127  # on either side of zero
MIN_KERNEL_SIZE = 4096  # weights of a kernel that are worth it
MIN_CLASS_AGREEMENT, MAX_MEAN_DIFFERENCE = (
    0.99,
    0.01,
)  # of the images have the classes of float32, and so far are probabilities on average, at most
BATCH_SIZE = 16
_HEAD = re.compile(r"humeris_(dense|neighbours)\d+(_near)?|probabilities(_near)?")


def quantize(weights: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The weights in eight bits and the factors (the same shape but 1 along `axes`) they are to be multiplied with.

    Symmetric, with a factor for each channel, so that 0 stays 0; all that share a factor lie along `axes`.
    """
    largest = np.abs(weights).max(axis=tuple(axes), keepdims=True)
    scales = np.where(largest > 0, largest / MAX_LEVEL, 1).astype(np.float32)
    return np.rint(weights / scales).clip(-MAX_LEVEL, MAX_LEVEL).astype(np.int8), scales


def compute_float16_threshold(sizes: Iterable[int]) -> int:
    """How many values a constant has at least that is kept in float16, of a model whose constants have so many.

    Small constants matter more than they weigh: with all of them in float16, probabilities moved ten times as far.
    """
    return min(MAX_FLOAT16_THRESHOLD, sum(sizes) // FLOAT16_THRESHOLD_DIVISOR)


def count_head_kernels(model: Any) -> int:
    """How many matrices the head multiplies with: the last ones of the model. They are small and stay exact."""
    dense = load_keras().layers.Dense
    return sum(type(layer) is dense and _HEAD.fullmatch(layer.name) is not None for layer in model.layers)


def choose_quantization(
    model: Any,
    images: np.ndarray,
    quantize_all: Callable[[], bytes],
    quantize_weights: Callable[[], bytes],
    load: Callable[[bytes], PredictFn],
) -> tuple[bytes, str]:
    """The file that computes in eight bits if it answers as the model does, else the one whose weights alone have eight.

    images: (n, height, width, 3) uint8 that ranges were learnt from. Also returned is what the activations are computed in:
    `int8` or `float32`. A network of many thin layers, as MobileNetV2, often cannot do with 256 values of an activation.
    """
    expected = np.concatenate([np.asarray(model.predict_on_batch(batch)) for batch in _split_batches(images)])
    try:
        model_bytes = quantize_all()
        predict_fn = load(model_bytes)
        predictions = np.concatenate([predict_fn(batch) for batch in _split_batches(images)])
    except Exception:  # the quantisers know some graphs only; what follows needs none
        return quantize_weights(), "float32"
    agreement, mean_difference = (
        (predictions.argmax(axis=1) == expected.argmax(axis=1)).mean(),
        np.abs(predictions - expected).mean(),
    )
    return (
        (model_bytes, "int8")
        if agreement >= MIN_CLASS_AGREEMENT and mean_difference <= MAX_MEAN_DIFFERENCE
        else (quantize_weights(), "float32")
    )


def _split_batches(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
