"""Decode images as TensorFlow operations, equal to `extract.pixels.decode` to the last bit, or not at all.

With the right options TensorFlow's own decoders give the very samples that Pillow's do; the rest (the scale that a JPEG is
decoded at, orientation, transparency, resizing) is done here as Pillow does it. This package is imported only where a
SavedModel is written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from .....extract.pixels.decode import MAX_PIXELS, MAX_WEBP_PIXELS, RANGES
from . import containers
from .byte_ops import has_bytes_at, read_uint, slice_bytes
from .orientation import apply_orientation, read_orientation
from .progressive_jpeg import is_unfinished
from .resize import resize

_PARALLEL_IMAGES = 2  # images: a large PNG takes hundreds of megabytes
_REMEDY = "decode it with humeris or Pillow and give the pixels to serving_default, or convert it to an 8-bit RGB PNG"
DecodedImage = tuple[tf.Tensor, tf.Tensor]  # samples (h, w, 3) uint8, orientation as EXIF numbers it


def decode(encoded: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decode image files.

    Some damaged files are decoded that Pillow gives up on: GIFs and WebPs with broken codes, PNGs with wrong checksums.

    Parameters
    ----------
    encoded : tf.Tensor
        Strings (n,), the bytes of image files.
    size : tuple of int
        (height, width) in pixels.

    Returns
    -------
    tf.Tensor
        (n, height, width, 3) uint8.

    Raises
    ------
    tf.errors.InvalidArgumentError
        With the number of the image, for one that would not come out as `extract.pixels.decode` has it: a TIFF, CMYK, a
        progressive JPEG without its last scans, an animated WebP, a GIF with a transparent color or a small first frame, a
        BMP of other than 24 bits, and rare sorts of metadata and transparency.
    """

    def decode_one(numbered_image: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, name = numbered_image[1], tf.strings.join(["image ", tf.strings.as_string(numbered_image[0])])
        samples, orientation = _decode_any(data, name, 2 * max(size))
        return tf.ensure_shape(resize(apply_orientation(samples, orientation), size), (*size, 3))

    with tf.device("/CPU:0"):
        numbered_images = (tf.range(tf.size(encoded)), encoded)
        spec = tf.TensorSpec((*size, 3), tf.uint8)
        return tf.map_fn(decode_one, numbered_images, fn_output_signature=spec, parallel_iterations=_PARALLEL_IMAGES)


def _decode_any(data: tf.Tensor, name: tf.Tensor, min_samples: int) -> DecodedImage:
    signatures = (b"\xff\xd8\xff", 0), (b"\x89PNG\r\n\x1a\n", 0), (b"GIF8", 0), (b"WEBP", 8), (b"BM", 0)
    decoders: list[Callable[[tf.Tensor, tf.Tensor], DecodedImage]] = [
        partial(_decode_jpeg, min_samples=min_samples),
        _decode_png,
        _decode_gif,
        _decode_webp,
        _decode_bmp,
        _reject_other,
    ]
    index = tf.argmax(
        tf.cast(tf.stack([*(has_bytes_at(data, *signature) for signature in signatures), tf.constant(True)]), tf.int32)
    )
    image: DecodedImage = tf.switch_case(tf.cast(index, tf.int32), [partial(decoder, data, name) for decoder in decoders])
    return image


def _decode_jpeg(data: tf.Tensor, name: tf.Tensor, min_samples: int) -> DecodedImage:
    """Decode a JPEG at the smallest scale that leaves `min_samples` along each axis, as Pillow's `draft` chooses it."""
    shape = tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)
    metadata = containers.parse_jpeg(data)
    orientation = read_orientation(metadata.exif, metadata.xmp)
    color_trouble = tf.where((shape[2] == 1) | (shape[2] == 3), "", "its colours are CMYK")
    is_truncated = tf.cond(metadata.frame > 0, lambda: is_unfinished(data, metadata.frame, metadata.offset), lambda: False)
    scan_trouble = tf.where(is_truncated, "its last scans are missing", "")
    data = _assert_no_trouble(
        data,
        name,
        metadata.trouble,
        orientation.trouble,
        color_trouble,
        scan_trouble,
        _describe_oversize(shape[0], shape[1]),
    )
    reduction = tf.minimum(shape[0], shape[1]) // min_samples
    scale_index = sum(tf.cast(reduction >= factor, tf.int32) for factor in (2, 4, 8))
    return tf.switch_case(
        scale_index, [partial(_decode_scaled_jpeg, data, 2**factor) for factor in range(4)]
    ), orientation.value


def _decode_scaled_jpeg(data: tf.Tensor, reduction: int) -> tf.Tensor:
    return tf.io.decode_jpeg(data, 3, ratio=reduction, fancy_upscaling=True, dct_method="INTEGER_ACCURATE")


