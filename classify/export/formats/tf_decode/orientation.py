"""Read the orientation in EXIF or XMP as TensorFlow operations, as Pillow's `Image.getexif` does, damaged files included."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .byte_ops import read_uint

_TAG, _SHORT, _LONG = 0x0112, 3, 4
_UNITS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)  # bytes of a value of each type of TIFF, 0 where there is none
_XMP = r'tiff:Orientation(?:="|>)([0-9])'
NO_TROUBLE = ""


class ExifOrientation(NamedTuple):
    """An orientation as EXIF numbers it, int64 (0 and beyond 8: none); and why it cannot be read, "" where it can."""

    value: tf.Tensor
    trouble: tf.Tensor


class _DirectoryState(NamedTuple):
    entry: tf.Tensor  # number of the entry to be read next
    total: tf.Tensor  # bytes of long values until now
    is_found: tf.Tensor
    value: tf.Tensor
    is_integer: tf.Tensor  # whether the value is one whole number


def read_orientation(exif: tf.Tensor, xmp: tf.Tensor) -> ExifOrientation:
    """Read the orientation from EXIF data and an XMP packet; both are strings, "" where there is none."""
    exif = tf.strings.regex_replace(exif, r"\A(?:Exif\x00\x00){1,2}", "")
    header = tf.strings.substr(exif, 0, 4)
    little_endian = tf.equal(header, b"II*\0")
    is_valid = (little_endian | tf.equal(header, b"MM\0*")) & (tf.strings.length(exif) >= 8)
    directory = tf.cond(
        is_valid, lambda: _read_directory(exif, little_endian), lambda: _DirectoryState(*_make_empty_state())
    )
    trouble = tf.where(
        (tf.strings.length(exif) > 0) & ~is_valid,
        "its EXIF has no TIFF header",
        tf.where(directory.is_found & ~directory.is_integer, "the orientation in its EXIF is no whole number", NO_TROUBLE),
    )
    return ExifOrientation(tf.where(directory.is_found, directory.value, _parse_xmp_orientation(xmp)), trouble)


def apply_orientation(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotate and flip an image (h, w, 3) as an orientation says."""

    def flip(axes: list[int], transpose: bool) -> tf.Tensor:
        return tf.reverse(tf.transpose(image, (1, 0, 2)) if transpose else image, axes)

    flips: tuple[tuple[list[int], bool], ...]
    flips = (([], False), ([1], False), ([0, 1], False), ([0], False), ([], True), ([1], True), ([0, 1], True), ([0], True))
    branches = [lambda flip_arguments=flip_arguments: flip(*flip_arguments) for flip_arguments in flips]
    index = tf.where((orientation >= 1) & (orientation <= len(flips)), orientation - 1, 0)
    return tf.switch_case(tf.cast(index, tf.int32), branches)


def _make_empty_state() -> tuple[tf.Tensor, ...]:
    zero, false = tf.constant(0, tf.int64), tf.constant(False)
    return zero, zero, false, zero, false


def _read_directory(exif: tf.Tensor, little_endian: tf.Tensor) -> _DirectoryState:
    """Find the entry for the orientation in the first directory."""
    size = tf.cast(tf.strings.length(exif), tf.int64)
    start = read_uint(exif, 4, 4, little_endian)
    entries = tf.where(start + 2 <= size, read_uint(exif, tf.minimum(start, size), 2, little_endian), 0)
    units = tf.constant(_UNITS, tf.int64)

    def has_more_entries(state: _DirectoryState) -> tf.Tensor:
        return ~state.is_found & (state.entry < entries) & (start + 14 + 12 * state.entry <= size)

    def read_entry(state: _DirectoryState) -> tuple[_DirectoryState]:
        offset = start + 2 + 12 * state.entry
        tag, value_type, count = (
            read_uint(exif, offset + skip, n_bytes, little_endian) for skip, n_bytes in ((0, 2), (2, 2), (4, 4))
        )
        value_bytes = count * tf.gather(units, tf.where(value_type < len(_UNITS), value_type, 0))
        total = state.total + tf.where(value_bytes > 4, value_bytes, 0)
        is_readable = (value_bytes > 0) & ((value_bytes <= 4) | (total <= size))
        is_truncated = (
            is_readable & (value_bytes > 4) & (read_uint(exif, offset + 8, 4, little_endian) + value_bytes > size)
        )  # Pillow reads no further then
        is_found = is_readable & ~is_truncated & (tag == _TAG)
        value = tf.where(
            value_type == _SHORT,
            read_uint(exif, offset + 8, 2, little_endian),
            read_uint(exif, offset + 8, 4, little_endian),
        )
        is_integer = ((value_type == _SHORT) | (value_type == _LONG)) & (count == 1)
        return (_DirectoryState(tf.where(is_truncated, entries, state.entry + 1), total, is_found, value, is_integer),)

    end: _DirectoryState = tf.while_loop(
        has_more_entries, read_entry, (_DirectoryState(*_make_empty_state()),), parallel_iterations=1
    )[0]
    return end


def _parse_xmp_orientation(xmp: tf.Tensor) -> tf.Tensor:
    r"""The first orientation in an XMP packet, 0 where there is none. `\C` is any byte, also of text that is not UTF-8."""
    has_orientation = tf.strings.regex_full_match(xmp, rf"\C*{_XMP}\C*")
    digit = tf.strings.regex_replace(xmp, rf"\A\C*?{_XMP}\C*\z", r"\1", replace_global=False)
    return tf.strings.to_number(tf.where(has_orientation, digit, "0"), tf.int64)
