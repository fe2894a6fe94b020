"""Pixels made by TensorFlow operations are Pillow's to the last bit, or the file is refused by name."""

from __future__ import annotations

import io
import itertools
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.pixels import decode

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

SIZE = (24, 32)  # so that a JPEG is reduced from 128 samples on its shorter side
Graph = Callable[[list[bytes]], np.ndarray]


def graph_of(size: tuple[int, int]) -> Graph:
    load_keras()
    import tensorflow as tf

    from humeris.classify.export.formats.tf_decode import decode

    traced = tf.function(lambda files: decode.decode(files, size), [tf.TensorSpec((None,), tf.string)])
    concrete = traced.get_concrete_function()
    return lambda files: np.asarray(concrete(tf.constant(files, tf.string)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(SIZE)


def same(graph: Graph, *files: bytes, size: tuple[int, int] = SIZE) -> None:
    """Compare all, and say which differ."""
    found = graph(list(files))
    assert found.dtype == np.uint8
    assert found.shape == (len(files), *size, 3)
    expected = np.stack([decode.decode(data, size) for data in files])
    off = np.abs(found.astype(int) - expected).reshape(len(files), -1).max(axis=1)
    assert [(number, int(most)) for number, most in enumerate(off) if most] == []
    assert np.ptp(found, axis=(1, 2)).max() > 0


def refused(graph: Graph, data: bytes) -> str:
    """What the graph says of a file, between the number of the image and the advice."""
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        graph([FILES["PNG"], data])
    text = str(caught.value.message)
    assert "image 1: cannot be decoded here to the pixels the model was made for: " in text
    assert (
        "; decode it with humeris or Pillow and give the pixels to serving_default, or convert it to an 8-bit RGB PNG"
        in text
    )
    return text.split("made for: ")[1].split(";")[0]


def drawn(width: int, height: int, channels: int = 3) -> Image.Image:
    """Gradients with noise, another picture for each size."""
    random = np.random.default_rng([width, height])
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    smooth = np.stack([x, y, (x + y) / 2, 1 - x][:channels], axis=-1)
    return Image.fromarray((smooth * 200 + random.integers(0, 55, smooth.shape)).astype(np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


PICTURE = drawn(64, 48)
FILES = {form: saved(PICTURE, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
SHAPES = [(64, 48), (65, 49), (1, 1), (7, 3), (3, 70), (300, 200), (199, 301), (130, 127), (513, 700)]


# --- JPEG


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg(graph: Graph, subsampling: int, progressive: bool, mode: str) -> None:
    options = {"subsampling": subsampling, "progressive": progressive}
    images = [drawn(*shape).convert(mode) for shape in SHAPES]
    same(graph, *(saved(image, "JPEG", quality=quality, **options) for image in images for quality in (15, 75, 97)))


def test_a_jpeg_at_every_scale_on_both_sides_of_where_it_changes(graph: Graph) -> None:
    edges = [63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 520]
    shapes = [*((edge, 600) for edge in edges), *((900, edge) for edge in edges)]
    files = [saved(drawn(*shape), "JPEG") for shape in shapes]
    taken = set()
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * max(SIZE), 2 * max(SIZE)))
            taken.add(image.decoderconfig[0])  # type: ignore[attr-defined]
    assert taken == {1, 2, 4, 8}
    same(graph, *files)


@pytest.mark.parametrize(
    ("subsampling", "factors", "shape"), [(1, 0x12, (64, 96)), (2, 0x41, (128, 32)), (2, 0x14, (32, 128))]
)
@pytest.mark.parametrize("less", [(0, 0), (3, 5), (7, 2)])
def test_a_jpeg_of_rare_sampling(
    graph: Graph, subsampling: int, factors: int, shape: tuple[int, int], less: tuple[int, int]
) -> None:
    """4:4:0, 4:1:1 and its like: as many blocks as there are in the common samplings, so that a header can be changed."""
    blocks = drawn(12, 8) if subsampling == 1 else drawn(8, 8)
    data = bytearray(saved(blocks.resize((blocks.width * 8, blocks.height * 8)), "JPEG", subsampling=subsampling))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", shape[1] - less[1], shape[0] - less[0])
    data[frame + 11] = factors
    same(graph, bytes(data))


def test_a_jpeg_with_odd_segments(graph: Graph) -> None:
    data = FILES["JPEG"]
    inserts = [b"\xff\xff", b"\xff\x00", b"\xff\xfe\0\x06abcd", b"\xff\xe2\0\x0aMPF\0\0\0\xff\xda"]
    same(graph, *(data[:2] + insert + data[2:] for insert in inserts), data + b"more")
    same(
        graph,
        saved(PICTURE, "JPEG", dpi=(300, 300), icc_profile=b"none", comment=b"no"),
        saved(PICTURE, "JPEG", keep_rgb=True),
    )


def scans(data: bytes) -> Iterator[int]:
    """Where the scans of a progressive JPEG begin, with their tables; the first of them is passed over."""
    starts = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] in (0xC4, 0xDA)]
    first = next(at for at in starts if data[at + 1] == 0xDA)
    later = [at for at in starts if at > first]
    return (at for at, before in zip(later, [first, *later], strict=False) if data[before + 1] == 0xDA)


def test_a_progressive_jpeg_without_its_last_scans_is_refused_because_libjpeg_smooths_it(graph: Graph) -> None:
    data = saved(PICTURE, "JPEG", progressive=True)
    cuts = list(scans(data))
    assert len(cuts) >= 8
    same(graph, data)
    for cut in cuts:
        assert decode.decode(data[:cut] + b"\xff\xd9", SIZE).shape == (*SIZE, 3)
        assert refused(graph, data[:cut] + b"\xff\xd9") == "its last scans are missing"


# --- orientation


def exif(
    orientation: int, order: bytes = b"MM", kind: int = 3, count: int = 1, before: bytes = b"", head: bytes = b""
) -> bytes:
    """EXIF whose first directory has an entry (12 bytes, or none) and then the orientation."""
    sign = ">" if order == b"MM" else "<"
    value = struct.pack(sign + ("HH" if kind == 3 else "I"), *((orientation, 0) if kind == 3 else (orientation,)))
    entry = struct.pack(sign + "HHI", 0x0112, kind, count) + value
    start = head or order + struct.pack(sign + "HI", 42, 8)
    return b"Exif\0\0" + start + struct.pack(sign + "H", 1 + len(before) // 12) + before + entry + bytes(4)


def xmp(orientation: int, form: str = 'tiff:Orientation="{}"') -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {form.format(orientation)}/>'.encode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, content: bytes, data: bytes = FILES["PNG"], end: bool = False) -> bytes:
    """The PNG with a chunk more, behind its header or before its end."""
    at = len(data) - 12 if end else 33
    return data[:at] + chunk(kind, content) + data[at:]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", [b"MM", b"II"])
def test_every_orientation_of_exif(graph: Graph, form: str, order: bytes) -> None:
    for kind in (3, 4):
        same(graph, *(saved(PICTURE, form, exif=exif(each, order, kind)) for each in [*range(10), 255, 65535]))


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "wording", ['tiff:Orientation="{}"', "tiff:Orientation>{}</tiff:Orientation", "no:Orientation='{}'"]
)
def test_every_orientation_of_xmp(graph: Graph, form: str, wording: str) -> None:
    files = [saved(PICTURE, form, xmp=xmp(each, wording)) for each in range(10)]
    files.append(saved(PICTURE, form, xmp=b"\xff\xfe\n" + xmp(6, wording) + xmp(3, wording)))
    files.append(saved(PICTURE, form, xmp=xmp(6, wording), exif=exif(3)))
    files.append(saved(PICTURE, form, xmp=xmp(6, wording), exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"))
    same(graph, *files, FILES["BMP"])


def test_every_orientation_of_xmp_in_a_png(graph: Graph) -> None:
    mark = b"XML:com.adobe.xmp\0\0\0\0\0"
    for end, odd in itertools.product((False, True), (b"", b"\xff\xfe")):
        same(graph, *(with_chunk(b"iTXt", mark + odd + xmp(each), end=end) for each in range(10)))
    same(graph, with_chunk(b"eXIf", exif(6)[6:], end=True), with_chunk(b"tEXt", b"Software\0ours"), FILES["PNG"])
    late = saved(PICTURE, "PNG", save_all=True, append_images=[PICTURE])
    at = late.index(b"fdAT") - 4
    same(graph, late[:at] + chunk(b"eXIf", exif(6)[6:]) + late[at:], FILES["PNG"])


TEXT = b"\x01\x02\0\x02\0\0\0"  # another entry: a text of so many bytes at such a place, to be completed
ODD_EXIF = {
    "nothing": b"Exif\0\0",
    "no directory": b"Exif\0\0MM\0*\0\0\0\x08",
    "a directory beyond the end": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "more entries than there is room for": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30),
    "two heads": b"Exif\0\0" + exif(6),
    "a directory elsewhere": exif(6, head=b"MM\0*\0\0\0\x09\0"),
    "a short text before": exif(6, before=TEXT + b"\x04text"),
    "a text beyond the end, after which nothing is read": exif(6, before=TEXT + b"\x10\0\0\0\x30"),
    "a text longer than the file, which is passed over": exif(6, before=TEXT + b"\xff\0\0\xff\xff"),
    "a type that does not exist before": exif(6, before=b"\x01\x02\0\x63\0\0\0\x01abcd"),
    "no values before": exif(6, before=TEXT + b"\0abcd"),
    "no values": exif(6, count=0),
    "twice": exif(6, before=exif(3)[16:28]),
    "cut within the value": exif(6)[:-6],
    "cut after the value": exif(6)[:-4],
}


@pytest.mark.parametrize("name", ODD_EXIF)
def test_odd_exif_is_read_as_pillow_reads_it(graph: Graph, name: str) -> None:
    data = ODD_EXIF[name]
    files = [saved(PICTURE, form, exif=data) for form in ("JPEG", "PNG", "WEBP")]
    same(graph, *files, saved(PICTURE, "WEBP", exif=data[6:] or b"Exif\0\0"), FILES["BMP"])


def test_each_format_may_repeat_the_head_of_its_exif_as_often_as_in_pillow(graph: Graph) -> None:
    """Twice in all, of which a JPEG has one already, and a PNG is taken to have one."""
    bare = exif(6)[6:]
    same(graph, *(with_chunk(b"eXIf", b"Exif\0\0" * heads + bare) for heads in (0, 1)), FILES["PNG"])
    same(graph, *(saved(PICTURE, "JPEG", exif=b"Exif\0\0" * heads + bare) for heads in (1, 2)), FILES["JPEG"])
    same(graph, *(saved(PICTURE, "WEBP", exif=b"Exif\0\0" * heads + bare) for heads in (1, 2, 3)), FILES["WEBP"])
    for more in (with_chunk(b"eXIf", b"Exif\0\0" * 2 + bare), saved(PICTURE, "WEBP", exif=b"Exif\0\0" * 4 + bare)):
        assert refused(graph, more) == "its EXIF has no TIFF header"
        with pytest.raises(decode.ImageRejected, match="not a TIFF file"):
            decode.decode(more, SIZE)


@pytest.mark.parametrize(("bit", "options"), [(8, {"exif": exif(6)}), (4, {"xmp": xmp(6)})])
def test_metadata_that_the_header_of_a_webp_denies_is_passed_over(graph: Graph, bit: int, options: dict[str, bytes]) -> None:
    data = bytearray(saved(PICTURE, "WEBP", **options))
    assert data[20] & bit
    data[20] &= ~bit
    same(graph, bytes(data), FILES["WEBP"])
    assert np.array_equal(*graph([bytes(data), FILES["WEBP"]]))


def test_exif_in_two_segments(graph: Graph) -> None:
    plain, whole = FILES["JPEG"], exif(6, before=TEXT + b"\x04text")
    parts = whole[:20], b"Exif\0\0" + whole[20:]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in parts)
    same(graph, plain[:2] + segments + plain[2:], plain)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_an_orientation_that_is_no_whole_number_or_has_no_header_is_refused(graph: Graph, form: str) -> None:
    for odd in (exif(6, kind=2, count=4), exif(6, count=2), exif(6, kind=7), exif(6, kind=4, count=2)):
        assert refused(graph, saved(PICTURE, form, exif=odd)) == "the orientation in its EXIF is no whole number"
    assert refused(graph, saved(PICTURE, form, exif=b"Exif\0\0MM\0+" + bytes(20))) == "its EXIF has no TIFF header"


def outcome(graph: Graph, data: bytes) -> str:
    """The reason of a refusal; same, different, or (what Pillow refuses) answered."""
    import tensorflow as tf

    try:
        found = graph([data])[0]
    except tf.errors.OpError as error:
        return str(error.message).split("made for: ")[-1].split(";")[0]
    try:
        return "same" if np.array_equal(found, decode.decode(data, SIZE)) else "different"
    except decode.ImageRejected:
        return "answered"


# --- PNG


def png(width: int, height: int, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG of random samples, those of a palette within it."""
    random = np.random.default_rng([width, depth, colour])
    row = (width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth + 7) // 8
    rows = b"".join(b"\0" + random.bytes(row) for _ in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    palette = chunk(b"PLTE", random.bytes(3 << depth)) if colour == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + palette
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


DEPTHS = [
    (1, 0),
    (2, 0),
    (4, 0),
    (8, 0),
    (16, 0),
    (8, 2),
    (16, 2),
    (1, 3),
    (2, 3),
    (4, 3),
    (8, 3),
    (8, 4),
    (16, 4),
    (8, 6),
    (16, 6),
]


@pytest.mark.parametrize(("depth", "colour"), DEPTHS)
def test_a_png_of_every_depth_and_colour(graph: Graph, depth: int, colour: int) -> None:
    same(graph, *(png(width, height, depth, colour) for width, height in SHAPES))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_an_interlaced_png(graph: Graph, mode: str) -> None:
    channels = 4 if mode in {"LA", "RGBA"} else 3
    same(graph, *(saved(drawn(*shape, channels).convert(mode), "PNG", interlace=1) for shape in SHAPES))


@pytest.mark.parametrize(
    ("depth", "colour", "content"),
    [
        (1, 0, b"\0\0"),
        (1, 0, b"\0\1"),
        (8, 0, b"\0\7"),
        (16, 0, b"\0\7"),
        (8, 2, b"\0\7\0\7\0\7"),
        (1, 3, b"\x80"),
        (2, 3, b"\0\xff\x40"),
        (4, 3, b"\xff\xff\0"),
        (8, 3, bytes(range(256))),
        (8, 3, b"\xff" * 9 + b"\0"),
    ],
)
def test_a_png_with_transparent_colours(graph: Graph, depth: int, colour: int, content: bytes) -> None:
    same(
        graph,
        *(png(*shape, depth, colour, chunk(b"tRNS", content)) for shape in [(65, 49), (7, 3), (300, 20)]),
        FILES["BMP"],
    )


def test_a_transparent_colour_of_pixels_that_are_there(graph: Graph) -> None:
    samples = np.asarray(PICTURE).copy()
    samples[::2, ::3] = (7, 32, 51)
    files = [saved(Image.fromarray(samples), "PNG", transparency=(7, 32, 51))]
    files.append(saved(Image.fromarray(samples[..., 0]), "PNG", transparency=7))
    same(graph, *files)
    for data in files:
        assert (
            decode.decode(data, SIZE).astype(int) - decode.decode(saved(Image.fromarray(samples), "PNG"), SIZE)
        ).max() > 50


def test_a_transparent_colour_of_16_bits_is_passed_over_in_grey(graph: Graph) -> None:
    samples = np.where(np.arange(40 * 30).reshape(30, 40) % 3, 7, 60000).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 16, 0, 0, 0, 0)) + chunk(b"tRNS", b"\0\7")
    same(graph, FILES["PNG"][:8] + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def test_every_colour_at_every_opacity_on_white(graph: Graph) -> None:
    colour, opacity = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    every = np.stack([colour, 255 - colour, colour, opacity], axis=-1)
    tiles = every.reshape(8, 32, 8, 32, 4).swapaxes(1, 2).reshape(64, 32, 32, 4)[:, :24]
    rest = every.reshape(8, 32, 8, 32, 4).swapaxes(1, 2).reshape(64, 32, 32, 4)[:, 8:]
    same(graph, *(saved(Image.fromarray(tile), "PNG") for tile in (*tiles, *rest)))


def test_png_chunks_that_change_no_pixel(graph: Graph) -> None:
    chunks = [(b"gAMA", struct.pack(">I", 45455)), (b"bKGD", b"\0\1\0\1\0\1"), (b"cICP", bytes([9, 16, 0, 1]))]
    same(graph, *(with_chunk(*each) for each in chunks), FILES["BMP"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (png(9, 9, 2, 0, chunk(b"tRNS", b"\0\1")), "it has a transparent colour of other than 8 bits"),
        (png(9, 9, 4, 0, chunk(b"tRNS", b"\0\1")), "it has a transparent colour of other than 8 bits"),
        (png(9, 9, 16, 2, chunk(b"tRNS", bytes(6))), "it has a transparent colour of other than 8 bits"),
        (with_chunk(b"tRNS", bytes(6), end=True), "its transparency comes after its pixels"),
        (
            with_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 4\n00000000")),
            "it keeps metadata as text",
        ),
        (with_chunk(b"tEXt", b"exif\0" + exif(6)), "it keeps metadata as text"),
        (with_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(xmp(6))), "it keeps metadata as text"),
        (with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6))), "it keeps metadata as text"),
    ],
)
def test_a_png_that_pillow_might_see_otherwise_is_refused(graph: Graph, data: bytes, why: str) -> None:
    assert refused(graph, data) == why


# --- WebP, GIF, BMP and the rest


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": True, "exact": True}, {"quality": 30}, {"quality": 95}]
)
@pytest.mark.parametrize("channels", [3, 4])
def test_a_webp(graph: Graph, options: dict[str, Any], channels: int) -> None:
    same(graph, *(saved(drawn(*shape, channels), "WEBP", **options) for shape in SHAPES))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_a_gif(graph: Graph, mode: str) -> None:
    images = [drawn(*shape).convert(mode) for shape in SHAPES]
    same(graph, *(saved(image, "GIF", interlace=interlace) for image in images for interlace in (0, 1)))


def test_a_bmp(graph: Graph) -> None:
    same(graph, *(saved(drawn(*shape), "BMP") for shape in SHAPES))


def test_the_first_frame_of_an_animation_is_taken(graph: Graph) -> None:
    others = [Image.new("RGB", PICTURE.size), drawn(64, 48).rotate(90)]
    same(graph, *(saved(PICTURE, form, save_all=True, append_images=others) for form in ("GIF", "PNG")))


def test_what_follows_the_first_frame_of_a_gif_does_not_matter(graph: Graph) -> None:
    first = FILES["GIF"][:-1]
    follows = [b"", b"!\xf9garbage", b",garbage", bytes(300), b";garbage", FILES["GIF"]]
    same(graph, *(first + after for after in follows))


def test_later_frames_of_a_gif_take_no_memory(graph: Graph) -> None:
    """400 frames of a pixel each, on a canvas that TensorFlow would draw anew for every one of them: 2.7 GB."""
    canvas = Image.new("L", (1500, 1500), 77)
    canvas.paste(200, (0, 0, 700, 900))
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    data = saved(canvas, "GIF")[:-1] + 400 * frame + b";"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    same(graph, data, FILES["GIF"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def small_frame() -> bytes:
    data = bytearray(FILES["GIF"])
    data[6:10] = struct.pack("<HH", 80, 60)
    return bytes(data)


def with_byte(data: bytes) -> bytes:
    return data[:60] + b"!" + data[60:]


def denied() -> bytes:
    data = bytearray(saved(drawn(40, 30, 4), "WEBP", quality=60))
    assert data[12:16] == b"VP8X"
    data[20] &= ~16
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (FILES["TIFF"], "it is a TIFF"),
        (saved(PICTURE.convert("CMYK"), "JPEG"), "its colours are CMYK"),
        (saved(PICTURE, "WEBP", save_all=True, append_images=[Image.new("RGB", PICTURE.size)]), "it is animated"),
        (denied(), "its header denies that it is transparent"),
        (FILES["WEBP"][:-1], "it is damaged"),
        (with_byte(saved(drawn(40, 30, 4), "WEBP", quality=60)), "it is damaged"),
        (
            saved(PICTURE.convert("P"), "GIF", transparency=PICTURE.convert("P").getpixel((9, 9))),
            "it has a transparent colour",
        ),
        (small_frame(), "its first frame does not fill it"),
        (FILES["GIF"][:-200], "it is cut short"),
        (b"GIF88a" + FILES["GIF"][6:], "it is of an unknown version"),
        (saved(PICTURE.convert("L"), "BMP"), "it is a BMP of other than 24 plain bits"),
        (saved(drawn(9, 9, 4), "BMP"), "it is a BMP of other than 24 plain bits"),
        (b"", "it is no JPEG, PNG, GIF, WebP or BMP"),
        (b"<!DOCTYPE html>", "it is no JPEG, PNG, GIF, WebP or BMP"),
        (saved(PICTURE, "PPM"), "it is no JPEG, PNG, GIF, WebP or BMP"),
        (FILES["JPEG"][:2] + b"\xff\x01" + FILES["JPEG"][2:], "it has a segment of an unknown kind"),
    ],
)
def test_what_is_not_decoded_alike_is_refused_by_name(graph: Graph, data: bytes, why: str) -> None:
    assert refused(graph, data) == why


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(graph: Graph) -> None:
    data = bytearray(FILES["JPEG"])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 8001, 8000)
    header = struct.pack(">IIBBBBB", 8000, 8001, 8, 2, 0, 0, 0)
    for large in (bytes(data), FILES["PNG"][:8] + chunk(b"IHDR", header) + FILES["PNG"][33:]):
        assert refused(graph, large) == "it has more than 64,000,000 pixels"
        with pytest.raises(decode.ImageRejected, match="exceed the limit of 64,000,000 pixels"):
            decode.decode(large, SIZE)


def test_a_webp_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    load_keras()
    from humeris.classify.export.formats.tf_decode import decode

    assert decode.MAX_WEBP_PIXELS == decode.MAX_WEBP_PIXELS == 40_000_000
    monkeypatch.setattr(decode, "MAX_WEBP_PIXELS", 64 * 48)
    graph = graph_of(SIZE)
    same(graph, FILES["WEBP"], saved(drawn(64, 49), "PNG"))
    assert refused(graph, saved(drawn(64, 49), "WEBP")) == "it has more than 3,072 pixels"


def test_a_batch_is_of_any_size_and_any_formats(graph: Graph) -> None:
    mixed = [FILES[form] for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]
    same(graph, *mixed, *(saved(drawn(*shape), "JPEG") for shape in SHAPES), *mixed)
    same(graph, mixed[0])
    assert graph([]).shape == (0, *SIZE, 3)


@pytest.mark.parametrize("form", ["JPEG", "progressive", "BMP", "lossless"])
def test_a_damaged_file_is_never_answered_with_other_pixels(graph: Graph, form: str) -> None:
    plain = {
        "progressive": saved(PICTURE, "JPEG", progressive=True, exif=exif(6)),
        "JPEG": saved(PICTURE, "JPEG", exif=exif(6)),
        "lossless": saved(PICTURE, "WEBP", lossless=True),
    }.get(form, FILES["BMP"])
    random, found = np.random.default_rng(len(form)), []
    for number in range(150):
        data, span = bytearray(plain), 250 if number % 2 else len(plain)
        for at in random.integers(0, span, random.choice([1, 3])):
            data[at] = random.choice([0, 255, random.integers(256)])
        found.append(outcome(graph, bytes(data[: random.integers(len(data))] if number % 10 == 9 else data)))
    assert not {"different", "answered"} & set(found)
    assert 10 < found.count("same") < 140


# --- resizing


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (61, 37), (1, 1), (224, 224)])
def test_resizing_is_pillows_to_the_last_bit(size: tuple[int, int]) -> None:
    load_keras()
    import tensorflow as tf

    from humeris.classify.export.formats.tf_decode.resize import resize

    resized = tf.function(lambda image: resize(image, size), [tf.TensorSpec((None, None, 3), tf.uint8)])
    random = np.random.default_rng(size)
    shapes = [tuple(np.exp(random.uniform(0, 6.7, 2)).astype(int)) for _ in range(25)]
    edges = [(size[0] + 2 * more + step, size[1] + more) for more in (0, 3, 40) for step in (-1, 0, 1, 2)]
    for number, shape in enumerate([*shapes, *edges, size]):
        top = [256, 2][number % 2]
        samples = (random.integers(0, top, (*shape, 3)) * (255 // (top - 1))).astype(np.uint8)
        expected = np.asarray(Image.fromarray(samples).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        assert np.array_equal(resized(samples).numpy(), expected), shape


# --- photographs


@pytest.mark.assets
@pytest.mark.parametrize(("size", "every"), [((224, 224), 3), ((96, 128), 5)])
def test_photographs(assets: Path, size: tuple[int, int], every: int) -> None:
    graph = graph_of(size)
    photographs = sorted(path for path in (assets / "images" / "hymenoptera").rglob("*.jp*g"))[::every]
    small = sorted((assets / "images" / "cifar10-6k").rglob("*.jp*g"))[::100]
    assert len(photographs) >= 75
    assert len(small) >= 50
    same(graph, *(path.read_bytes() for path in [*photographs, *small]), size=size)
