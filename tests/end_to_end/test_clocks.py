"""Times that lie: the digest is always that of the bytes that are there, and what nobody touched is not read again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.store import Store
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images

DAY = 86_400 * 10**9
_opened: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


@pytest.fixture(scope="session")
def _audit() -> None:
    sys.addaudithook(_hook)


@pytest.fixture
def opened(_audit: None) -> Iterator[list[str]]:
    """Every path that Python opens while the test runs."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty files of one size that begin as a PNG does: identifying looks no further."""
    random = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(random))
    return tmp_path / "data"


def content(random: np.random.Generator) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + random.bytes(200)


def settle(data: Path) -> None:
    """Wait for the clock that stamps files to go on, so that the next change must show."""
    newest = max(path.stat().st_ctime_ns for path in data.rglob("*"))
    while time.time_ns() <= newest + 30_000_000:
        pass


def identified(data: Path, cache: Path) -> Images:
    with Store(cache, write=True) as store:
        return load_images(data, store, jobs=2)


def stale(images: Images) -> int:
    """How many images have another digest than their bytes."""
    return sum(image.digest != sha256(Path(image.item.location).read_bytes()).digest() for image in images.used)


# Ways to change a file of the same size; each takes the path, the new bytes and the path's times before.


def put_back(path: Path, new: bytes, times: tuple[int, int]) -> None:
    path.write_bytes(new)
    os.utime(path, ns=times)


def a_day_ago(path: Path, new: bytes, times: tuple[int, int]) -> None:
    path.write_bytes(new)
    os.utime(path, ns=(times[0], times[1] - DAY))


def in_a_year(path: Path, new: bytes, times: tuple[int, int]) -> None:
    path.write_bytes(new)
    os.utime(path, ns=(times[0], times[1] + 365 * DAY))


def before_1970(path: Path, new: bytes, times: tuple[int, int]) -> None:
    path.write_bytes(new)
    os.utime(path, ns=(times[0], -DAY))


def replaced(path: Path, new: bytes, times: tuple[int, int]) -> None:
    """By a file that was prepared earlier and has an older time."""
    other = path.with_name(f".{path.name}")
    other.write_bytes(new)
    os.utime(other, ns=(times[0], times[1] - DAY))
    other.replace(path)


def replaced_alike(path: Path, new: bytes, times: tuple[int, int]) -> None:
    other = path.with_name(f".{path.name}")
    other.write_bytes(new)
    os.utime(other, ns=times)
    other.replace(path)


def through_a_link(path: Path, new: bytes, times: tuple[int, int]) -> None:
    """By another name of the same file."""
    other = path.with_name(f".{path.name}")
    os.link(path, other)
    with other.open("r+b") as file:
        file.write(new)
    other.unlink()
    os.utime(path, ns=times)


def mapped(path: Path, new: bytes, times: tuple[int, int]) -> None:
    """A byte in the middle, in place."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(new[100:101])
    os.utime(path, ns=times)


EDITS = (put_back, a_day_ago, in_a_year, before_1970, replaced, replaced_alike, through_a_link, mapped)


def test_two_thousand_same_size_rewrites_are_all_noticed_and_nothing_else_is_read(data: Path, opened: list[str]) -> None:
    """In rounds of ten of twenty files; every other round follows at once, within a tick of the clock or two."""
    random = np.random.default_rng(2000)
    cache = data.with_name("own-cache")
    settle(data)
    identified(data, cache)
    paths = sorted(data.rglob("*.png"))
    counts: Counter[str] = Counter()
    touched: set[str] = set()
    for round_ in range(200):
        at_once = round_ % 2 == 1
        young = set() if at_once else touched  # identified when they were so young that they are read again
        touched = set()
        for number in random.choice(len(paths), 10, replace=False):
            path, status = paths[number], paths[number].stat()
            edit = EDITS[random.integers(len(EDITS))]
            edit(path, content(random), (status.st_atime_ns, status.st_mtime_ns))
            touched.add(str(path))
            counts["rewritten"] += 1
            counts[edit.__name__] += 1
        if not at_once:
            settle(data)
        opened.clear()
        images = identified(data, cache)
        read = {path for path in opened if path.endswith(".png")}
        counts["read"] += len(read)
        counts["not read though rewritten"] += len(touched - read)
        counts["read though not rewritten"] += len(read - touched - young)
        counts["stale digests"] += stale(images)
        counts["images"] += len(images.used)
    print(dict(counts))
    assert counts["rewritten"] == 2000
    assert counts["images"] == 200 * 20
    assert min(counts[edit.__name__] for edit in EDITS) > 200
    assert counts["stale digests"] == counts["not read though rewritten"] == counts["read though not rewritten"] == 0


def test_a_rewrite_right_after_identification_is_noticed(data: Path) -> None:
    """Written, identified and written again as fast as that goes, with the times put back."""
    random = np.random.default_rng(3)
    cache = data.with_name("own-cache")
    paths = sorted(data.rglob("*.png"))
    wrong = rewritten = 0
    for _ in range(100):
        for path in paths:
            path.write_bytes(content(random))
        identified(data, cache)
        for path in paths:
            status = path.stat()
            path.write_bytes(content(random))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            rewritten += 1
        wrong += stale(identified(data, cache))
    print({"rewritten": rewritten, "stale": wrong})
    assert (rewritten, wrong) == (2000, 0)


def test_files_whose_names_are_exchanged_are_told_apart(data: Path, opened: list[str]) -> None:
    """Same size, same times; by renaming, and by hard links."""
    random = np.random.default_rng(4)
    cache = data.with_name("own-cache")
    paths = sorted(data.rglob("*.png"))
    for path in paths:
        os.utime(path, ns=(DAY, DAY))
    settle(data)
    identified(data, cache)
    exchanged = wrong = read = 0
    for number in range(100):
        a, b = (paths[index] for index in random.choice(len(paths), 2, replace=False))
        x = data / ".x"
        if number % 2:
            a.rename(x)
            b.rename(a)
            x.rename(b)
        else:
            os.link(a, x)
            b.replace(a)
            os.link(x, b)
            x.unlink()
        settle(data)
        opened.clear()
        images = identified(data, cache)
        read += len(touched := {path for path in opened if path.endswith(".png")})
        assert touched == {str(a), str(b)}
        wrong += stale(images)
        exchanged += 1
    print({"exchanged": exchanged, "stale": wrong, "read again": read})
    assert (exchanged, wrong, read) == (100, 0, 200)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns", "Pacific/Kiritimati"])
def test_another_time_zone_reads_nothing_again(
    zone: str, data: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = data.with_name("own-cache")
    settle(data)
    before = identified(data, cache)
    opened.clear()
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        after = identified(data, cache)
    time.tzset()
    assert not [path for path in opened if path.endswith(".png")]
    assert after.used == before.used


@pytest.mark.parametrize("shift", [-366 * DAY, -DAY, -3600 * 10**9, 3600 * 10**9, 366 * DAY])
def test_a_clock_that_is_set_gives_no_stale_digest(
    shift: int, data: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this process differs from the one that stamps the files, as after it was set, or on a file server."""
    random = np.random.default_rng(5)
    cache = data.with_name("own-cache")
    real = time.time_ns
    settle(data)
    monkeypatch.setattr(time, "time_ns", lambda: real() + shift)
    wrong = 0
    for _ in range(20):
        wrong += stale(identified(data, cache))
        for path in sorted(data.rglob("*.png"))[:5]:
            status = path.stat()
            path.write_bytes(content(random))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        wrong += stale(identified(data, cache))
    assert wrong == 0
    monkeypatch.setattr(time, "time_ns", real)
    settle(data)
    identified(data, cache)
    opened.clear()
    identified(data, cache)
    assert not [path for path in opened if path.endswith(".png")]


