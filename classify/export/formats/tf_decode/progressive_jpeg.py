"""Find out whether a progressive JPEG is complete, as TensorFlow operations."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .byte_ops import read_uint, slice_bytes

_SCAN, _END = 0xDA, 0xD9


class _Scans(NamedTuple):
    offset: tf.Tensor  # where the next marker is
    bits_left: tf.Tensor  # (256, 64) by name of the component and coefficient: how many bits are yet to come, -1 all of them


def is_unfinished(data: tf.Tensor, frame: tf.Tensor, scan: tf.Tensor) -> tf.Tensor:
    """Whether bits of a coefficient are missing; libjpeg then smooths the blocks, in each version in another way.

    This is what libjpeg's jdphuff.c counts in `coef_bits`.

    Parameters
    ----------
    data : tf.Tensor
        The file, a string.
    frame, scan : tf.Tensor
        Offsets of the headers of the frame and of the first scan.
    """
    byte_values = tf.io.decode_raw(data, tf.uint8)
    next_bytes = byte_values[1:]
    is_scan_data = (
        (next_bytes == 0) | (next_bytes == 255) | ((next_bytes >= 0xD0) & (next_bytes <= 0xD7))
    )  # no markers: they belong to a scan's pixels
    end = tf.cast(tf.strings.length(data), tf.int64)
    markers = tf.concat([tf.where((byte_values[:-1] == 255) & ~is_scan_data)[:, 0], [end]], 0)
    component_names, coefficients = tf.range(256, dtype=tf.int64)[:, None], tf.range(64, dtype=tf.int64)

    def read_marker(state: _Scans) -> tuple[_Scans]:
        offset, is_scan = state.offset, read_uint(data, state.offset + 1, 1) == _SCAN
        count = read_uint(data, offset + 4, 1)
        is_sent = tf.reduce_any(component_names == _read_strided(data, offset + 5, count, 2), axis=1, keepdims=True)
        first, last, bits = (read_uint(data, offset + 5 + 2 * count + skip, 1) for skip in range(3))
        is_sent &= is_scan & (coefficients >= first) & (coefficients <= last)
        next_index = tf.searchsorted(markers, [tf.minimum(offset + 2 + read_uint(data, offset + 2, 2), end)])[0]
        return (_Scans(tf.gather(markers, next_index), tf.where(is_sent, bits % 16, state.bits_left)),)

    def has_more_markers(state: _Scans) -> tf.Tensor:
        return (state.offset + 4 <= end) & (read_uint(data, state.offset + 1, 1) != _END)

    start = _Scans(scan, tf.fill((256, 64), tf.constant(-1, tf.int64)))
    final_state: _Scans = tf.while_loop(has_more_markers, read_marker, (start,), parallel_iterations=1)[0]
    components = _read_strided(data, frame + 10, read_uint(data, frame + 9, 1), 3)
    return tf.reduce_any(tf.gather(final_state.bits_left, components) != 0)


def _read_strided(data: tf.Tensor, offset: tf.Tensor, count: tf.Tensor, step: int) -> tf.Tensor:
    """The `count` bytes at `offset`, `offset + step` and so on, int64."""
    return tf.cast(tf.io.decode_raw(slice_bytes(data, offset, count * step), tf.uint8)[::step], tf.int64)
