"""Images as Python users hold them (paths, bytes, open files, Pillow images, arrays), as files or encoded bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image

from ...cache.errors import DataError
from . import tiff

ImageLike: TypeAlias = "Path | str | bytes | IO[bytes] | Image.Image | np.ndarray"
_FORMS = "a path, bytes, an open file, a Pillow image, or a uint8 array (height, width[, channels])"
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


def iter_images(images: Iterable[ImageLike] | ImageLike) -> Iterator[ImageLike]:
    """Yield each image; anything that is one image is one, and an array (n, height, width, channels) is n.

    Raises
    ------
    DataError
        If it is no image and not iterable.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif _is_image(images):
        yield images  # type: ignore[misc]
    elif isinstance(images, Iterable) and not isinstance(images, dict):
        yield from images  # type: ignore[misc]
    else:
        raise DataError(f"images: a {type(images).__name__} is no image; give {_FORMS}, or several of them")


def name_image(image: ImageLike, number: int) -> str:
    """Return the path of an image, or ``image 3`` for one without."""
    return os.fspath(image) if isinstance(image, str | Path) else f"image {number}"


def to_file_or_bytes(image: ImageLike) -> Path | bytes:
    """Return the path of an image file, or an encoded image, as `decode` takes it.

    Parameters
    ----------
    image : path, bytes, file, Pillow image or array
        An array is uint8, (height, width) or (height, width, channels) with 1, 3 or 4 channels: gray, RGB, or RGB and alpha.

    Raises
    ------
    DataError
        If it is none of these.
    """
    if isinstance(image, str | Path):
        return Path(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _encode_pillow(image)
    if isinstance(image, np.ndarray):
        return _encode_array(image)
    if hasattr(image, "read"):
        data = image.read()
        if isinstance(data, bytes):
            return data
        raise DataError(f"images: the file is open as text ({type(image).__name__}); open it with mode 'rb'")
    raise DataError(f"images: a {type(image).__name__} is no image; give {_FORMS}")


def _is_image(value: Any) -> bool:
    kinds = (str, Path, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    return isinstance(value, kinds) or hasattr(value, "read")


def _encode_array(array: np.ndarray) -> bytes:
    if array.dtype != np.uint8:
        scale = " and multiply by 255 first" if array.dtype.kind == "f" else ""
        raise DataError(f"images: an array of {array.dtype}, not of uint8 in 0 to 255; convert it{scale}")
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 3, 4}) or 0 in array.shape:
        raise DataError(f"images: an array of shape {array.shape} is no image; give {_FORMS}")
    return tiff.build_header(*array.shape) + np.ascontiguousarray(array).tobytes()


def _encode_pillow(image: Image.Image) -> bytes:
    if image.mode not in _PNG_MODES:
        if image.mode in {"I", "F"}:
            raise DataError(f"images: a Pillow image of mode {image.mode} has no known range; convert it to mode L or I;16")
        image = image.convert("RGBA" if image.mode in {"PA", "La", "RGBa"} else "RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0, exif=image.getexif())
    return buffer.getvalue()
