"""Decoding: common formats are decoded correctly, everything else is rejected with a reason, and nothing crashes."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from humeris.extract.pixels import decode as pixels
from humeris.extract.pixels.decode import ImageRejected, decode, detect_format

# Pillow warns of odd metadata; humeris switches that off at import, pytest switches it on again.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

SIZE = (24, 32)


def smooth(width: int, height: int) -> np.ndarray:
    """A smooth RGB picture, different in every corner."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (np.stack([x, y, (x + y) / 2], axis=-1) * 215 + 20).astype(np.uint8)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


PICTURE = Image.fromarray(smooth(64, 48))
GREY16 = (np.linspace(0, 65535, 64 * 48).reshape(48, 64)).astype(np.uint16)
PLAIN = np.asarray(PICTURE.resize((32, 24), Image.Resampling.BILINEAR)).astype(int)


def close(data: bytes, expected: np.ndarray = PLAIN, most: float = 3.0) -> None:
    found = decode(data, SIZE)
    assert found.dtype == np.uint8
    assert found.shape == (*SIZE, 3)
    assert np.abs(found.astype(int) - expected).mean() < most


def refused(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode(data, SIZE)
    assert "\n" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("PNG", {"interlace": 1}),
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 0, "icc_profile": b"not a profile"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
    ],
)
def test_every_format_gives_the_same_picture(form: str, options: dict[str, Any]) -> None:
    data = saved(PICTURE, form, **options)
    assert detect_format(data) == form
    close(data)


def test_a_gif_gives_its_palette_colours() -> None:
    close(saved(PICTURE, "GIF"), most=12)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    black = Image.new("RGB", (64, 48))
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        close(saved(PICTURE, form, save_all=True, append_images=[black, black]), most=12)


def test_the_size_is_height_then_width() -> None:
    assert decode(saved(PICTURE, "PNG"), (10, 20)).shape == (10, 20, 3)


def test_small_images_are_enlarged_and_one_pixel_is_an_image() -> None:
    data = saved(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG")
    assert (decode(data, SIZE) == (10, 20, 30)).all()


def test_reduction_is_antialiased() -> None:
    checks = ((np.indices((480, 640)).sum(axis=0) % 2) * 255).astype(np.uint8)
    found = decode(saved(Image.fromarray(checks), "PNG"), SIZE)
    assert np.abs(found.astype(int) - 127).max() <= 2


def test_grey_is_three_equal_channels() -> None:
    found = decode(saved(PICTURE.convert("L"), "PNG"), SIZE)
    assert (found[..., 0] == found[..., 1]).all()
    assert (found[..., 0] == found[..., 2]).all()
    close(saved(PICTURE.convert("L"), "JPEG", quality=95), found.astype(int))


def test_one_bit_images_are_black_and_white() -> None:
    found = decode(saved(Image.new("1", (8, 8), 1), "PNG"), SIZE)
    assert (found == 255).all()


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_loses_its_low_byte_and_is_not_clipped(order: str) -> None:
    mode = "I;16" if order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (64, 48), GREY16.astype(order).tobytes())
    expected = np.asarray(
        Image.fromarray((GREY16 >> 8).astype(np.uint8)).convert("RGB").resize((32, 24), Image.Resampling.BILINEAR)
    ).astype(int)
    forms = ["TIFF"] if order == ">u2" else ["TIFF", "PNG"]
    for form in forms:
        data = saved(image, form)
        close(data, expected, most=1.0)
    assert 120 < expected.mean() < 135


def test_16_bit_rgb_is_not_clipped() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in smooth(64, 48).astype(np.uint16) << 8)
    data = png(64, 48, rows, depth=16, colour=2)
    close(data)


def test_cmyk_comes_out_in_its_colours() -> None:
    close(saved(PICTURE.convert("CMYK"), "JPEG", quality=95), most=6)
    close(saved(PICTURE.convert("CMYK"), "TIFF"), most=6)


def test_ycbcr_and_lab_come_out_in_their_colours() -> None:
    close(saved(PICTURE.convert("YCbCr"), "TIFF"), most=4)


