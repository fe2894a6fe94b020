"""Bad images among good ones, and a thousand mutations: each has one outcome, without a crash, a hang or much output."""

from __future__ import annotations

import io
import itertools
import json
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from humeris.cache.shard import to_keys
from humeris.cache.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

_Y, _X = np.mgrid[0:1:48j, 0:1:64j]
PICTURE = Image.fromarray((np.stack([_X, _Y, (_X + _Y) / 2], axis=-1) * 215 + 20).astype(np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bomb(side: int) -> bytes:
    """A valid gray PNG of `side` x `side` black pixels."""
    packer = zlib.compressobj(1)
    line = bytes(1 + side)
    rows = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sized(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    at = next(at for at in range(len(jpeg)) if jpeg[at] == 0xFF and jpeg[at + 1] in {0xC0, 0xC2})
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def without(jpeg: bytes, marker: int) -> bytes:
    """A JPEG without its segments of one kind."""
    at, parts = 2, [jpeg[:2]]
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        parts += [] if jpeg[at + 1] == marker else [jpeg[at:end]]
        at = end
    return b"".join([*parts, jpeg[at:]])


def exif(orientation: int) -> bytes:
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)


def transparent() -> Image.Image:
    image = PICTURE.convert("RGBA")
    image.putalpha(0)
    return image


JPEG, PNG, GIF, WEBP, BMP, TIFF = (saved(PICTURE, form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"))
PROGRESSIVE = saved(PICTURE, "JPEG", progressive=True)
GREY16 = Image.frombytes("I;16", (64, 48), np.linspace(0, 65535, 64 * 48).astype("<u2").tobytes())
NOISE = np.random.default_rng(3).bytes(4000)
FLOAT = np.linspace(0, 1, 64 * 48).reshape(48, 64).astype(np.float32)
USED, EITHER = {"used"}, {"used", "damaged"}
NONE, BROKEN, LARGE = {"not_an_image"}, {"damaged"}, {"too_large", "damaged"}

# What people's folders hold; name -> bytes, outcomes that are right.
CASES: dict[str, tuple[bytes, set[str]]] = {
    "empty.jpg": (b"", {"empty"}),
    "byte.jpg": (b"\xff", NONE),
    "page.jpg": (b"<!DOCTYPE html><html>404 Not Found</html>", NONE),
    "text.jpg": (b"a picture of a cat", NONE),
    "drawing.jpg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', NONE),
    "telephone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), {"damaged"}),
    "modern.jpg": (saved(PICTURE, "AVIF"), USED),
    "zeros.jpg": (bytes(5000), NONE),
    "noise.jpg": (NOISE, NONE),
    "paper.jpg": (b"%PDF-1.7\n%" + bytes(100), NONE),
    "archive.jpg": (b"PK\x03\x04" + bytes(60), NONE),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", NONE),
    "half.jpg": (JPEG[: len(JPEG) // 2], BROKEN),
    "two bytes short.jpg": (JPEG[:-2], EITHER),
    "header.jpg": (JPEG[:200], BROKEN),
    "magic.jpg": (JPEG[:3], BROKEN),
    "garbled.jpg": (JPEG[: len(JPEG) // 2] + NOISE[:60] + JPEG[len(JPEG) // 2 + 60 :], EITHER),
    "garbled header.jpg": (JPEG[:25] + NOISE[:40] + JPEG[65:], EITHER),
    "garbage after.jpg": (JPEG + NOISE, USED),
    "no quantisation.jpg": (without(JPEG, 0xDB), BROKEN),
    "no codes.jpg": (without(JPEG, 0xC4), EITHER),
    "no frame.jpg": (without(JPEG, 0xC0), BROKEN),
    "claims 65000.jpg": (sized(JPEG, 65_000, 65_000), LARGE),
    "claims 7000.jpg": (sized(JPEG, 7000, 7000), EITHER),
    "claims nothing.jpg": (sized(JPEG, 0, 0), BROKEN),
    "progressive half.jpg": (PROGRESSIVE[: len(PROGRESSIVE) // 2], BROKEN),
    "progressive.jpg": (PROGRESSIVE, USED),
    "printed.jpg": (saved(PICTURE.convert("CMYK"), "JPEG"), USED),
    "turned.jpg": (saved(PICTURE, "JPEG", exif=exif(6)), USED),
    "turned wrongly.jpg": (saved(PICTURE, "JPEG", exif=exif(200)), USED),
    "odd metadata.jpg": (saved(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30)), USED),
    "grey.jpg": (saved(PICTURE.convert("L"), "JPEG"), USED),
    "is a png.jpg": (PNG, USED),
    "bad data.png": (PNG[:60] + NOISE[:60] + PNG[120:], BROKEN),
    "bad sum.png": (PNG[:29] + b"\0\0\0\0" + PNG[33:], BROKEN),
    "half.png": (PNG[: len(PNG) // 2], BROKEN),
    "header.png": (PNG[:33], BROKEN),
    "magic.png": (PNG[:8], BROKEN),
    "no pixels.png": (PNG[:33] + chunk(b"IEND", b""), BROKEN),
    "no end.png": (PNG[:-12], EITHER),
    "line ends.png": (PNG.replace(b"\r\n", b"\n"), NONE),
    "no width.png": (png(0, 5, b""), LARGE),
    "odd colours.png": (png(4, 4, bytes(52), colour=7), BROKEN),
    "too few rows.png": (png(64, 48, bytes(500)), BROKEN),
    "claims 65000.png": (png(65_000, 65_000, bytes(500)), {"too_large"}),
    "claims 2^31.png": (png(2**31 - 1, 2**31 - 1, b"\0"), LARGE),
    "claims 7000.png": (png(7000, 7000, bytes(500)), BROKEN),
    "bomb 12000.png": (bomb(12_000), {"too_large"}),
    "bomb 30000.png": (bomb(30_000), {"too_large"}),
    "bomb in a text.png": (PNG[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(90_000_000))) + PNG[33:], BROKEN),
    "16 bit.png": (saved(GREY16, "PNG"), USED),
    "16 bit colours.png": (png(64, 48, (b"\0" + bytes(range(128)) * 3) * 48, depth=16), USED),
    "nothing to see.png": (saved(transparent(), "PNG"), USED),
    "palette.png": (saved(PICTURE.convert("P"), "PNG", transparency=b"\x80\x10\xff"), USED),
    "one bit.png": (saved(PICTURE.convert("1"), "PNG"), USED),
    "moving.gif": (saved(PICTURE, "GIF", save_all=True, append_images=[Image.new("RGB", (64, 48))]), USED),
    "half.gif": (GIF[: len(GIF) // 2], BROKEN),
    "header.gif": (GIF[:13], BROKEN),
    "claims 65535.gif": (GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:], LARGE),
    "half.webp": (WEBP[: len(WEBP) // 2], BROKEN),
    "header.webp": (WEBP[:16], BROKEN),
    "see through.webp": (saved(transparent(), "WEBP"), USED),
    "half.bmp": (BMP[: len(BMP) // 2], BROKEN),
    "claims 2^31.bmp": (BMP[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + BMP[26:], LARGE),
    "half.tiff": (TIFF[: len(TIFF) // 2], BROKEN),
    "loop.tiff": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", BROKEN),
    "float.tiff": (saved(Image.fromarray(FLOAT), "TIFF"), {"unsupported"}),
    "not a number.tiff": (saved(Image.fromarray(FLOAT * np.nan), "TIFF"), {"unsupported"}),
    "new\nline.jpg": (saved(PICTURE, "JPEG", quality=61), USED),
    "=1+1.jpg": (saved(PICTURE, "JPEG", quality=62), USED),
    "caf\udce9.jpg": (saved(PICTURE, "JPEG", quality=63), USED),
}  # fmt: skip
PLACES: dict[str, Callable[[Path], None]] = {
    "folder.jpg": lambda path: path.mkdir(),
    "pipe.jpg": os.mkfifo,
    "dangling.jpg": lambda path: path.symlink_to("nowhere"),
    "loop.jpg": lambda path: path.symlink_to(path.name),
    "device.jpg": lambda path: path.symlink_to("/dev/zero"),
    "folder link.jpg": lambda path: path.symlink_to(".."),
}


def folder_of_bad_ones(root: Path, position: str, draw: Callable[..., Path]) -> dict[str, set[str]]:
    """Twenty-four good images in three classes with every bad one at one end or in the middle; name -> right outcomes."""
    expected = {}
    label, prefix = {"first": ("a", "0 "), "middle": ("m", "04 "), "last": ("z", "zz ")}[position]
    for kind, name in enumerate("amz"):
        for seed in range(8):
            expected[str(draw(root / name / f"{seed:02}.png", kind, seed).relative_to(root))] = USED
    for name, (data, outcomes) in CASES.items():
        (root / label / f"{prefix}{name}").write_bytes(data)
        expected[f"{label}/{prefix}{name}"] = outcomes
    for name, make in PLACES.items():
        make(root / label / f"{prefix}{name}")
        if name != "folder.jpg":  # a folder, and an empty one: not an image that is refused
            expected[f"{label}/{prefix}{name}"] = {"not_a_file"}
    return expected


def outcomes(done: Any, listed: dict[str, Path]) -> dict[str, str]:
    """The one outcome of each listed path; rows are stored for the images that were used and for no other."""
    data, (extracted,) = done.json["data"], done.json["extracted"]
    left_out = [(each["name"], each["reason"]) for each in data["refused"]]
    left_out += [(each["name"], "duplicate") for each in data["duplicates"]]
    found = dict(left_out)
    assert len(found) == len(left_out), Counter(name for name, _ in left_out).most_common(3)
    assert set(found) <= set(listed)
    assert data["used"] + len(data["duplicates"]) + len(data["refused"]) == len(listed)
    used = [name for name in listed if name not in found]
    with Store() as store:
        (tap,) = (tap for each in store.iter_extractions() for tap in each.list_taps())
        keys = np.concatenate([item.keys for item in tap.list_shards()])
        assert np.isfinite(tap.read(np.unique(keys))).all()
    assert sorted(keys.tolist()) == sorted(to_keys([sha256(listed[name].read_bytes()).digest() for name in used]).tolist())
    assert extracted["images"] == len(used) == len(keys)
    return {**dict.fromkeys(used, "used"), **found}


@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_bad_images_cost_themselves_alone_wherever_they_stand(
    position: str, tmp_path: Path, draw_image: Callable[..., Path], humeris: Callable[..., Any]
) -> None:
    expected = folder_of_bad_ones(tmp_path / "data", position, draw_image)
    words = ("extract", "data", "-b", "nano,image_size=32", "-l", "block2_out", "--batch-size", 4, "-j", 2, "--json")
    done = humeris(*words)
    assert done.code == 1, done.err
    listed = {name: tmp_path / "data" / name for name in expected}
    found = outcomes(done, listed)
    assert {name: outcome for name, outcome in found.items() if outcome not in expected[name]} == {}
    assert done.json["extracted"][0]["computed"] == list(found.values()).count("used")
    again = humeris(*words)
    assert outcomes(again, listed) == found
    assert again.json["extracted"][0]["forward_passes"] == 0
    print(position, len(CASES) + len(PLACES), "bad or odd ones:", dict(Counter(found.values())))


def test_there_are_at_least_fifty_two_kinds() -> None:
    assert len(CASES) + len(PLACES) >= 52
    assert len({data for data, _ in CASES.values()}) == len(CASES)


# --- mutations


def flipped(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(random.integers(1, 12)):
        changed[random.integers(len(data))] = random.integers(256)
    return bytes(changed)


def deleted(data: bytes, random: np.random.Generator) -> bytes:
    at = int(random.integers(4, len(data)))
    return data[:at] + data[at + int(random.integers(1, 40)) :]


def inserted(data: bytes, random: np.random.Generator) -> bytes:
    at = int(random.integers(4, len(data)))
    other = int(random.integers(len(data)))
    return data[:at] + (random.bytes(9) if random.random() < 0.5 else data[other : other + 300]) + data[at:]


def truncated(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(1, len(data))]


def headed(data: bytes, random: np.random.Generator) -> bytes:
    """Another size, or bytes changed where sizes and types stand; sums of a PNG are made right again."""
    if data.startswith(b"\x89PNG"):
        width, height, *rest = struct.unpack(">IIBBBBB", data[16:29])
        fields = [width, height, *rest]
        field = int(random.integers(7))
        fields[field] = int(random.choice([0, 1, 7990, 70_000, 2**31 - 1])) if field < 2 else int(random.integers(17))
        return data[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)) + data[33:]
    if random.random() < 0.5:
        width, height = random.choice([0, 1, 17, 64, 4000, 7990, 65_535], 2)
        return sized(data, int(width), int(height))
    changed = bytearray(data)
    for _ in range(random.integers(1, 5)):
        changed[random.integers(4, 160)] = random.choice([0, 1, 2, 127, 128, 254, 255])
    return bytes(changed)


MUTATIONS = (flipped, deleted, inserted, truncated, headed)
SEEDS = (
    JPEG,
    PROGRESSIVE,
    saved(PICTURE.convert("L"), "JPEG"),
    saved(PICTURE.convert("CMYK"), "JPEG", progressive=True),
    saved(PICTURE, "JPEG", exif=exif(6), subsampling=0),
    saved(PICTURE, "JPEG", restart_marker_blocks=2),
    PNG,
    saved(transparent(), "PNG"),
    CASES["palette.png"][0],
    saved(GREY16, "PNG"),
    CASES["16 bit colours.png"][0],
    CASES["one bit.png"][0],
)


def mutated() -> Iterator[tuple[str, bytes]]:
    """A thousand files: every mutation of every kind of JPEG and PNG, sixteen or seventeen times."""
    random = np.random.default_rng(1000)
    for number in range(1000):
        seed = SEEDS[number % len(SEEDS)]
        mutation = MUTATIONS[number // len(SEEDS) % len(MUTATIONS)]
        ending = "jpg" if seed.startswith(b"\xff\xd8") else "png"
        yield f"{number:03} {mutation.__name__}.{ending}", mutation(seed, random)


_DECODE = """
import json, os, resource, sys, time
from collections import Counter
from humeris.extract.pixels import decode as pixels
resource.setrlimit(resource.RLIMIT_AS, (4 * 1024**3, 4 * 1024**3))
found, slowest, most = Counter(), [0.0, ""], [0, ""]
for name in sorted(os.listdir(os.fsencode(sys.argv[1]))):
    path = os.path.join(os.fsencode(sys.argv[1]), name)
    if not os.path.isfile(path):
        continue
    with open(path, "rb") as file:
        data = file.read()
    began = time.process_time()
    try:
        rows = pixels.decode(data, (224, 224))
        assert rows.shape == (224, 224, 3) and rows.dtype == "uint8"
        found["used"] += 1
    except pixels.ImageRejected as refused:
        found[refused.reason] += 1
    slowest = max(slowest, [time.process_time() - began, repr(name)])
    with open("/proc/self/status") as status:
        most = max(most, [next(int(line.split()[1]) for line in status if line.startswith("VmHWM")), repr(name)])
assert "tensorflow" not in sys.modules
print(json.dumps({"found": found, "seconds": slowest, "kilobytes": most}))
"""


def decoded(folder: Path) -> dict[str, Any]:
    """The outcome of each file of a folder, decoded in one process without a network; fails if the process crashes."""
    done = subprocess.run([sys.executable, "-c", _DECODE, folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    print(len(list(folder.iterdir())), "files:", result)
    assert result["seconds"][0] < 10
    assert result["kilobytes"][0] < 1_000_000
    return result


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_thousand_mutations_end_in_pixels_or_a_refusal_in_little_time_and_memory(tmp_path: Path) -> None:
    for name, data in mutated():
        (tmp_path / name).write_bytes(data)
    found = Counter(decoded(tmp_path)["found"])
    assert sum(found.values()) == 1000
    assert set(found) <= {"used", "damaged", "too_large", "not_an_image", "unsupported"}
    assert min(found["used"], found["damaged"]) > 200
    assert found["too_large"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_each_bad_image_takes_little_time_and_memory(tmp_path: Path) -> None:
    for name, (data, _) in CASES.items():
        (tmp_path / name).write_bytes(data)
    assert sum(decoded(tmp_path)["found"].values()) == len(CASES)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.many)])
def test_a_thousand_mutations_in_a_data_set_have_one_outcome_each(
    every: int, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    listed = {}
    for number, (name, data) in enumerate(itertools.islice(mutated(), 0, None, every)):
        path = tmp_path / "data" / "ab"[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        listed[f"{path.parent.name}/{name}"] = path
    done = humeris("extract", "data", "-b", "nano,image_size=32", "-l", "block2_out", "-j", 2, "--json")
    assert done.code == 1, done.err
    counts = Counter(outcomes(done, listed).values())
    print(dict(counts))
    assert sum(counts.values()) == len(range(0, 1000, every))
    assert counts["used"] > 200 // every


_LARGE = """
import io, json, sys, time
from PIL import Image
from humeris.extract.pixels import decode as pixels
mode, form, turned = sys.argv[1], sys.argv[2], sys.argv[3] == "turned"
exif = Image.Exif()
exif[0x0112] = 6 if turned else 1
options = {"WEBP": {"lossless": True, "quality": 0, "method": 0}, "JPEG": {"progressive": True}, "PNG": {}}[form]
buffer = io.BytesIO()
side = {"WEBP": 6320}.get(form, 7990)
Image.new(mode, (side, side)).save(buffer, form, exif=exif, **options)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # start the peak anew
began = time.process_time()
pixels.decode(buffer.getvalue(), (224, 224))
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([peak, time.process_time() - began]))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="resets the peak of memory through /proc")
@pytest.mark.parametrize(
    ("mode", "form", "turned"),
    [
        ("L", "PNG", "upright"),
        ("RGB", "JPEG", "upright"),
        ("CMYK", "JPEG", "turned"),
        ("I;16", "PNG", "upright"),
        ("RGBA", "PNG", "turned"),
        ("LA", "PNG", "turned"),
        ("RGBA", "WEBP", "turned"),
    ],
)
def test_the_largest_legal_image_is_decoded_in_less_than_a_gigabyte(mode: str, form: str, turned: str) -> None:
    """Sixty-four million pixels are the limit, forty of WebP, see `pixels.MAX_PIXELS` and `pixels.MAX_WEBP_PIXELS`."""
    done = subprocess.run([sys.executable, "-c", _LARGE, mode, form, turned], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kilobytes, seconds = json.loads(done.stdout)
    print({"mode": mode, "format": form, "MB": kilobytes // 1000, "seconds": round(seconds, 1)})
    assert kilobytes < 1_000_000
    assert seconds < 10
