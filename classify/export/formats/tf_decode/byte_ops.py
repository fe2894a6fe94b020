"""TensorFlow operations on the bytes of a string tensor."""

from __future__ import annotations

import tensorflow as tf


def read_uint(data: tf.Tensor, offset: tf.Tensor | int, count: int, little_endian: tf.Tensor | bool = False) -> tf.Tensor:
    """Read an unsigned integer from the bytes of a string.

    Parameters
    ----------
    data : tf.Tensor
        A string; bytes beyond its end count as 0.
    offset : tf.Tensor or int
        Of the first byte.
    count : int
        How many bytes.
    little_endian : tf.Tensor or bool
        Whether the least significant byte comes first.

    Returns
    -------
    tf.Tensor
        int64.
    """
    offset = tf.minimum(tf.cast(offset, tf.int64), tf.cast(tf.strings.length(data), tf.int64))
    padded = tf.strings.join([tf.strings.substr(data, offset, tf.constant(count, tf.int64)), b"\0" * count])
    values = tf.cast(tf.io.decode_raw(tf.strings.substr(padded, 0, count), tf.uint8), tf.int64)
    place_values = tf.constant([256**each for each in range(count)], tf.int64)
    return tf.reduce_sum(tf.where(little_endian, values, values[::-1]) * place_values)


def has_bytes_at(data: tf.Tensor, expected: bytes, offset: tf.Tensor | int = 0) -> tf.Tensor:
    """Whether a string has the bytes `expected` at `offset`."""
    offset = tf.minimum(tf.cast(offset, tf.int64), tf.cast(tf.strings.length(data), tf.int64))
    return tf.equal(tf.strings.substr(data, offset, tf.constant(len(expected), tf.int64)), expected)


def slice_bytes(data: tf.Tensor, offset: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`count` bytes of a string from `offset` on, fewer at its end."""
    size = tf.cast(tf.strings.length(data), tf.int64)
    return tf.strings.substr(data, tf.minimum(offset, size), tf.maximum(count, 0))
