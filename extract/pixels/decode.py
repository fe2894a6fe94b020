"""Image decoding: file bytes to oriented RGB uint8 pixels at the backbone's size.

Extraction, prediction and parity checks all decode here. A change to any pixel must change `get_version()`, and with it the
key of every feature.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from . import tiff
from .file_kinds import describe_kind, find_format

MAX_PIXELS = 64_000_000
MAX_WEBP_PIXELS = 40_000_000  # its decoder holds four copies of four bytes for each of them
# Reasons that hold as long as the bytes do.
PERMANENT_REASONS = {"empty", "not_an_image", "unsupported", "too_large", "damaged", "crashed", "too_slow"}
_BACKGROUND = (255, 255, 255)
_TILE_PIXELS = 1 << 20  # pixels
RANGES = ((1 << 8, 0), (1 << 10, 2), (1 << 12, 4))  # samples below the first are shifted by the second, others by 8
_PHOTOMETRIC, _PLANAR, _BITS, _CHANNELS = 262, 284, 258, 277  # tags of TIFF
_MAX_CHANNELS = 4

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
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it would print errors that are raised as well


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
    return f"2, Pillow {pillow.split('.')[0]}, libjpeg {jpeg}"


def detect_format(data: bytes) -> str:
    """Return the image format by the first bytes, not by the file name; raises `ImageRejected`."""
    if not data:
        raise ImageRejected("empty", "file is empty")
    name = find_format(data)
    if name is None:
        kind = describe_kind(data)
        raise ImageRejected("not_an_image", f"{kind.name}; {kind.remedy}")
    if name == "HEIF":
        _register_heif()
    return name


def _register_heif() -> None:
    """Let Pillow decode HEIC; raises `ImageRejected` if pillow-heif is not installed."""
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        raise ImageRejected("unsupported", "a HEIC image; run `pip install 'humeris[heif]'` to read it") from error
    pillow_heif.register_heif_opener()


def decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode an image and resize it.

    The whole image is resized, without keeping its aspect ratio, by antialiased bilinear interpolation (Keras's
    `image_dataset_from_directory` does the same without antialiasing). EXIF orientation is applied, transparency is
    composited on white (but not where all of an image is transparent), of an animation the first frame is used. Of gray
    samples with more than 8 bits, 8 are used: if none of the image is 256 or more, as they are; else the upper ones of 10,
    12 or 16 bits, whichever hold its largest sample. Of other samples with more than 8 bits the high byte is used. A JPEG
    more than twice as large as needed is decoded at a reduced DCT scale of at least twice the size.

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
            _check_tiff(image)
            min_draft_side = 2 * max(height, width)
            image.draft("RGB", (min_draft_side, min_draft_side))
            rgb_image = _to_rgb(_apply_exif_orientation(image))
            return np.asarray(rgb_image.resize((width, height), Image.Resampling.BILINEAR))
    except UnidentifiedImageError as error:
        channels = tiff.read_tag(data, _CHANNELS) if name == "TIFF" else None
        if channels is not None and channels > _MAX_CHANNELS:
            raise ImageRejected(
                "unsupported", f"a TIFF with {channels} channels; save the three that are to be seen as an RGB image"
            ) from error
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


def _check_tiff(image: Image.Image) -> None:
    """Raise `ImageRejected` for a TIFF that Pillow would decode to something else."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return
    bits: tuple[int, ...] = tags.get(_BITS, (1,)) if isinstance(tags.get(_BITS), tuple) else (1,)
    if tags.get(_PLANAR) == 2 and len(bits) > 1 and max(bits) > 8:
        raise ImageRejected(
            "unsupported", f"a TIFF of {max(bits)} bits with a plane for each channel; save it with interleaved channels"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N"}:
        samples = np.asarray(image).astype(np.uint16)
        return _reduce_samples(~samples if _is_white_zero(image) else samples)
    if image.mode in {"I", "F"}:
        return _convert_32bit(image)
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        return _flatten_transparency(image)
    return image.convert("RGB")


def _is_white_zero(image: Image.Image) -> bool:
    """Return whether samples of 0 are white; Pillow inverts those of up to 8 bits itself."""
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _reduce_samples(samples: np.ndarray) -> Image.Image:
    """Return gray samples as 8 bits."""
    largest = int(samples.max(initial=0))
    shift = next((shift for limit, shift in RANGES if largest < limit), 8)
    return Image.fromarray((samples >> shift).astype(np.uint8)).convert("RGB")


def _flatten_transparency(image: Image.Image) -> Image.Image:
    """Composite the image on the background, in tiles: three more copies of a large image would take a gigabyte.

    An image that is transparent everywhere would come out blank; its transparency is ignored.
    """
    result = Image.new("RGB", image.size)
    is_hidden = _is_transparent_everywhere(image)
    width = min(image.width, _TILE_PIXELS)
    height = max(1, _TILE_PIXELS // width)
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            box = (left, top, min(left + width, image.width), min(top + height, image.height))
            tile = image.crop(box).convert("RGBA")
            if is_hidden:
                result.paste(tile.convert("RGB"), box)
                continue
            canvas = Image.new("RGBA", tile.size, (*_BACKGROUND, 255))
            result.paste(Image.alpha_composite(canvas, tile).convert("RGB"), box)
    return result


def _is_transparent_everywhere(image: Image.Image) -> bool:
    if image.mode in {"RGBA", "LA", "PA"}:
        return image.getchannel("A").getextrema()[1] == 0
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        opacities = image.info["transparency"]
        counts = enumerate(image.histogram())
        return all(index < len(opacities) and not opacities[index] for index, count in counts if count)
    return False


def _convert_32bit(image: Image.Image) -> Image.Image:
    """Convert 32-bit samples: integers hold 16-bit values; floating point is rejected, as it has no standard scale."""
    samples = np.asarray(image)
    if image.mode == "F" or samples.min(initial=0) < 0 or samples.max(initial=0) > 0xFFFF or _is_white_zero(image):
        raise ImageRejected(
            "unsupported",
            f"{'floating-point' if image.mode == 'F' else '32-bit'} samples of no known range; save it with 8 or 16 bits",
        )
    return _reduce_samples(samples)
