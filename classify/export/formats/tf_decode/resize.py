"""Pillow's bilinear resize as TensorFlow operations, equal to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_FRACTION_BITS = 22  # bits of a coefficient behind its point: 32, less 8 of a sample, less 2 of headroom
_HALF = 1 << (_FRACTION_BITS - 1)


def resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resize an image as Pillow's ``Image.resize(..., BILINEAR)`` does.

    One axis after the other is resized, with uint8 between: the columns first, unless the rows lose more than twice as many
    (since Pillow 13). The sums are of integers, as in Pillow's Resample.c: a triangle as wide as the reduction, its weights
    to 22 bits, half added.

    Parameters
    ----------
    image : tf.Tensor
        (h, w, 3) uint8.
    size : tuple of int
        (height, width).

    Returns
    -------
    tf.Tensor
        (height, width, 3) uint8.
    """
    height, width = size
    shape = tf.shape(image)
    rows_first = shape[0] - height > 2 * tf.maximum(shape[1] - width, 0)
    return tf.cond(
        rows_first,
        lambda: _resize_axis(_resize_axis(image, 0, height), 1, width),
        lambda: _resize_axis(_resize_axis(image, 1, width), 0, height),
    )


def _resize_axis(image: tf.Tensor, axis: int, size: int) -> tf.Tensor:
    """Resize one axis, one term of the sums after the other, so that memory stays small."""
    shape = tf.shape(image)
    first, count, max_count = _compute_windows(shape[axis], size)
    total = _sum_terms(
        max_count, tf.zeros(size, tf.float64), lambda step: _compute_weight(step, first, count, shape[axis], size)
    )
    coefficient_shape = (1, size, 1) if axis else (size, 1, 1)

    def compute_term(step: tf.Tensor) -> tf.Tensor:
        weight = _compute_weight(step, first, count, shape[axis], size) / total
        coefficient = tf.cast(weight * (1 << _FRACTION_BITS) + 0.5, tf.int32)
        samples = tf.gather(image, tf.minimum(first + step, shape[axis] - 1), axis=axis)
        return tf.cast(samples, tf.int32) * tf.reshape(coefficient, coefficient_shape)

    start = tf.fill((shape[0], size, 3) if axis else (size, shape[1], 3), _HALF)
    result = tf.bitwise.right_shift(_sum_terms(max_count, start, compute_term), _FRACTION_BITS)
    return tf.cast(tf.clip_by_value(result, 0, 255), tf.uint8)


def _sum_terms(n_terms: tf.Tensor, start: tf.Tensor, term: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The sum start + term(0) + ... + term(n_terms - 1), in this order, on which sums of floats depend."""
    _, total = tf.while_loop(
        lambda step, _: step < n_terms, lambda step, total: (step + 1, total + term(step)), (0, start), parallel_iterations=1
    )
    return total


def _compute_centers(length: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The centers (size,) float64 of the new samples, in units of old ones; and the width of a new one, at least 1."""
    scale = tf.cast(length, tf.float64) / size
    return (tf.range(size, dtype=tf.float64) + 0.5) * scale, tf.maximum(scale, 1)


def _compute_windows(length: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The first old sample of each new one and how many it has, (size,) int32; and the largest of these counts."""
    centers, support = _compute_centers(length, size)
    first = tf.maximum(tf.cast(centers - support + 0.5, tf.int32), 0)
    count = tf.minimum(tf.cast(centers + support + 0.5, tf.int32), length) - first
    return first, count, tf.reduce_max(count)


def _compute_weight(step: tf.Tensor, first: tf.Tensor, count: tf.Tensor, length: tf.Tensor, size: int) -> tf.Tensor:
    """The weights (size,) float64 of the old sample `step` of each window; 0 beyond the window."""
    centers, support = _compute_centers(length, size)
    distance = tf.abs((tf.cast(step + first, tf.float64) - centers + 0.5) * (1 / support))
    return tf.where((distance < 1) & (step < count), 1 - distance, 0)