def _decode_png(data: tf.Tensor, name: tf.Tensor) -> DecodedImage:
    width, height, depth, color_type = (
        read_uint(data, offset, count) for offset, count in ((16, 4), (20, 4), (24, 1), (25, 1))
    )
    metadata = containers.parse_png(data)
    orientation = read_orientation(metadata.exif, metadata.xmp)
    is_gray, has_alpha = (color_type == 0), metadata.transparent
    is_unsupported = has_alpha & ((is_gray & ((depth == 2) | (depth == 4))) | ((color_type == 2) & (depth == 16)))
    data = _assert_no_trouble(
        data,
        name,
        metadata.trouble,
        orientation.trouble,
        tf.where(is_unsupported, "it has a transparent colour of other than 8 bits", ""),
        _describe_oversize(width, height),
    )
    has_alpha = (has_alpha & ~(is_gray & (depth == 16))) | (color_type == 4) | (color_type == 6)
    samples = tf.case(
        [
            (has_alpha, lambda: _blend_on_white(tf.io.decode_png(data, 4))),
            (is_gray & (depth == 16), lambda: _reduce_samples(tf.io.decode_png(data, 1, tf.uint16))),
        ],
        default=lambda: tf.io.decode_png(data, 3),  # of 4 channels the opacity is wrong where samples have less than 8 bits
    )
    return samples, orientation.value


def _decode_gif(data: tf.Tensor, name: tf.Tensor) -> DecodedImage:
    """Decode the first frame of a GIF; what comes after it is cut off and an end put there."""
    metadata = containers.parse_gif(data)
    width, height = read_uint(data, 6, 2, little_endian=True), read_uint(data, 8, 2, little_endian=True)
    data = _assert_no_trouble(data, name, metadata.trouble, _describe_oversize(width, height))
    first_frame = tf.strings.join([slice_bytes(data, tf.constant(0, tf.int64), metadata.offset), b";"])
    return tf.io.decode_gif(first_frame)[0], tf.constant(0, tf.int64)


def _decode_webp(data: tf.Tensor, name: tf.Tensor) -> DecodedImage:
    metadata = containers.parse_webp(data)
    orientation = read_orientation(metadata.exif, metadata.xmp)
    data = _assert_no_trouble(data, name, metadata.trouble, orientation.trouble)
    samples = tf.io.decode_webp(data)[0]
    shape = tf.shape(samples, tf.int64)
    has_alpha = shape[2] == 4
    alpha_trouble = tf.where(metadata.opaque & has_alpha, "its header denies that it is transparent", "")
    samples = _assert_no_trouble(samples, name, alpha_trouble, _describe_oversize(shape[0], shape[1], MAX_WEBP_PIXELS))
    return tf.cond(has_alpha, lambda: _blend_on_white(samples), lambda: samples[..., :3]), orientation.value


def _decode_bmp(data: tf.Tensor, name: tf.Tensor) -> DecodedImage:
    header, depth, compression = (
        read_uint(data, offset, count, little_endian=True) for offset, count in ((14, 4), (28, 2), (30, 4))
    )
    is_plain = ((header == 40) | (header == 108) | (header == 124)) & (depth == 24) & (compression == 0)
    data = _assert_no_trouble(data, name, tf.where(is_plain, "", "it is a BMP of other than 24 plain bits"))
    samples = tf.io.decode_bmp(data, 3)
    shape = tf.shape(samples, tf.int64)
    return _assert_no_trouble(samples, name, _describe_oversize(shape[0], shape[1])), tf.constant(0, tf.int64)


def _reject_other(data: tf.Tensor, name: tf.Tensor) -> DecodedImage:
    is_tiff = has_bytes_at(data, b"II*\0") | has_bytes_at(data, b"MM\0*")
    data = _assert_no_trouble(data, name, tf.where(is_tiff, "it is a TIFF", "it is no JPEG, PNG, GIF, WebP or BMP"))
    return tf.zeros((1, 1, 3), tf.uint8), tf.cast(tf.strings.length(data), tf.int64)


def _assert_no_trouble(value: tf.Tensor, name: tf.Tensor, *troubles: tf.Tensor) -> tf.Tensor:
    """Return the value unchanged; raises the first of the errors, if any."""
    first_trouble = tf.constant("")
    for trouble in troubles:
        first_trouble = tf.where(first_trouble == "", trouble, first_trouble)
    message = tf.strings.join(
        [name, ": cannot be decoded here to the pixels the model was made for: ", first_trouble, "; ", _REMEDY]
    )
    with tf.control_dependencies([tf.debugging.Assert(first_trouble == "", [message])]):
        return tf.identity(value)


def _describe_oversize(height: tf.Tensor, width: tf.Tensor, limit: int = MAX_PIXELS) -> tf.Tensor:
    return tf.where(height * width > limit, f"it has more than {limit:,} pixels", "")


def _reduce_samples(samples: tf.Tensor) -> tf.Tensor:
    """Return gray samples (h, w, 1) uint16 as RGB uint8, as `extract.pixels.decode` does."""
    largest = tf.reduce_max(samples)
    shift = tf.constant(8, tf.uint16)
    for limit, smaller_shift in reversed(RANGES):
        shift = tf.where(largest < limit, tf.constant(smaller_shift, tf.uint16), shift)
    return tf.repeat(tf.cast(tf.bitwise.right_shift(samples, shift), tf.uint8), 3, axis=-1)


def _blend_on_white(samples: tf.Tensor) -> tf.Tensor:
    """Blend samples (h, w, 4) on white in 16 bits, as Pillow's `alpha_composite` does (AlphaComposite.c)."""
    color, opacity = tf.cast(samples[..., :3], tf.uint16), tf.cast(samples[..., 3:], tf.uint16)
    is_hidden = tf.reduce_max(opacity) == 0  # then it is ignored
    opacity = tf.where(is_hidden, tf.constant(255, tf.uint16), opacity)
    blended = color * opacity + (255 - opacity) * 255 + 128
    return tf.cast(tf.bitwise.right_shift(blended + tf.bitwise.right_shift(blended, 8), 8), tf.uint8)
