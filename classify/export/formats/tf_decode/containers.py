"""Read the metadata of image files as TensorFlow operations, in the way that Pillow's plugins do.

In each of the tuples, `offset` is where reading goes on, and `trouble` says why Pillow might read something else, "" where
nothing does.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .byte_ops import has_bytes_at, read_uint, slice_bytes

_EXIF = b"Exif\0\0"
_XMP_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_PNG = b"XML:com.adobe.xmp\0"
_METADATA_TEXT = r"(?:Raw profile type exif|XML:com\.adobe\.xmp|xmp|exif|transparency)\x00\C*"


class JpegMetadata(NamedTuple):
    """The segments of a JPEG file before its pixels.

    `offset` ends at the first scan of pixels. `frame` is the offset of the header of a progressive frame, 0 where there
    is none.
    """

    offset: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    trouble: tf.Tensor
    frame: tf.Tensor
    is_done: tf.Tensor


class PngMetadata(NamedTuple):
    """The chunks of a PNG file; `pixels` says whether the chunk with the pixels was passed."""

    offset: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    trouble: tf.Tensor
    transparent: tf.Tensor
    pixels: tf.Tensor
    is_done: tf.Tensor


class WebpMetadata(NamedTuple):
    """The chunks of a WebP file; `opaque` is what the header says."""

    offset: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    trouble: tf.Tensor
    opaque: tf.Tensor


class GifMetadata(NamedTuple):
    """The blocks of a GIF file up to the end of its first frame; `image` says whether sub-blocks hold pixels."""

    offset: tf.Tensor
    trouble: tf.Tensor
    in_sub_blocks: tf.Tensor
    image: tf.Tensor
    is_done: tf.Tensor


def parse_jpeg(data: tf.Tensor) -> JpegMetadata:
    """Read the metadata of a JPEG file."""
    size = _count_bytes(data)

    def read_segment(state: JpegMetadata) -> tuple[JpegMetadata]:
        offset, marker = state.offset, read_uint(data, state.offset + 1, 1)
        has_marker = has_bytes_at(data, b"\xff", offset)
        is_standalone = (marker >= 0xD0) & (marker <= 0xD9)
        is_segment = has_marker & (marker >= 0xC0) & (marker < 0xFF) & ~is_standalone
        length = tf.maximum(read_uint(data, offset + 2, 2), 2)
        content = slice_bytes(data, offset + 4, tf.where(is_segment & (marker == 0xE1), length - 2, 0))
        exif_part = tf.where(has_bytes_at(content, _EXIF), slice_bytes(content, _to_int64(len(_EXIF)), length), b"")
        xmp = tf.where(has_bytes_at(content, _XMP_JPEG), slice_bytes(content, _to_int64(len(_XMP_JPEG)), length), state.xmp)
        trouble = tf.where(has_marker & (marker > 0) & (marker < 0xC0), "it has a segment of an unknown kind", state.trouble)
        frame, is_scan = tf.where(is_segment & (marker == 0xC2), offset, state.frame), is_segment & (marker == 0xDA)
        step = tf.where(is_segment, 2 + length, tf.where(~has_marker | (marker == 0xFF), _to_int64(1), 2))
        exif = tf.strings.join([state.exif, exif_part])
        return (JpegMetadata(tf.where(is_scan, offset, offset + step), exif, xmp, trouble, frame, is_scan),)

    start = JpegMetadata(
        _to_int64(2), tf.constant(_EXIF), _make_empty_string(), _make_empty_string(), _to_int64(0), tf.constant(False)
    )
    end: JpegMetadata = tf.while_loop(
        lambda state: ~state.is_done & (state.offset + 4 <= size), read_segment, (start,), parallel_iterations=1
    )[0]
    return end


def parse_png(data: tf.Tensor) -> PngMetadata:
    """Read the metadata of a PNG file."""
    size = _count_bytes(data)

    def read_chunk(state: PngMetadata) -> tuple[PngMetadata]:
        length, chunk_type, offset = (
            read_uint(data, state.offset, 4),
            slice_bytes(data, state.offset + 4, _to_int64(4)),
            state.offset + 8,
        )
        pixels = state.pixels | (chunk_type == b"IDAT")
        is_text = (chunk_type == b"iTXt") | (chunk_type == b"tEXt") | (chunk_type == b"zTXt")
        content = slice_bytes(data, offset, tf.where(is_text | (chunk_type == b"eXIf"), length, 0))
        is_plain_xmp = (chunk_type == b"iTXt") & has_bytes_at(content, _XMP_PNG + b"\0")  # which is not compressed
        is_unsupported = is_text & ~is_plain_xmp & tf.strings.regex_full_match(content, _METADATA_TEXT)
        trouble = tf.where(is_unsupported, "it keeps metadata as text", state.trouble)
        trouble = tf.where((chunk_type == b"tRNS") & pixels, "its transparency comes after its pixels", trouble)
        is_done = (chunk_type == b"IEND") | ((chunk_type == b"fcTL") & state.pixels)
        exif = tf.where(chunk_type == b"eXIf", tf.strings.join([_EXIF, content]), state.exif)
        xmp = tf.where(is_plain_xmp, content, state.xmp)
        return (
            PngMetadata(
                offset + length + 4, exif, xmp, trouble, state.transparent | (chunk_type == b"tRNS"), pixels, is_done
            ),
        )

    false = tf.constant(False)
    start = PngMetadata(_to_int64(8), _make_empty_string(), _make_empty_string(), _make_empty_string(), false, false, false)
    end: PngMetadata = tf.while_loop(
        lambda state: ~state.is_done & (state.offset + 8 <= size), read_chunk, (start,), parallel_iterations=1
    )[0]
    return end


def parse_webp(data: tf.Tensor) -> WebpMetadata:
    """Read the metadata of a WebP file; like the decoder, only what the flags of its header announce."""
    size = read_uint(data, 4, 4, little_endian=True) + 8
    limit = tf.minimum(size, _count_bytes(data))
    extended, flags = has_bytes_at(data, b"VP8X", 12), read_uint(data, 20, 1)
    bits = {"clear": 16, "exif": 8, "xmp": 4, "moves": 2}
    announced = {name: extended & (tf.bitwise.bitwise_and(flags, bit) > 0) for name, bit in bits.items()}

    def read_chunk(state: WebpMetadata) -> tuple[WebpMetadata]:
        chunk_type, length = (
            slice_bytes(data, state.offset, _to_int64(4)),
            read_uint(data, state.offset + 4, 4, little_endian=True),
        )
        is_first = {name: tf.strings.length(getattr(state, name)) == 0 for name in ("exif", "xmp")}
        is_exif, is_xmp = (
            (chunk_type == b"EXIF") & announced["exif"] & is_first["exif"],
            (chunk_type == b"XMP ") & announced["xmp"] & is_first["xmp"],
        )
        content = slice_bytes(data, state.offset + 8, tf.where(is_exif | is_xmp, length, 0))
        exif, xmp = tf.where(is_exif, content, state.exif), tf.where(is_xmp, content, state.xmp)
        return (WebpMetadata(state.offset + 8 + length + length % 2, exif, xmp, state.trouble, state.opaque),)

    start = WebpMetadata(
        _to_int64(12),
        _make_empty_string(),
        _make_empty_string(),
        tf.where(announced["moves"], "it is animated", ""),
        extended & ~announced["clear"],
    )
    end: WebpMetadata = tf.while_loop(lambda state: state.offset + 8 <= limit, read_chunk, (start,), parallel_iterations=1)[
        0
    ]
    return end._replace(trouble=tf.where((end.offset == size) & (size <= _count_bytes(data)), end.trouble, "it is damaged"))


def parse_gif(data: tf.Tensor) -> GifMetadata:
    """Read the metadata of a GIF file up to the end of its first frame."""
    size, screen = _count_bytes(data), slice_bytes(data, _to_int64(6), _to_int64(4))

    def read_sub_block(state: GifMetadata) -> GifMetadata:
        length = read_uint(data, state.offset, 1)
        is_last = length == 0
        return GifMetadata(state.offset + 1 + length, state.trouble, ~is_last, state.image, is_last & state.image)

    def read_block(state: GifMetadata) -> GifMetadata:
        offset = state.offset
        is_extension, is_image = has_bytes_at(data, b"!", offset), has_bytes_at(data, b",", offset)
        is_transparent = has_bytes_at(data, b"!\xf9", offset) & (read_uint(data, offset + 3, 1) % 2 == 1)
        fills_screen = (read_uint(data, offset + 1, 4) == 0) & (slice_bytes(data, offset + 5, _to_int64(4)) == screen)
        trouble = tf.where(is_transparent, "it has a transparent colour", state.trouble)
        trouble = tf.where(is_image & ~fills_screen, "its first frame does not fill it", trouble)
        step = tf.where(
            is_image, 11 + _count_palette_bytes(read_uint(data, offset + 9, 1)), tf.where(is_extension, _to_int64(2), 1)
        )
        return GifMetadata(offset + step, trouble, is_extension | is_image, is_image, has_bytes_at(data, b";", offset))

    def read_next(state: GifMetadata) -> tuple[GifMetadata]:
        return (tf.cond(state.in_sub_blocks, lambda: read_sub_block(state), lambda: read_block(state)),)

    false = tf.constant(False)
    is_known_version = has_bytes_at(data, b"GIF87a") | has_bytes_at(data, b"GIF89a")
    start = GifMetadata(
        13 + _count_palette_bytes(read_uint(data, 10, 1)),
        tf.where(is_known_version, "", "it is of an unknown version"),
        false,
        false,
        false,
    )
    end: GifMetadata = tf.while_loop(
        lambda state: ~state.is_done & (state.offset < size), read_next, (start,), parallel_iterations=1
    )[0]
    return end._replace(trouble=tf.where(end.is_done & end.image, end.trouble, "it is cut short"))


def _count_palette_bytes(flags: tf.Tensor) -> tf.Tensor:
    """The size in bytes of the palette that the flags of a GIF announce."""
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(_to_int64(2), flags % 8), 0)


def _count_bytes(data: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(data), tf.int64)


def _to_int64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def _make_empty_string() -> tf.Tensor:
    return tf.constant("")
