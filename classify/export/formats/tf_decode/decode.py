"""Encoded images to pixels as TensorFlow operations: `extract.pixels.decode` to the last bit, or a refusal.

TensorFlow's own decoders give the very samples that Pillow's do, given the right options; what lies around them (the scale a
JPEG is decoded at, orientation, transparency, resizing) is done here as Pillow does it. Imported only where a SavedModel
is written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from .....extract.pixels.decode import MAX_PIXELS, MAX_WEBP_PIXELS
from . import containers
from .byte_ops import number, part, starts
from .orientation import turn, upright
from .progressive_jpeg import unfinished
from .resize import resize

_AT_ONCE = 2  # images: a large PNG takes hundreds of megabytes
_NEXT = "decode it with humeris or Pillow and give the pixels to serving_default, or convert it to an 8-bit RGB PNG"
Decoded = tuple[tf.Tensor, tf.Tensor]  # samples (h, w, 3) uint8, orientation as EXIF numbers it


def decode(encoded: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Pixels (n, height, width, 3) uint8 of encoded images, strings (n,), at `size` = (height, width).

    Raises TensorFlow's `InvalidArgumentError`, with the number of the image, for what would not come out as it does of
    `extract.pixels.decode`: a TIFF, CMYK, a progressive JPEG without its last scans, an animated WebP, a GIF with a
    transparent colour or a small first frame, a BMP of other than 24 bits, and rare sorts of metadata and transparency.
    Of damaged files it may answer some that Pillow gives up on: GIFs and WebPs with broken codes, PNGs with wrong checksums.
    """

    def one(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, name = item[1], tf.strings.join(["image ", tf.strings.as_string(item[0])])
        samples, orientation = _decoded(data, name, 2 * max(size))
        return tf.ensure_shape(resize(upright(samples, orientation), size), (*size, 3))

    with tf.device("/CPU:0"):
        numbered = (tf.range(tf.size(encoded)), encoded)
        spec = tf.TensorSpec((*size, 3), tf.uint8)
        return tf.map_fn(one, numbered, fn_output_signature=spec, parallel_iterations=_AT_ONCE)


def _decoded(data: tf.Tensor, name: tf.Tensor, longer: int) -> Decoded:
    marks = (b"\xff\xd8\xff", 0), (b"\x89PNG\r\n\x1a\n", 0), (b"GIF8", 0), (b"WEBP", 8), (b"BM", 0)
    ways: list[Callable[[tf.Tensor, tf.Tensor], Decoded]] = [partial(_jpeg, longer=longer), _png, _gif, _webp, _bmp, _other]
    which = tf.argmax(tf.cast(tf.stack([*(starts(data, *mark) for mark in marks), tf.constant(True)]), tf.int32))
    found: Decoded = tf.switch_case(tf.cast(which, tf.int32), [partial(way, data, name) for way in ways])
    return found


def _jpeg(data: tf.Tensor, name: tf.Tensor, longer: int) -> Decoded:
    """`longer`: as many samples must be left along each axis, by the choice that Pillow's `draft` makes."""
    shape = tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)
    found = containers.jpeg(data)
    way = turn(found.exif, found.xmp)
    colours = tf.where((shape[2] == 1) | (shape[2] == 3), "", "its colours are CMYK")
    cut = tf.cond(found.frame > 0, lambda: unfinished(data, found.frame, found.at), lambda: False)
    ended = tf.where(cut, "its last scans are missing", "")
    data = _passed(data, name, found.trouble, way.trouble, colours, ended, _large(shape[0], shape[1]))
    reduction = tf.minimum(shape[0], shape[1]) // longer
    scale = sum(tf.cast(reduction >= each, tf.int32) for each in (2, 4, 8))
    return tf.switch_case(scale, [partial(_scaled, data, 2**each) for each in range(4)]), way.orientation


