"""Whether a progressive JPEG comes to its end, as TensorFlow operations; imported only where a SavedModel is written."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .byte_ops import number, part

_SCAN, _END = 0xDA, 0xD9


class _Scans(NamedTuple):
    at: tf.Tensor  # where the next marker is
    missing: tf.Tensor  # (256, 64) by name of the component and coefficient: how many bits are yet to come, -1 all of them


def unfinished(data: tf.Tensor, frame: tf.Tensor, scan: tf.Tensor) -> tf.Tensor:
    """Whether bits of a coefficient are never sent; libjpeg then smooths the blocks, in each version in another way.

    frame, scan: where the frame's header and the first scan's are in the file. Source: libjpeg's jdphuff.c, `coef_bits`.
    """
    octets = tf.io.decode_raw(data, tf.uint8)
    after = octets[1:]
    within = (
        (after == 0) | (after == 255) | ((after >= 0xD0) & (after <= 0xD7))
    )  # no markers: they belong to a scan's pixels
    end = tf.cast(tf.strings.length(data), tf.int64)
    markers = tf.concat([tf.where((octets[:-1] == 255) & ~within)[:, 0], [end]], 0)
    names, coefficients = tf.range(256, dtype=tf.int64)[:, None], tf.range(64, dtype=tf.int64)

    def read(found: _Scans) -> tuple[_Scans]:
        at, is_scan = found.at, number(data, found.at + 1, 1) == _SCAN
        count = number(data, at + 4, 1)
        sent = tf.reduce_any(names == _every(data, at + 5, count, 2), axis=1, keepdims=True)
        first, last, bits = (number(data, at + 5 + 2 * count + skip, 1) for skip in range(3))
        sent &= is_scan & (coefficients >= first) & (coefficients <= last)
        following = tf.searchsorted(markers, [tf.minimum(at + 2 + number(data, at + 2, 2), end)])[0]
        return (_Scans(tf.gather(markers, following), tf.where(sent, bits % 16, found.missing)),)

    def more(found: _Scans) -> tf.Tensor:
        return (found.at + 4 <= end) & (number(data, found.at + 1, 1) != _END)

    start = _Scans(scan, tf.fill((256, 64), tf.constant(-1, tf.int64)))
    found: _Scans = tf.while_loop(more, read, (start,), parallel_iterations=1)[0]
    components = _every(data, frame + 10, number(data, frame + 9, 1), 3)
    return tf.reduce_any(tf.gather(found.missing, components) != 0)


def _every(data: tf.Tensor, at: tf.Tensor, count: tf.Tensor, step: int) -> tf.Tensor:
    """The bytes at `at`, `at` + `step` and so on, `count` of them, int64."""
    return tf.cast(tf.io.decode_raw(part(data, at, count * step), tf.uint8)[::step], tf.int64)
