"""Files that decode but mean something else come out right or are refused by name; what is no image is named."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from humeris.extract.pixels import decode, tiff
from humeris.extract.pixels.decode import ImageRejected

SIDE = 32
RAMP = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint16)
COLORS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def pixels(data: bytes) -> np.ndarray:
    return decode.decode(data, (SIDE, SIDE))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write_tiff(samples: np.ndarray, photometric: int = 1, planes: int = 1) -> bytes:
    """A TIFF of (h, w) samples, or of (planes, h, w), a plane after the other, as libtiff would write it."""
    bits, (height, width) = samples.dtype.itemsize * 8, samples.shape[-2:]
    body = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    after = 8 + len(body)
    lists = {258: [bits] * planes, 273: [8 + number * len(body) // planes for number in range(planes)],
             279: [len(body) // planes] * planes, 339: [1] * planes}  # fmt: skip
    extra, entries = b"", []
    tags = {256: [width], 257: [height], 259: [1], 262: [photometric], 277: [planes], 278: [height], 284: [1 + (planes > 1)]}
    for tag, values in sorted({**tags, **lists}.items()):
        packed = b"".join(struct.pack("<I", value) for value in values)
        value = packed if len(packed) == 4 else struct.pack("<I", after + len(extra))
        extra += b"" if len(packed) == 4 else packed
        entries.append(struct.pack("<HHI", tag, 4, len(values)) + value)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", after + len(extra)) + body + extra + directory


def gray(samples: np.ndarray) -> np.ndarray:
    return np.repeat(samples.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_gives_the_pixels_of_its_black_is_zero_twin(dtype: type) -> None:
    samples = (RAMP * (1000 if dtype is np.uint16 else 4)).astype(dtype)
    twin = pixels(write_tiff(samples))
    np.testing.assert_array_equal(pixels(write_tiff(np.iinfo(dtype).max - samples, photometric=0)), twin)
    np.testing.assert_array_equal(twin, gray(samples >> (8 if dtype is np.uint16 else 0)))


@pytest.mark.parametrize(("largest", "shift"), [(255, 0), (256, 2), (1023, 2), (1024, 4), (4095, 4), (4096, 8), (65535, 8)])
def test_of_deep_gray_samples_the_bits_that_are_used_are_kept(largest: int, shift: int) -> None:
    samples = (RAMP.astype(np.uint32) * largest // RAMP.max()).astype(np.uint16)
    expected = gray(samples >> shift)
    np.testing.assert_array_equal(pixels(write_tiff(samples)), expected)
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(samples), "PNG")), expected)
    np.testing.assert_array_equal(pixels(write_tiff(samples.astype(np.uint32))), expected)


def test_planes_of_8_bits_are_interleaved_and_planes_of_16_are_refused_by_name() -> None:
    planes = np.moveaxis(COLORS, 2, 0)
    np.testing.assert_array_equal(pixels(write_tiff(planes, photometric=2, planes=3)), COLORS)
    with pytest.raises(ImageRejected, match="a TIFF of 16 bits with a plane for each channel; save it with interleaved"):
        pixels(write_tiff(planes.astype(np.uint16) * 257, photometric=2, planes=3))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.full((SIDE, SIDE), 70_000, np.uint32), "32-bit samples of no known range; save it with 8 or 16 bits"),
        (np.stack([RAMP] * 13), "a TIFF with 13 channels; save the three that are to be seen as an RGB image"),
    ],
)
def test_samples_that_have_no_meaning_as_colors_are_refused_by_name(samples: np.ndarray, message: str) -> None:
    with pytest.raises(ImageRejected, match=message) as caught:
        pixels(write_tiff(samples, planes=len(samples) if samples.ndim == 3 else 1))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_an_image_that_is_transparent_everywhere_does_not_come_out_blank(form: str) -> None:
    image = Image.fromarray(np.dstack([COLORS, np.zeros((SIDE, SIDE), np.uint8)]))
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(pixels(saved(image, form, **options)), COLORS)
    half = Image.fromarray(np.dstack([COLORS, np.tile([[0, 255]], (SIDE, SIDE // 2)).astype(np.uint8)]))
    np.testing.assert_array_equal(pixels(saved(half, form, **options))[:, ::2], 255)


def test_a_palette_that_is_transparent_everywhere_keeps_its_colors() -> None:
    image = Image.fromarray(COLORS).quantize(16)
    data = saved(image, "PNG", transparency=bytes(16))
    np.testing.assert_array_equal(pixels(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PPM", "JPEG2000"])
def test_formats_without_loss_give_the_pixels_that_were_saved(form: str) -> None:
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(COLORS), form)), COLORS)
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(COLORS[..., 0]), form)), gray(COLORS[..., 0]))


def test_avif_and_heic_are_read_with_the_pixels_of_their_own_decoder() -> None:
    import pillow_heif

    smooth = Image.fromarray((COLORS // 64 + 100).astype(np.uint8))
    buffer = io.BytesIO()
    pillow_heif.from_pillow(smooth).save(buffer, quality=100)
    for data in (saved(smooth, "AVIF", quality=100), buffer.getvalue()):
        assert np.abs(pixels(data).astype(int) - np.asarray(smooth)).mean() < 4


def test_heic_without_its_decoder_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageRejected, match=r"a HEIC image; run `pip install 'humeris\[heif\]'` to read it"):
        pixels(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer; fetch the file itself"),
        (b"<!DOCTYPE html><html><body>404", "an HTML page, .*; download the file again"),
        (b"\xef\xbb\xbf\n<html>", "an HTML page"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive .*; unpack it, and give the folder"),
        (b"\x1f\x8b\x08" + bytes(40), "a gzip archive"),
        (bytes(257) + b"ustar\0", "a tar archive"),
        (b"MATLAB 5.0 MAT-file, Platform", "a MATLAB file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 .or MATLAB 7.3. file"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"%PDF-1.7", "a PDF document"),
        (b"8BPS\0\x01", "a Photoshop document"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing; export it as PNG"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "a video; save its frames as images"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"II+\0\x08\0\0\0", "a BigTIFF"),
        (bytes(5000), "nothing but zero bytes, as a broken download or a placeholder of a cloud leaves; get it again"),
        (b"bplist00\xd4", "a property list, perhaps the placeholder of a file in a cloud"),
        (struct.pack("<Q", 30) + bytes(4) + b"\n\x1c\n\x1a\n\x0dimage/encoded" + bytes(40), "a TFRecord file"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"hello", "unknown format: file starts with b'hello'; supported are JPEG, PNG, "),
    ],
)
def test_what_is_no_image_is_named_with_what_to_do(data: bytes, message: str) -> None:
    with pytest.raises(ImageRejected, match=message) as caught:
        pixels(data)
    assert caught.value.reason == "not_an_image"


def test_tags_of_a_torn_tiff_are_none(tmp_path: Path) -> None:
    data = write_tiff(RAMP)
    assert tiff.read_tag(data, 256) == SIDE
    assert {tiff.read_tag(data[:length], 256) for length in (0, 5, 9, 2000)} == {None}
