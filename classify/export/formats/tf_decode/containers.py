"""What a file says of an image beside its pixels, as TensorFlow operations; imported only where a SavedModel is written.

Each function walks through a file as Pillow's plugin for its format does. `trouble` says why Pillow might see something else
in it than the walk, "" where nothing does.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .byte_ops import number, part, starts

_EXIF = b"Exif\0\0"
_XMP_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_PNG = b"XML:com.adobe.xmp\0"
_ODD_TEXT = r"(?:Raw profile type exif|XML:com\.adobe\.xmp|xmp|exif|transparency)\x00\C*"


class Jpeg(NamedTuple):
    """The segments before the pixels. at: where the next one is; at the end, and done, the first scan of pixels.

    frame: where the header of a progressive frame is, 0 where there is none.
    """

    at: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    trouble: tf.Tensor
    frame: tf.Tensor
    done: tf.Tensor


class Png(NamedTuple):
    """The chunks. transparent: whether a chunk says so, pixels: whether they have come."""

    at: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    trouble: tf.Tensor
    transparent: tf.Tensor
    pixels: tf.Tensor
    done: tf.Tensor


class Webp(NamedTuple):
    """The chunks. opaque: whether the header says so."""

    at: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    trouble: tf.Tensor
    opaque: tf.Tensor


class Gif(NamedTuple):
    """The blocks up to the end of the first frame. within: whether sub-blocks come, image: whether they are of pixels."""

    at: tf.Tensor
    trouble: tf.Tensor
    within: tf.Tensor
    image: tf.Tensor
    done: tf.Tensor


def jpeg(data: tf.Tensor) -> Jpeg:
    """The metadata of a JPEG file."""
    size = _size(data)

    def read(found: Jpeg) -> tuple[Jpeg]:
        at, mark = found.at, number(data, found.at + 1, 1)
        here = starts(data, b"\xff", at)
        bare = (mark >= 0xD0) & (mark <= 0xD9)
        segment = here & (mark >= 0xC0) & (mark < 0xFF) & ~bare
        length = tf.maximum(number(data, at + 2, 2), 2)
        content = part(data, at + 4, tf.where(segment & (mark == 0xE1), length - 2, 0))
        more = tf.where(starts(content, _EXIF), part(content, _long(len(_EXIF)), length), b"")
        xmp = tf.where(starts(content, _XMP_JPEG), part(content, _long(len(_XMP_JPEG)), length), found.xmp)
        trouble = tf.where(here & (mark > 0) & (mark < 0xC0), "it has a segment of an unknown kind", found.trouble)
        frame, scan = tf.where(segment & (mark == 0xC2), at, found.frame), segment & (mark == 0xDA)
        step = tf.where(segment, 2 + length, tf.where(~here | (mark == 0xFF), _long(1), 2))
        exif = tf.strings.join([found.exif, more])
        return (Jpeg(tf.where(scan, at, at + step), exif, xmp, trouble, frame, scan),)

    start = Jpeg(_long(2), tf.constant(_EXIF), _text(), _text(), _long(0), tf.constant(False))
    end: Jpeg = tf.while_loop(lambda found: ~found.done & (found.at + 4 <= size), read, (start,), parallel_iterations=1)[0]
    return end


def png(data: tf.Tensor) -> Png:
    """The metadata of a PNG file."""
    size = _size(data)

    def read(found: Png) -> tuple[Png]:
        length, kind, at = number(data, found.at, 4), part(data, found.at + 4, _long(4)), found.at + 8
        pixels = found.pixels | (kind == b"IDAT")
        text = (kind == b"iTXt") | (kind == b"tEXt") | (kind == b"zTXt")
        content = part(data, at, tf.where(text | (kind == b"eXIf"), length, 0))
        plain = (kind == b"iTXt") & starts(content, _XMP_PNG + b"\0")  # which is not compressed
        odd = text & ~plain & tf.strings.regex_full_match(content, _ODD_TEXT)
        trouble = tf.where(odd, "it keeps metadata as text", found.trouble)
        trouble = tf.where((kind == b"tRNS") & pixels, "its transparency comes after its pixels", trouble)
        done = (kind == b"IEND") | ((kind == b"fcTL") & found.pixels)
        exif = tf.where(kind == b"eXIf", tf.strings.join([_EXIF, content]), found.exif)
        xmp = tf.where(plain, content, found.xmp)
        return (Png(at + length + 4, exif, xmp, trouble, found.transparent | (kind == b"tRNS"), pixels, done),)

    no = tf.constant(False)
    start = Png(_long(8), _text(), _text(), _text(), no, no, no)
    end: Png = tf.while_loop(lambda found: ~found.done & (found.at + 8 <= size), read, (start,), parallel_iterations=1)[0]
    return end


def webp(data: tf.Tensor) -> Webp:
    """The metadata of a WebP file, of which the decoder takes only what the flags of its header promise."""
    size = number(data, 4, 4, little=True) + 8
    limit = tf.minimum(size, _size(data))
    extended, flags = starts(data, b"VP8X", 12), number(data, 20, 1)
    bits = {"clear": 16, "exif": 8, "xmp": 4, "moves": 2}
    said = {name: extended & (tf.bitwise.bitwise_and(flags, bit) > 0) for name, bit in bits.items()}

    def read(found: Webp) -> tuple[Webp]:
        kind, length = part(data, found.at, _long(4)), number(data, found.at + 4, 4, little=True)
        first = {name: tf.strings.length(getattr(found, name)) == 0 for name in ("exif", "xmp")}
        is_exif, is_xmp = (kind == b"EXIF") & said["exif"] & first["exif"], (kind == b"XMP ") & said["xmp"] & first["xmp"]
        content = part(data, found.at + 8, tf.where(is_exif | is_xmp, length, 0))
        exif, xmp = tf.where(is_exif, content, found.exif), tf.where(is_xmp, content, found.xmp)
        return (Webp(found.at + 8 + length + length % 2, exif, xmp, found.trouble, found.opaque),)

    start = Webp(_long(12), _text(), _text(), tf.where(said["moves"], "it is animated", ""), extended & ~said["clear"])
    end: Webp = tf.while_loop(lambda found: found.at + 8 <= limit, read, (start,), parallel_iterations=1)[0]
    return end._replace(trouble=tf.where((end.at == size) & (size <= _size(data)), end.trouble, "it is damaged"))


def gif(data: tf.Tensor) -> Gif:
    """What there is of a GIF file up to the end of its first frame."""
    size, screen = _size(data), part(data, _long(6), _long(4))

    def read_within(found: Gif) -> Gif:
        length = number(data, found.at, 1)
        last = length == 0
        return Gif(found.at + 1 + length, found.trouble, ~last, found.image, last & found.image)

    def read_block(found: Gif) -> Gif:
        at = found.at
        extension, image = starts(data, b"!", at), starts(data, b",", at)
        clear = starts(data, b"!\xf9", at) & (number(data, at + 3, 1) % 2 == 1)
        whole = (number(data, at + 1, 4) == 0) & (part(data, at + 5, _long(4)) == screen)
        trouble = tf.where(clear, "it has a transparent colour", found.trouble)
        trouble = tf.where(image & ~whole, "its first frame does not fill it", trouble)
        step = tf.where(image, 11 + _palette(number(data, at + 9, 1)), tf.where(extension, _long(2), 1))
        return Gif(at + step, trouble, extension | image, image, starts(data, b";", at))

    def read(found: Gif) -> tuple[Gif]:
        return (tf.cond(found.within, lambda: read_within(found), lambda: read_block(found)),)

    no = tf.constant(False)
    known = starts(data, b"GIF87a") | starts(data, b"GIF89a")
    start = Gif(13 + _palette(number(data, 10, 1)), tf.where(known, "", "it is of an unknown version"), no, no, no)
    end: Gif = tf.while_loop(lambda found: ~found.done & (found.at < size), read, (start,), parallel_iterations=1)[0]
    return end._replace(trouble=tf.where(end.done & end.image, end.trouble, "it is cut short"))


def _palette(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of the palette that the flags of a GIF announce."""
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(_long(2), flags % 8), 0)


def _size(data: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(data), tf.int64)


def _long(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def _text() -> tf.Tensor:
    return tf.constant("")
