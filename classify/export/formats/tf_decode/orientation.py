"""Which way up an image is, from its EXIF or XMP, as TensorFlow operations; imported only where a SavedModel is written.

Everything is read as Pillow's `Image.getexif` reads it, down to where it stops in a directory that is damaged.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .byte_ops import number

_TAG, _SHORT, _LONG = 0x0112, 3, 4
_UNITS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)  # bytes of a value of each type of TIFF, 0 where there is none
_XMP = r'tiff:Orientation(?:="|>)([0-9])'
NO_TROUBLE = ""


class Turn(NamedTuple):
    """An orientation as EXIF numbers it, int64 (0 and beyond 8: none); and why it cannot be told, "" where it can."""

    orientation: tf.Tensor
    trouble: tf.Tensor


class _Directory(NamedTuple):
    entry: tf.Tensor  # number of the entry to be read next
    total: tf.Tensor  # bytes of long values until now
    found: tf.Tensor
    value: tf.Tensor
    usual: tf.Tensor  # whether the value is one whole number


def turn(exif: tf.Tensor, xmp: tf.Tensor) -> Turn:
    """The turn that EXIF data and an XMP packet ask for; both are strings, "" where there is none."""
    exif = tf.strings.regex_replace(exif, r"\A(?:Exif\x00\x00){1,2}", "")
    head = tf.strings.substr(exif, 0, 4)
    little = tf.equal(head, b"II*\0")
    sound = (little | tf.equal(head, b"MM\0*")) & (tf.strings.length(exif) >= 8)
    read = tf.cond(sound, lambda: _directory(exif, little), lambda: _Directory(*_nothing()))
    trouble = tf.where(
        (tf.strings.length(exif) > 0) & ~sound,
        "its EXIF has no TIFF header",
        tf.where(read.found & ~read.usual, "the orientation in its EXIF is no whole number", NO_TROUBLE),
    )
    return Turn(tf.where(read.found, read.value, _of_xmp(xmp)), trouble)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The image (h, w, 3) turned as an orientation asks for."""

    def flipped(axes: list[int], transposed: bool) -> tf.Tensor:
        return tf.reverse(tf.transpose(image, (1, 0, 2)) if transposed else image, axes)

    ways: tuple[tuple[list[int], bool], ...]
    ways = (([], False), ([1], False), ([0, 1], False), ([0], False), ([], True), ([1], True), ([0, 1], True), ([0], True))
    branches = [lambda way=way: flipped(*way) for way in ways]
    which = tf.where((orientation >= 1) & (orientation <= len(ways)), orientation - 1, 0)
    return tf.switch_case(tf.cast(which, tf.int32), branches)


def _nothing() -> tuple[tf.Tensor, ...]:
    zero, no = tf.constant(0, tf.int64), tf.constant(False)
    return zero, zero, no, zero, no


def _directory(exif: tf.Tensor, little: tf.Tensor) -> _Directory:
    """The entry for the orientation in the first directory."""
    size = tf.cast(tf.strings.length(exif), tf.int64)
    start = number(exif, 4, 4, little)
    entries = tf.where(start + 2 <= size, number(exif, tf.minimum(start, size), 2, little), 0)
    units = tf.constant(_UNITS, tf.int64)

    def more(at: _Directory) -> tf.Tensor:
        return ~at.found & (at.entry < entries) & (start + 14 + 12 * at.entry <= size)

    def read(at: _Directory) -> tuple[_Directory]:
        here = start + 2 + 12 * at.entry
        tag, kind, count = (number(exif, here + skip, wide, little) for skip, wide in ((0, 2), (2, 2), (4, 4)))
        long = count * tf.gather(units, tf.where(kind < len(_UNITS), kind, 0))
        total = at.total + tf.where(long > 4, long, 0)
        kept = (long > 0) & ((long <= 4) | (total <= size))
        ends = kept & (long > 4) & (number(exif, here + 8, 4, little) + long > size)  # Pillow reads no further then
        found = kept & ~ends & (tag == _TAG)
        value = tf.where(kind == _SHORT, number(exif, here + 8, 2, little), number(exif, here + 8, 4, little))
        usual = ((kind == _SHORT) | (kind == _LONG)) & (count == 1)
        return (_Directory(tf.where(ends, entries, at.entry + 1), total, found, value, usual),)

    end: _Directory = tf.while_loop(more, read, (_Directory(*_nothing()),), parallel_iterations=1)[0]
    return end


def _of_xmp(xmp: tf.Tensor) -> tf.Tensor:
    r"""The first orientation in an XMP packet, 0 where there is none. `\C` is any byte, also of text that is not UTF-8."""
    there = tf.strings.regex_full_match(xmp, rf"\C*{_XMP}\C*")
    digit = tf.strings.regex_replace(xmp, rf"\A\C*?{_XMP}\C*\z", r"\1", replace_global=False)
    return tf.strings.to_number(tf.where(there, digit, "0"), tf.int64)
