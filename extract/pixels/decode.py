"""The one definition of pixels: file bytes -> oriented RGB uint8 at the backbone's size.

Extraction, prediction and parity checks all come through here. Whatever changes a pixel changes `version()`, and with it
the key of every feature.
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
    """An image that is not used. `reason` is a short stable code, the text says more.

    Codes: empty, not_an_image, unsupported, too_large, damaged, and for this time only no_memory, unreadable, not_a_file.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def get_version() -> str:
    """The version of this function and of the decoders that decide its result."""
    pillow = features.version("pil") or "?"
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"1, Pillow {pillow.split('.')[0]}, libjpeg {jpeg}"


def detect_format(data: bytes) -> str:
    """The format of the file's bytes, judged by its first bytes (names lie); raises `ImageRejected`."""
    if not data:
        raise ImageRejected("empty", "the file is empty")
    for name, magic, offset in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    raise ImageRejected("not_an_image", f"expected {', '.join(FORMATS)}, found bytes {data[:8]!r}")


def decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 (height, width, 3) of an encoded image, resized to `size` = (height, width).

    The whole image is squeezed to the size by antialiased bilinear interpolation (Keras's `image_dataset_from_directory`
    also keeps the whole image, but does not antialias). EXIF orientation is applied, transparency is laid on white, 16-bit
    samples lose their low byte, animations give their first frame. A JPEG more than twice as large as needed is decoded
    at a reduced DCT scale of at least twice the size. Raises `ImageRejected`.
    """
    name = detect_format(data)
    height, width = size
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            limit, format_note = (MAX_WEBP_PIXELS, " of a WebP image") if name == "WEBP" else (MAX_PIXELS, "")
            if image.width * image.height > limit:
                raise ImageRejected(
                    "too_large", f"expected at most {limit:,} pixels{format_note}, found {image.width:,} x {image.height:,}"
                )
            min_draft_side = 2 * max(height, width)
            image.draft("RGB", (min_draft_side, min_draft_side))
            rgb_image = _to_rgb(_apply_exif_orientation(image))
            return np.asarray(rgb_image.resize((width, height), Image.Resampling.BILINEAR))
    except UnidentifiedImageError as error:
        raise ImageRejected("damaged", f"the {name} header cannot be read") from error
    except Image.DecompressionBombError as error:
        raise ImageRejected("too_large", f"expected at most {MAX_PIXELS:,} pixels") from error
    except _DECODE_ERRORS as error:
        raise ImageRejected("damaged", f"{name}: {error}") from error
    except MemoryError as error:
        raise ImageRejected("no_memory", "not enough memory to decode it now") from error


def fit_size(data: bytes, side: int) -> tuple[int, int]:
    """(height, width) of an encoded image as it is to be seen, made smaller to fit into a square of `side` pixels.

    Of bytes whose header cannot be read it is the square itself: `decode` then says what is wrong with them.
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
    """The image turned as its EXIF says. Pillow's `exif_transpose` also writes the metadata anew, and fails on odd ones."""
    image.load()  # which turns a TIFF by itself, and takes the tag away
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
    """The image laid on the background, part by part: three more copies of a large one would take a gigabyte."""
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
    """32-bit samples: integers are 16-bit values in a wider box, floating point has no agreed scale."""
    samples = np.asarray(image)
    if image.mode == "F" or samples.min(initial=0) < 0 or samples.max(initial=0) > 0xFFFF:
        raise ImageRejected("unsupported", f"expected 8- or 16-bit samples, found mode {image.mode}")
    return Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")
