"""Batch normalization folding: merge a batch normalization into the convolution before it, to compute fewer steps.

In inference a batch normalization is a scale and a shift per channel, which can be merged into the kernel and the bias of
the convolution (Jacob et al. 2018, arXiv 1712.05877, section 3.2). TensorFlow does not do so for a Keras model, because its
weights are variables. Features change by about one part in 10^5, so `VERSION` is part of their key.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .keras_runtime import load_keras

VERSION = "1, normalisations folded"


def can_fold(convolution: Any, normalization: Any) -> bool:
    """Return whether a batch normalization can be folded into the convolution before it.

    Parameters
    ----------
    convolution, normalization : keras.layers.Layer
        Two consecutive layers of a built network.

    Returns
    -------
    bool
        True for a plain or depthwise 2D convolution with channels last and no activation.
    """
    layers = load_keras().layers
    return (
        type(convolution) in {layers.Conv2D, layers.DepthwiseConv2D}
        and type(normalization) is layers.BatchNormalization
        and convolution.activation is load_keras().activations.linear
        and convolution.data_format == "channels_last"
        and normalization.axis in {-1, 3}
    )


def build_folded_convolution(convolution: Any, normalization: Any, tensor: Any) -> Any:
    """Apply a convolution and the batch normalization after it as one convolution.

    Parameters
    ----------
    convolution, normalization : keras.layers.Layer
        Layers for which `can_fold` is true.
    tensor : keras.KerasTensor
        The input of the convolution (batch, height, width, channels).

    Returns
    -------
    keras.KerasTensor
        The output of the normalization, to about one part in 10^5.
    """
    config = {**convolution.get_config(), "use_bias": True, "name": f"humeris_{convolution.name}", "trainable": False}
    folded_convolution = type(convolution).from_config(config)
    result = folded_convolution(tensor)
    kernel, bias = (np.asarray(value, np.float64) for value in _get_kernel_and_bias(convolution))
    scale, shift = _compute_scale_and_shift(normalization)
    if type(convolution) is load_keras().layers.DepthwiseConv2D:
        kernel = kernel * scale.reshape(kernel.shape[2:])
    else:
        kernel = kernel * scale
    folded_convolution.set_weights([kernel.astype(np.float32), (bias * scale + shift).astype(np.float32)])
    return result


def _get_kernel_and_bias(convolution: Any) -> tuple[Any, Any]:
    kernel, *bias = convolution.get_weights()
    return kernel, bias[0] if bias else 0.0


def _compute_scale_and_shift(normalization: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale (channels,) and the shift (channels,) of a batch normalization in inference."""
    mean, variance = (np.asarray(value, np.float64) for value in (normalization.moving_mean, normalization.moving_variance))
    scale = 1 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        scale = scale * np.asarray(normalization.gamma, np.float64)
    shift = -mean * scale
    return scale, shift + np.asarray(normalization.beta, np.float64) if normalization.center else shift