def test_a_real_extraction_follows_a_same_size_edit_with_its_time_put_back(
    photos: Path, humeris: Callable[..., Any], tmp_path: Path
) -> None:
    """One pixel of an uncompressed image, in place: one image computed, under the digest of the new bytes."""
    from PIL import Image

    for path in sorted(photos.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    settle(photos)
    words = ("extract", photos, "-b", "nano,image_size=32", "-l", "block2_out", "-j", 1, "--json")
    assert humeris(*words).json["extracted"][0]["computed"] == 36
    path = photos / "blob" / "05.bmp"
    status, changed = path.stat(), bytearray(path.read_bytes())
    changed[2000] ^= 0x80
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = humeris(*words)
    assert (again.code, again.json["extracted"][0]["computed"]) == (0, 1)
    (extraction,) = Store().iter_extractions()
    with Store() as store:
        keys = load_images(photos, store, jobs=1).keys
    assert extraction.get_features("block2_out", "avg").read(keys).shape == (36, 40)
    assert sha256(changed).digest() in keys.tobytes()


# --- a file system whose clock has whole seconds


@pytest.fixture
def seconds(tmp_path: Path) -> Iterator[Path]:
    """A real one, in a file: inodes of 128 bytes have no room for fractions."""
    if sys.platform != "linux" or os.geteuid() != 0 or not (shutil.which("mke2fs") and shutil.which("mount")):
        pytest.skip("only root may mount a file system, and mke2fs makes it")
    image, place = tmp_path / "image", tmp_path / "seconds"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    place.mkdir()
    for command in (["mke2fs", "-q", "-t", "ext3", "-I", "128", image], ["mount", "-o", "loop", image, place]):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this root may not mount a file as a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_rewrites_within_a_second_are_noticed_where_times_have_whole_seconds(seconds: Path) -> None:
    random = np.random.default_rng(6)
    paths = [seconds / "data" / label / f"{number}.png" for label in "ab" for number in range(10)]
    invisible = rewritten = wrong = 0
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(random))
    for _ in range(50):
        identified(seconds / "data", seconds / "cache")
        for path in paths:
            before = path.stat()
            path.write_bytes(content(random))
            after = path.stat()
            rewritten += 1
            invisible += (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
        wrong += stale(identified(seconds / "data", seconds / "cache"))
    print({"rewritten": rewritten, "with the same times": invisible, "stale": wrong})
    assert (rewritten, wrong) == (1000, 0)
    assert invisible > 500


def test_a_shard_changed_within_the_second_it_was_written_is_not_served(seconds: Path) -> None:
    from humeris.cache.shard import to_keys
    from humeris.cache.spec import ExtractionSpec

    spec = ExtractionSpec("toy", "toy()", "random", "00" * 32, (8, 8), "tf", "1")
    keys = to_keys([bytes([number]) * 32 for number in range(1, 9)])
    served = invisible = 0
    for number in range(20):
        rows = np.full((8, 16), number + 1, np.float32)
        with Store(seconds / f"cache{number}", write=True) as store:
            store.get_extraction(spec).add("conv", "avg", keys, rows)
        (path,) = (seconds / f"cache{number}").glob("features/*/*/*.h5")
        before, changed = path.stat(), path.read_bytes().replace(rows[0].tobytes(), bytes(64))
        path.chmod(0o644)
        path.write_bytes(changed)
        path.chmod(0o444)
        after = path.stat()
        invisible += (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
        features = Store(seconds / f"cache{number}").get_extraction(spec).get_features("conv", "avg")
        served += not features.find_missing(keys).any()
    print({"changed": 20, "with the same times": invisible, "served": served})
    assert invisible > 10
    assert served == 0
