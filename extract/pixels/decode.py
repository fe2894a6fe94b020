"""Image decoding: file bytes to oriented RGB uint8 pixels at the backbone's size.

Extraction, prediction and parity checks all decode here. A change to any pixel must change `get_version()`, and with it the
key of every feature.
"""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000
MAX_WEBP_PIXELS = 40_000_000  # its decoder holds four copies of four bytes for each of them
# Reasons that hold as long as the bytes do.
PERMANENT_REASONS = {"empty", "not_an_image", "unsupported", "too_large", "damaged", "crashed", "too_slow"}
_BACKGROUND = (255, 255, 255)
_TILE_PIXELS = 1 << 20  # pixels
_MAGIC = (
    ("JPEG", b"\xff\xd8\xff", 0),
    ("PNG", b"\x89PNG\r\n\x1a\n", 0),
    ("GIF", b"GIF8", 0),
    ("WEBP", b"WEBP", 8),
    ("BMP", b"BM", 0),
    ("TIFF", b"II*\x00", 0),
    ("TIFF", b"MM\x00*", 0),
)

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPED_ORIENTATIONS = (5, 6, 7, 8)  # orientations that exchange height and width
# What Pillow's plugins raise on garbled input.
_DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error,
)  # fmt: skip

# Pillow warns of odd metadata and large images; here the outcome of each file says it. `catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageRejected(Exception):
    """An image was rejected. `reason` is a short stable code, the text has the details.

    Codes: empty, not_an_image, unsupported, too_large, damaged; no_memory, unreadable and not_a_file are not permanent.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def get_version() -> str:
    """Return the version of `decode` and of the decoder libraries that determine its result."""
    pillow = features.version("pil") or "?"
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"1, Pillow {pillow.split('.')[0]}, libjpeg {jpeg}"


def detect_format(data: bytes) -> str:
    """Return the image format by the first bytes, not by the file name; raises `ImageRejected`."""
    if not data:
        raise ImageRejected("empty", "file is empty")
    for name, magic, offset in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    raise ImageRejected("not_an_image", f"unknown format: file starts with {data[:8]!r}; supported are {', '.join(FORMATS)}")


def decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode an image and resize it.

    The whole image is resized, without keeping its aspect ratio, by antialiased bilinear interpolation (Keras's
    `image_dataset_from_directory` does the same without antialiasing). EXIF orientation is applied, transparency is
    composited on white, 16-bit samples are reduced to their high byte, of an animation the first frame is used. A JPEG more
    than twice as large as needed is decoded at a reduced DCT scale of at least twice the size.

    Parameters
    ----------
    data : bytes
        The encoded image.
    size : tuple of int
        (height, width) in pixels.

    Returns
    -------
    np.ndarray
        RGB uint8 (height, width, 3).

    Raises
    ------
    ImageRejected
        If the image cannot be used.
    """
    name = detect_format(data)
    height, width = size
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            limit, format_note = (MAX_WEBP_PIXELS, " of a WebP image") if name == "WEBP" else (MAX_PIXELS, " of an image")
            if image.width * image.height > limit:
                raise ImageRejected(
                    "too_large",
                    f"{image.width:,} x {image.height:,} pixels exceed the limit of {limit:,} pixels{format_note}",
                )
            min_draft_side = 2 * max(height, width)
            image.draft("RGB", (min_draft_side, min_draft_side))
            rgb_image = _to_rgb(_apply_exif_orientation(image))
            return np.asarray(rgb_image.resize((width, height), Image.Resampling.BILINEAR))
    except UnidentifiedImageError as error:
        raise ImageRejected("damaged", f"the {name} header cannot be read") from error
    except Image.DecompressionBombError as error:
        raise ImageRejected("too_large", f"exceeds the limit of {MAX_PIXELS:,} pixels of an image") from error
    except _DECODE_ERRORS as error:
        raise ImageRejected("damaged", f"{name}: {error}") from error
    except MemoryError as error:
        raise ImageRejected("no_memory", "not enough free memory to decode it") from error


def fit_size(data: bytes, side: int) -> tuple[int, int]:
    """Return (height, width) of an encoded image after orientation, scaled down to fit a square of `side` pixels.

    If the header cannot be read it is the square itself: `decode` then raises the error.
    """
    try:
        with Image.open(io.BytesIO(data), formats=[detect_format(data)]) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation, 1) in _SWAPPED_ORIENTATIONS:
                width, height = height, width
    except (Image.DecompressionBombError, MemoryError, *_DECODE_ERRORS):
        return side, side
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Pillow's `exif_transpose` also rewrites the metadata, and fails on malformed ones."""
    image.load()  # which rotates a TIFF itself, and removes the tag
    transposition = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if transposition is None else image.transpose(transposition)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N"}:
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        return _convert_32bit(image)
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        return _flatten_transparency(image)
    return image.convert("RGB")


def _flatten_transparency(image: Image.Image) -> Image.Image:
    """Composite the image on the background, in tiles: three more copies of a large image would take a gigabyte."""
    result = Image.new("RGB", image.size)
    width = min(image.width, _TILE_PIXELS)
    height = max(1, _TILE_PIXELS // width)
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            box = (left, top, min(left + width, image.width), min(top + height, image.height))
            tile = image.crop(box).convert("RGBA")
            canvas = Image.new("RGBA", tile.size, (*_BACKGROUND, 255))
            result.paste(Image.alpha_composite(canvas, tile).convert("RGB"), box)
    return result


def _convert_32bit(image: Image.Image) -> Image.Image:
    """Convert 32-bit samples: integers hold 16-bit values; floating point is rejected, as it has no standard scale."""
    samples = np.asarray(image)
    if image.mode == "F" or samples.min(initial=0) < 0 or samples.max(initial=0) > 0xFFFF:
        raise ImageRejected(
            "unsupported", f"unsupported samples: mode {image.mode}; only 8- and 16-bit samples are supported"
        )
    return Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")
