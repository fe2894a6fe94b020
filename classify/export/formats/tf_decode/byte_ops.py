"""Numbers and marks in the bytes of a string tensor; imported only where a SavedModel is written."""

from __future__ import annotations

import tensorflow as tf


def number(data: tf.Tensor, at: tf.Tensor | int, count: int, little: tf.Tensor | bool = False) -> tf.Tensor:
    """The unsigned number, int64, in `count` bytes of a string from `at` on; bytes beyond its end count as 0.

    little: whether the least byte comes first.
    """
    at = tf.minimum(tf.cast(at, tf.int64), tf.cast(tf.strings.length(data), tf.int64))
    some = tf.strings.join([tf.strings.substr(data, at, tf.constant(count, tf.int64)), b"\0" * count])
    values = tf.cast(tf.io.decode_raw(tf.strings.substr(some, 0, count), tf.uint8), tf.int64)
    places = tf.constant([256**each for each in range(count)], tf.int64)
    return tf.reduce_sum(tf.where(little, values, values[::-1]) * places)


def starts(data: tf.Tensor, mark: bytes, at: tf.Tensor | int = 0) -> tf.Tensor:
    """Whether `mark` stands at `at` in a string."""
    at = tf.minimum(tf.cast(at, tf.int64), tf.cast(tf.strings.length(data), tf.int64))
    return tf.equal(tf.strings.substr(data, at, tf.constant(len(mark), tf.int64)), mark)


def part(data: tf.Tensor, at: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`count` bytes of a string from `at` on, fewer at its end."""
    size = tf.cast(tf.strings.length(data), tf.int64)
    return tf.strings.substr(data, tf.minimum(at, size), tf.maximum(count, 0))