def half_transparent(mode: str) -> Image.Image:
    image = PICTURE.convert("RGBA")
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    image.putalpha(Image.fromarray(alpha))
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("LA", "PNG")])
def test_what_is_transparent_is_white_whatever_colour_lies_under_it(mode: str, form: str) -> None:
    data = saved(half_transparent(mode), form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    found = decode(data, SIZE).astype(int)
    assert (found[:, :14] == 255).all()
    expected = PLAIN if mode == "RGBA" else np.asarray(PICTURE.convert("L").convert("RGB").resize((32, 24))).astype(int)
    assert np.abs(found[:, 18:] - expected[:, 18:]).mean() < 4


def see_through(kind: str) -> Image.Image:
    """Every kind of partial transparency in Pillow, with random colors and opacities."""
    random = np.random.default_rng(3)
    if kind in {"RGBA", "LA", "PA", "RGBa"}:
        image = Image.fromarray(random.integers(0, 256, (37, 53, 4), np.uint8), "RGBA")
        return image.convert(kind)
    image = Image.fromarray(random.integers(0, 256, (37, 53, 3), np.uint8))
    mode, _, how = kind.partition(" ")
    image = image.convert(mode)
    image.info["transparency"] = {
        "entry": image.getpixel((5, 7)),
        "entries": random.bytes(256),
        "black": 0,
    }[how]
    return image


@pytest.mark.parametrize("part", [1, 7, 100, 1000, 1 << 20])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "PA", "RGBa", "P entry", "P entries", "L entry", "1 black", "RGB entry"])
def test_an_image_laid_on_white_part_by_part_is_the_same_as_at_once(
    kind: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = see_through(kind)
    layer = image.convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    monkeypatch.setattr(pixels, "_TILE_PIXELS", part)
    found = pixels._to_rgb(image)
    assert (found.mode, found.size, found.tobytes()) == (whole.mode, whole.size, whole.tobytes())
    assert whole.tobytes() != image.convert("RGB").tobytes()


def test_a_webp_has_a_limit_of_its_own_because_its_decoder_needs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_WEBP_PIXELS", 64 * 48)
    picture = Image.new("RGBA", (64, 48), (1, 2, 3, 4))
    decode(saved(picture, "WEBP"), SIZE)
    larger = Image.new("RGBA", (64, 49), (1, 2, 3, 4))
    with pytest.raises(ImageRejected, match="64 x 49 pixels exceed the limit of 3,072 pixels of a WebP image") as refused:
        decode(saved(larger, "WEBP"), SIZE)
    assert refused.value.reason == "too_large"
    decode(saved(larger, "PNG"), SIZE)


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (4, 0, 8, 8))
    found = decode(saved(image, "PNG", transparency=0), (8, 8))
    assert (found[:, :3] == 255).all()
    assert (found[:, 5:] == (0, 255, 0)).all()
    found = decode(saved(image, "GIF", transparency=0), (8, 8))
    assert (found[:, :3] == 255).all()


def test_a_palette_with_graded_transparency_is_laid_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 0, 255, 0])
    found = decode(saved(image, "PNG", transparency=b"\x80\xff"), (8, 8))
    assert np.abs(found.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "I;16"])
def test_a_transparent_colour_of_a_plain_image_is_no_crash(mode: str) -> None:
    image = Image.new(mode, (8, 8), 0)
    found = decode(saved(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0), (8, 8))
    assert found.shape == (8, 8, 3)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 3),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](np.asarray(PICTURE))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    close(saved(stored, form, exif=exif, **({"quality": 95} if form in {"JPEG", "WEBP"} else {})))


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_is_passed_over(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    close(saved(PICTURE, "JPEG", quality=95, exif=exif))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abcd",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0" + bytes(4),
        b"garbage" * 5,
    ],
)
def test_broken_exif_does_not_cost_the_image(exif: bytes) -> None:
    close(saved(PICTURE, "JPEG", quality=95, exif=exif))