def _scaled(data: tf.Tensor, reduction: int) -> tf.Tensor:
    return tf.io.decode_jpeg(data, 3, ratio=reduction, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")


def _png(data: tf.Tensor, name: tf.Tensor) -> Decoded:
    width, height, depth, kind = (number(data, at, count) for at, count in ((16, 4), (20, 4), (24, 1), (25, 1)))
    found = containers.png(data)
    way = turn(found.exif, found.xmp)
    grey, clear = (kind == 0), found.transparent
    odd = clear & ((grey & ((depth == 2) | (depth == 4))) | ((kind == 2) & (depth == 16)))
    data = _passed(
        data,
        name,
        found.trouble,
        way.trouble,
        tf.where(odd, "it has a transparent colour of other than 8 bits", ""),
        _large(width, height),
    )
    clear = (clear & ~(grey & (depth == 16))) | (kind == 4) | (kind == 6)
    samples = tf.cond(
        clear,
        lambda: _on_white(tf.io.decode_png(data, 4)),
        lambda: tf.io.decode_png(data, 3),  # of 4 channels the opacity is wrong where samples have less than 8 bits
    )
    return samples, way.orientation


def _gif(data: tf.Tensor, name: tf.Tensor) -> Decoded:
    """Only the first frame is decoded: what comes after it is cut off, and an end put there."""
    found = containers.gif(data)
    width, height = number(data, 6, 2, little=True), number(data, 8, 2, little=True)
    data = _passed(data, name, found.trouble, _large(width, height))
    first = tf.strings.join([part(data, tf.constant(0, tf.int64), found.at), b";"])
    return tf.io.decode_gif(first)[0], tf.constant(0, tf.int64)


def _webp(data: tf.Tensor, name: tf.Tensor) -> Decoded:
    found = containers.webp(data)
    way = turn(found.exif, found.xmp)
    data = _passed(data, name, found.trouble, way.trouble)
    samples = tf.io.decode_webp(data)[0]
    shape = tf.shape(samples, tf.int64)
    clear = shape[2] == 4
    denied = tf.where(found.opaque & clear, "its header denies that it is transparent", "")
    samples = _passed(samples, name, denied, _large(shape[0], shape[1], MAX_WEBP_PIXELS))
    return tf.cond(clear, lambda: _on_white(samples), lambda: samples[..., :3]), way.orientation


def _bmp(data: tf.Tensor, name: tf.Tensor) -> Decoded:
    header, depth, packed = (number(data, at, count, little=True) for at, count in ((14, 4), (28, 2), (30, 4)))
    plain = ((header == 40) | (header == 108) | (header == 124)) & (depth == 24) & (packed == 0)
    data = _passed(data, name, tf.where(plain, "", "it is a BMP of other than 24 plain bits"))
    samples = tf.io.decode_bmp(data, 3)
    shape = tf.shape(samples, tf.int64)
    return _passed(samples, name, _large(shape[0], shape[1])), tf.constant(0, tf.int64)


def _other(data: tf.Tensor, name: tf.Tensor) -> Decoded:
    tiff = starts(data, b"II*\0") | starts(data, b"MM\0*")
    data = _passed(data, name, tf.where(tiff, "it is a TIFF", "it is no JPEG, PNG, GIF, WebP or BMP"))
    return tf.zeros((1, 1, 3), tf.uint8), tf.cast(tf.strings.length(data), tf.int64)


def _passed(value: tf.Tensor, name: tf.Tensor, *troubles: tf.Tensor) -> tf.Tensor:
    """The value, where there is no trouble; raises what the first of them says."""
    first = tf.constant("")
    for trouble in troubles:
        first = tf.where(first == "", trouble, first)
    said = tf.strings.join([name, ": cannot be decoded here to the pixels the model was made for: ", first, "; ", _NEXT])
    with tf.control_dependencies([tf.debugging.Assert(first == "", [said])]):
        return tf.identity(value)


def _large(height: tf.Tensor, width: tf.Tensor, limit: int = MAX_PIXELS) -> tf.Tensor:
    return tf.where(height * width > limit, f"it has more than {limit:,} pixels", "")


def _on_white(samples: tf.Tensor) -> tf.Tensor:
    """Samples (h, w, 4) laid on white, as Pillow's `alpha_composite` does it (AlphaComposite.c), which fits in 16 bits."""
    colour, opacity = tf.cast(samples[..., :3], tf.uint16), tf.cast(samples[..., 3:], tf.uint16)
    mixed = colour * opacity + (255 - opacity) * 255 + 128
    return tf.cast(tf.bitwise.right_shift(mixed + tf.bitwise.right_shift(mixed, 8), 8), tf.uint8)