def test_a_large_jpeg_decoded_at_reduced_scale_is_close_to_the_full_decode() -> None:
    """Mean absolute difference below 1.5 of 255, worst pixel below 8: the tolerance the reduced scale is allowed."""
    data = saved(Image.fromarray(smooth(1200, 900)), "JPEG", quality=92)
    for size in ((64, 64), (96, 96), (224, 224)):
        with Image.open(io.BytesIO(data)) as image:
            full = np.asarray(image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)).astype(int)
        difference = np.abs(decode(data, size).astype(int) - full)
        assert difference.mean() < 1.5
        assert difference.max() < 8


def test_the_reduced_scale_leaves_at_least_twice_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    real = Image.Image.resize

    def resize(self: Image.Image, *args: Any, **options: Any) -> Image.Image:
        seen.append(self.size)
        return real(self, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    for width, height in ((1200, 900), (300, 2000), (129, 128), (127, 127), (4000, 200)):
        decode(saved(Image.fromarray(smooth(width, height)), "JPEG"), (64, 48))
        (found,) = seen
        seen.clear()
        assert min(found) >= min(128, width, height)
    decode(saved(Image.fromarray(smooth(1200, 1200)), "JPEG"), (64, 64))
    assert max(seen.pop()) <= 300


def test_decoding_is_repeatable() -> None:
    data = saved(PICTURE, "JPEG")
    assert all(np.array_equal(decode(data, SIZE), decode(data, SIZE)) for _ in range(5))


def test_metadata_of_an_odd_type_does_not_cost_an_image_that_must_be_turned() -> None:
    """BitsPerSample as text: Pillow reads it, and fails to write it again."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x02\0\x02\0\0\0\x04text\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    stored = Image.fromarray(np.ascontiguousarray(UPRIGHT[6](np.asarray(PICTURE))))
    close(saved(stored, "JPEG", quality=95, exif=exif))


# --- refused


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, level: int = 9) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, level)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def float_tiff(samples: np.ndarray) -> bytes:
    return saved(Image.fromarray(samples.astype(np.float32)), "TIFF")


JPEG, PNG, GIF, WEBP, BMP, TIFF = (saved(PICTURE, form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"))


def _garbled(data: bytes, seed: int = 0, share: float = 0.5) -> bytes:
    at = int(len(data) * share)
    return data[:at] + np.random.default_rng(seed).bytes(40) + data[at + 40 :]


BAD: dict[str, tuple[bytes, set[str]]] = {
    "empty": (b"", {"empty"}),
    "one byte": (b"\xff", {"not_an_image"}),
    "html": (b"<!DOCTYPE html><html>404</html>", {"not_an_image"}),
    "text": (b"a picture of a cat", {"not_an_image"}),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', {"not_an_image"}),
    "json": (b'{"error": "quota"}', {"not_an_image"}),
    "zeros": (bytes(1000), {"not_an_image"}),
    "noise": (np.random.default_rng(3).bytes(1000), {"not_an_image"}),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), {"damaged"}),
    "half an avif": (saved(PICTURE, "AVIF")[:200], {"damaged"}),
    "pdf": (b"%PDF-1.7\n%" + bytes(100), {"not_an_image"}),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {"not_an_image"}),
    "zip": (b"PK\x03\x04" + bytes(60), {"not_an_image"}),
    "icon": (saved(PICTURE, "ICO"), {"not_an_image"}),
    "half a ppm": (saved(PICTURE, "PPM")[:200], {"damaged"}),
    "half a jpeg 2000": (saved(PICTURE, "JPEG2000")[:60], {"damaged"}),
    "tga": (saved(PICTURE, "TGA"), {"not_an_image"}),
    "riff sound": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), {"not_an_image"}),
    "utf-8 mark before png": (b"\xef\xbb\xbf" + PNG, {"not_an_image"}),
    "png with line ends converted": (PNG.replace(b"\r\n", b"\n"), {"not_an_image"}),
    "jpeg half": (JPEG[: len(JPEG) // 2], {"damaged"}),
    "jpeg header only": (JPEG[:200], {"damaged"}),
    "jpeg magic only": (b"\xff\xd8\xff", {"damaged"}),
    "jpeg two bytes short": (JPEG[:-2], {"damaged", ""}),
    "jpeg garbled header": (_garbled(JPEG, share=0.02), {"damaged", ""}),
    "png half": (PNG[: len(PNG) // 2], {"damaged"}),
    "png header only": (PNG[:33], {"damaged"}),
    "png magic only": (PNG[:8], {"damaged"}),
    "png garbled": (_garbled(PNG), {"damaged"}),
    "png without pixels": (PNG[:33] + chunk(b"IEND", b""), {"damaged"}),
    "png of no width": (png(0, 5, b""), {"damaged", "too_large"}),
    "png of unknown colour type": (png(4, 4, b"\0" * 52, colour=7), {"damaged"}),
    "png with too few rows": (png(64, 48, b"\0" * 500), {"damaged"}),
    "png header lies": (png(65_000, 65_000, b"\0" * 500), {"too_large"}),
    "png claims 2^31": (png(2**31 - 1, 2**31 - 1, b"\0"), {"too_large", "damaged"}),
    "png bomb in a text chunk": (PNG[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(90_000_000))) + PNG[33:],
                                 {"damaged"}),
    "gif half": (GIF[: len(GIF) // 2], {"damaged"}),
    "gif header only": (GIF[:13], {"damaged"}),
    "gif claims 65535": (GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:], {"too_large", "damaged"}),
    "webp half": (WEBP[: len(WEBP) // 2], {"damaged"}),
    "webp header only": (WEBP[:16], {"damaged"}),
    "webp garbled": (_garbled(WEBP, share=0.3), {"damaged", ""}),
    "bmp half": (BMP[: len(BMP) // 2], {"damaged"}),
    "bmp header only": (BMP[:30], {"damaged"}),
    "bmp claims 2^31": (BMP[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + BMP[26:], {"too_large", "damaged"}),
    "tiff half": (TIFF[: len(TIFF) // 2], {"damaged"}),
    "tiff header only": (TIFF[:8], {"damaged"}),
    "tiff with a loop": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", {"damaged"}),
    "float tiff": (float_tiff(np.linspace(0, 1, 64 * 48).reshape(48, 64)), {"unsupported"}),
    "float tiff with NaN": (float_tiff(np.full((48, 64), np.nan)), {"unsupported"}),
    "32-bit tiff beyond 16 bits": (saved(Image.fromarray(np.full((8, 8), 2**20, np.int32)), "TIFF"), {"unsupported"}),
    "negative tiff": (saved(Image.fromarray(np.full((8, 8), -5, np.int32)), "TIFF"), {"unsupported"}),
}  # fmt: skip


def outcome_of(data: bytes) -> str:
    """The reason of a rejection; "" if the image is decoded."""
    try:
        found = decode(data, SIZE)
    except ImageRejected as error:
        return error.reason
    assert found.shape == (*SIZE, 3)
    assert found.dtype == np.uint8
    return ""


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_has_one_outcome_with_a_reason(name: str) -> None:
    data, reasons = BAD[name]
    outcome = outcome_of(data)
    assert outcome in reasons


def test_there_are_many_kinds_of_bad_images() -> None:
    assert len(BAD) >= 40


def test_32_bit_samples_of_16_bit_values_are_taken() -> None:
    image = Image.fromarray(GREY16.astype(np.int32))
    found = decode(saved(image, "TIFF"), SIZE)
    assert 115 < found.mean() < 140


def test_content_decides_and_not_the_name() -> None:
    assert detect_format(PNG) == "PNG"
    assert detect_format(b"\xff\xd8\xff\xe0") == "JPEG"
    with pytest.raises(ImageRejected):
        detect_format(b"BA")


def _plain(width: int, height: int) -> bytes:
    rows = zlib.compressobj(1)
    line = b"\0" * (1 + width)
    data = b"".join(rows.compress(line) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


_BOMB = """
import json, resource, sys, time
from humeris.extract.pixels.decode import ImageRejected, decode
data = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
try:
    decode(data, (64, 64))
    reason = "decoded"
except ImageRejected as refused:
    reason = refused.reason
print(json.dumps([reason, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.monotonic() - began]))
"""


@pytest.mark.parametrize(("side", "outcome"), [(8001, "too_large"), (13500, "too_large"), (7990, "decoded")])
def test_a_decompression_bomb_is_refused_before_it_takes_memory(side: int, outcome: str, tmp_path: Any) -> None:
    """64 million pixels are the limit; below it a grey image costs a byte per pixel and what RGB makes of it."""
    data = _plain(side, side)
    assert len(data) < 2_000_000
    (tmp_path / "bomb.png").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _BOMB, tmp_path / "bomb.png"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    reason, kilobytes, seconds = json.loads(done.stdout)
    assert reason == outcome
    if outcome == "too_large":
        assert kilobytes < 20_000
        assert seconds < 1


def test_no_warning_reaches_the_user_for_odd_images(tmp_path: Any) -> None:
    """Outside pytest, where the filter that the module sets at import is in force."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30)
    (tmp_path / "odd.jpg").write_bytes(saved(PICTURE, "JPEG", exif=exif))
    (tmp_path / "large.png").write_bytes(_plain(9500, 9500))
    code = (
        "import sys\nfrom humeris.extract.pixels.decode import ImageRejected, decode\n"
        "for name in ('odd.jpg', 'large.png'):\n"
        "    try: decode(open(name, 'rb').read(), (8, 8))\n"
        "    except ImageRejected: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- mutations


def flipped(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(random.integers(1, 12)):
        changed[random.integers(len(data))] = random.integers(256)
    return bytes(changed)


def cut(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(1, len(data))]


def spliced(data: bytes, random: np.random.Generator) -> bytes:
    start, stop = sorted(random.integers(0, len(data), 2))
    return data[:stop] + data[start:]


def headed(data: bytes, random: np.random.Generator) -> bytes:
    """Changes among the first hundred bytes, where sizes and types stand."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 5)):
        changed[random.integers(4, 100)] = random.choice([0, 1, 2, 127, 128, 254, 255])
    return bytes(changed)


def with_sums(data: bytes, random: np.random.Generator) -> bytes:
    """A changed PNG with corrected checksums, so that the change reaches the decoder."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        body = bytearray(data[at + 8 : at + 8 + length])
        if body and random.random() < 0.5:
            body[random.integers(len(body))] = random.integers(256)
        parts.append(chunk(data[at + 4 : at + 8], bytes(body)))
        at += 12 + length
    return b"".join(parts)


MUTATIONS: list[Callable[[bytes, np.random.Generator], bytes]] = [flipped, cut, spliced, headed]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "TIFF LZW", "PNG P", "JPEG EXIF", "TIFF 16"])
def test_a_mutated_image_gives_pixels_or_a_refusal_and_nothing_else(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "a description", 72.0
    start = {
        "TIFF LZW": saved(PICTURE, "TIFF", compression="tiff_lzw"),
        "PNG P": saved(PICTURE.convert("P"), "PNG", transparency=b"\x80\x10\xff"),
        "JPEG EXIF": saved(PICTURE, "JPEG", exif=exif),
        "TIFF 16": saved(Image.frombytes("I;16", (64, 48), GREY16.tobytes()), "TIFF"),
    }.get(form) or saved(PICTURE, form)
    mutations = [*MUTATIONS, with_sums] if form.startswith("PNG") else MUTATIONS
    random = np.random.default_rng(len(form))
    outcomes: dict[str, int] = {}
    for number in range(300 if form in {"JPEG", "PNG"} else 120):
        outcome = outcome_of(mutations[number % len(mutations)](start, random))
        assert outcome in {"", "not_an_image", "unsupported", "too_large", "damaged"}
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes.get("damaged", 0) > 5


def test_the_version_names_the_decoders() -> None:
    assert pixels.get_version().startswith("2, Pillow 13, libjpeg ")
