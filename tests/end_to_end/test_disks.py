"""Disks that fill, that are read-only, that refuse a file: one line, nothing half-written, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warm_python import WarmPython

from humeris.cache.store import Store

TAPS = ("-l", "block2_out:avg", "-l", "block2_out:map", "-l", "block4_out:map")
OPTIONS = ("-b", "nano,image_size=32", *TAPS, "--batch-size", "4", "-j", "1")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount something, until the test ends; only root may."""
    places: list[Path] = []

    def mount(*arguments: str, name: str = "disk") -> Path:
        if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("only root may mount a file system")
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this root may not mount a file system: {done.stderr.strip()}")
        places.append(place)
        return place

    try:
        yield mount
    finally:
        for place in reversed(places):
            subprocess.run(["umount", str(place)], check=True)


# One process that runs the real command on disk after disk: importing Keras for each would take longer than the rest. That
# it ends by itself with 0 shows that nothing crashed, not even on the way out, where HDF5 does after a failed write.
_DRIVER = """
import functools, hashlib, json, os, resource, subprocess, sys
from pathlib import Path
import numpy as np
from typer.testing import CliRunner
from humeris.cache.inventory import verify
from humeris.cache.store import Store
from humeris.cli import app
from humeris.extract.backbones import metadata
from humeris.extract.engine import backbone_batcher
from humeris.extract.engine import extract as extraction
from humeris.extract.engine import row_writer as writer
from typer import testing

networks = {}

def build_once(asked):
    networks[repr(asked)] = networks.get(repr(asked)) or real_build(asked)
    return networks[repr(asked)]

def forward_once(graph, taps, size):
    key = id(graph), tuple(taps), size
    networks[key] = networks.get(key) or real_forward(graph, taps, size)
    networks[key].passes = 0
    return networks[key]

# The network is built once for all disks, and the command line put together.
real_build, metadata.build, extraction.build = extraction.build, build_once, build_once
real_forward, backbone_batcher.ForwardPass = backbone_batcher.ForwardPass, forward_once
testing._get_command = functools.cache(testing._get_command)

writer._BYTES = 1  # a shard of each tap for every batch
extraction.get_free_bytes = lambda path: 1 << 40  # asked before anything is computed; here the disk fills afterwards
kind, place, photos, options = sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[5])
NO_LIMIT = resource.getrlimit(resource.RLIMIT_FSIZE)

def extract(cache):
    result = CliRunner().invoke(app, ["extract", photos, *options, "--json", "--cache", str(cache)])
    return result.exit_code, result.stdout, result.stderr, repr(result.exception)

def rows(cache):
    found = {}
    for extraction in Store(cache).iter_extractions():
        for features in extraction.list_taps():
            for item in features.list_shards():
                for key, row in zip(item.keys.view(np.uint8).reshape(-1, 32), item.read_rows()):
                    found[f"{features.layer}:{features.pool} {key.tobytes().hex()}"] = row.tobytes()
    return found

def mount(*options):
    subprocess.run(["mount", *options, str(place)], check=True)

expected = None
for number in [None, *json.loads(sys.argv[4])]:
    cache = place / "cache"
    if number is None:
        cache = place.parent / "reference"
    elif kind == "size":
        mount("-t", "tmpfs", "-o", f"size={number}", "tmpfs")
    elif kind == "inodes":
        mount("-t", "tmpfs", "-o", f"size=50m,nr_inodes={number}", "tmpfs")
    else:
        cache = place / str(number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, NO_LIMIT[1]))
    first = extract(cache)
    resource.setrlimit(resource.RLIMIT_FSIZE, NO_LIMIT)
    if number is None:
        expected = rows(cache)
        assert first[0] == 0, first
        continue
    partial = rows(cache)
    verified = verify(Store(cache))
    files = list(cache.glob("features/*/*/*"))
    sound = [path.suffix == ".h5" and hashlib.sha256(path.read_bytes()).hexdigest() == path.stem for path in files]
    said = json.loads(first[1]).get("error", "") if first[1] else ""
    if kind == "size":
        mount("-o", "remount,size=50m")
    elif kind == "inodes":
        mount("-o", "remount,size=50m,nr_inodes=2000")
    second, whole = extract(cache), rows(cache)
    done = json.loads(second[1]).get("extracted", [{}])[0]
    third = extract(cache)
    print(json.dumps({
        "number": number, "code": first[0], "lines": first[2].count("\\n"), "line": first[2], "said": said,
        "shards": len(files), "sound": all(sound), "rows": len(partial), "tmp": len(list(cache.glob("tmp/*"))),
        "wrong": sum(expected.get(key) != row for key, row in partial.items()),
        "damaged": len(verified["damaged"]), "second": second[0], "computed": done.get("computed"),
        "identical": whole == expected, "third": [third[0], json.loads(third[1])["extracted"][0]["forward_passes"]],
    }))
    if kind in {"size", "inodes"}:
        subprocess.run(["umount", str(place)], check=True)
print(json.dumps(len(expected)))
"""


def driven(kind: str, place: Path, photos: Path, numbers: list[int]) -> tuple[list[dict[str, Any]], int]:
    """What the command did on each disk, and how many rows there are in the end."""
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-c", _DRIVER, kind, place, photos, json.dumps(numbers), json.dumps(OPTIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)
    assert done.returncode == 0, done.stderr[-3000:]
    *found, total = map(json.loads, done.stdout.splitlines())
    return found, total


def as_promised(found: list[dict[str, Any]], total: int) -> Counter[str]:
    """Fails unless each full disk was one line and code 2, left only right rows, and the same command then completed."""
    counts: Counter[str] = Counter()
    for each in found:
        assert (each["sound"], each["wrong"], each["damaged"], each["tmp"]) == (True, 0, 0, 0), each
        assert (each["second"], each["identical"], each["third"]) == (0, True, [0, 0]), each
        if each["code"] == 0:
            assert each["rows"] == total, each
            counts["large enough"] += 1
            continue
        assert (each["code"], each["lines"]) == (2, 1), each
        assert each["line"].startswith("humeris: "), each
        assert "no space left to write" in each["line"], each
        assert each["said"] + "\n" == each["line"].removeprefix("humeris: "), each
        assert each["computed"] > 0, each
        counts["full"] += 1
        counts["full with some rows stored"] += each["rows"] > 0
        counts["rows kept"] += each["rows"]
    return counts


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.many)])
def test_a_disk_that_fills_at_any_of_twenty_sizes(
    every: int, mounted: Callable[..., Path], tmp_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Mounted by the process that runs the command, with sizes from one page to nearly enough."""
    mounted("-t", "tmpfs", "tmpfs", name="probe")
    sizes = [4096 * pages for pages in (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 21, 26, 31, 37, 44, 52, 60, 70, 80, 95, 200)][
        ::every
    ]
    found, total = driven("size", tmp_path / "disk", photos, sizes)
    counts = as_promised(found, total)
    with capfd.disabled():
        print(f"\n{len(sizes)} sizes of a disk:", dict(counts))
    assert total == 36 * 3
    assert (counts["full"], counts["large enough"]) == (20 // every, 1)
    assert counts["full with some rows stored"] >= 8 // every


def test_a_disk_without_inodes(
    mounted: Callable[..., Path], tmp_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mounted("-t", "tmpfs", "tmpfs", name="probe")
    found, total = driven("inodes", tmp_path / "disk", photos, [2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 34])
    counts = as_promised(found, total)
    with capfd.disabled():
        print("\n11 numbers of inodes:", dict(counts))
    assert counts["full"] == 11
    assert counts["full with some rows stored"] >= 3


def test_a_limit_on_the_size_of_a_file(tmp_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    numbers = [0, 1, 100, 1000, 4000, 6000, 9000, 14_000, 20_000]
    found, total = driven("limit", tmp_path / "limited", photos, numbers)
    counts = as_promised(found, total)
    with capfd.disabled():
        print(f"\n{len(numbers)} limits on a file:", dict(counts))
    assert counts["full"] >= 7


_COMMAND = "import sys; sys.argv[0] = 'humeris'; from humeris.cli import main; main()"


@pytest.fixture
def command(warm_python: WarmPython) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command in a process of its own."""

    def run(*arguments: object, before: tuple[str, ...] = (), code: str = _COMMAND) -> subprocess.CompletedProcess[str]:
        words = [*before, sys.executable, "-c", code, *map(str, arguments)]
        if before:
            return subprocess.run(words, capture_output=True, text=True, check=False)
        return warm_python.run(words)

    return run


def test_a_disk_that_is_too_small_is_found_out_before_anything_is_computed(
    mounted: Callable[..., Path], photos: Path, command: Callable[..., Any]
) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=200k", "tmpfs")
    done = command("extract", photos, "-b", "nano", "-l", "block2_out:map", "--cache", disk / "cache")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "not enough disk space for the rows to compute" in done.stderr


_LIMITED = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); del sys.argv[1]; "
_UNASKED = "from humeris.extract.engine import export_hdf5; export_hdf5.get_free_bytes = lambda path: 1 << 40; "


def test_a_portable_file_without_room_is_one_line_and_leaves_nothing(
    finished: Any, command: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Limits from nothing to a byte too few."""
    whole = tmp_path / "whole.h5"
    words = ("cache", "export", finished.photos, "-b", "nano", "--cache", finished.cache, "-o")
    assert command(*words, whole).returncode == 0
    size = whole.stat().st_size
    limits = (0, 1, 1000, 4096, size // 2, size - 2000, size - 1)
    for limit in limits:
        done = command(limit, *words, tmp_path / "some.h5", code=_LIMITED + _COMMAND)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "some.h5: no space left to write (File too large)" in done.stderr
    with capfd.disabled():
        print(f"\n{len(limits)} limits on a portable file: all one line")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]
    assert command(size, *words, tmp_path / "some.h5", code=_LIMITED + _COMMAND).returncode == 0
    assert (tmp_path / "some.h5").read_bytes() == whole.read_bytes()


def test_a_portable_file_on_a_disk_that_fills_is_one_line_and_leaves_nothing(
    mounted: Callable[..., Path],
    finished: Any,
    command: Callable[..., Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Each disk is mounted with room for so many pages, and fills after the space was asked for."""
    words = ("cache", "export", finished.photos, "-b", "nano", "--cache", finished.cache, "-o")
    whole = tmp_path / "whole.h5"
    assert command(*words, whole).returncode == 0
    disk = mounted("-t", "tmpfs", "-o", "size=4096", "tmpfs")
    pages = -(-whole.stat().st_size // 4096)
    sizes = (1, 2, 3, pages // 2, pages - 1)
    for size in sizes:
        subprocess.run(["mount", "-o", f"remount,size={size * 4096}", str(disk)], check=True)
        done = command(*words, disk / "some.h5", code=_UNASKED + _COMMAND)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "some.h5: no space left to write (No space left on device)" in done.stderr
        assert list(disk.iterdir()) == []
    with capfd.disabled():
        print(f"\n{len(sizes)} disks for a portable file of {pages} pages: all one line")
    subprocess.run(["mount", "-o", f"remount,size={(pages + 1) * 4096}", str(disk)], check=True)
    assert command(*words, disk / "some.h5", code=_UNASKED + _COMMAND).returncode == 0
    assert (disk / "some.h5").read_bytes() == whole.read_bytes()


# --- read-only


def listing(folder: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        found[str(path.relative_to(folder))] = (
            status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        )  # fmt: skip
    return found


def test_a_read_only_disk_serves_every_reading_command_and_is_not_changed(
    mounted: Callable[..., Path], finished: Any, humeris: Callable[..., Any], tmp_path: Path
) -> None:
    before = listing(finished.cache)
    disk = mounted("--bind", str(finished.cache), name="shelf")
    remount = ["mount", "-o", "remount,ro,bind", str(disk)]
    if subprocess.run(remount, capture_output=True, check=False).returncode:
        pytest.skip("this root may not mount anything read-only")
    with pytest.raises(OSError, match="Read-only"):
        (disk / "x").touch()
    (extraction,) = humeris("cache", "list", "--cache", disk, "--json").json["extractions"]
    export = ("cache", "export", finished.photos, "-b", "nano", "-o", tmp_path / "all.h5")
    counts: Counter[str] = Counter()
    for words in (
        ("cache", "list"),
        ("cache", "info", extraction["extraction"]),
        ("cache", "verify"),
        ("sweep", finished.photos, "-j", 1, "--head", "logreg,C=1", "-o", tmp_path / "run"),
        export,
        ("export", finished.path, "-o", tmp_path / "model.keras"),
        ("extract", finished.photos, "-b", "nano", "-l", "block5_out"),
        ("doctor",),
    ):
        result = humeris(*words, "--cache", disk)
        assert (result.code, result.err) == (0, ""), (words, result.err, result.out)
        counts["commands that read"] += 1
    for words in (
        ("extract", finished.photos, "-b", "nano", "-l", "block3_out"),
        ("run", finished.photos, "-b", "nano", "-l", "block3_out", "-o", tmp_path / "other"),
    ):
        result = humeris(*words, "--cache", disk)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
        assert "folder is read-only" in result.err
        counts["refused to write"] += 1
    after = listing(finished.cache)
    counts["paths compared"], counts["changed"] = len(after), sum(before.get(name) != each for name, each in after.items())
    print(dict(counts))
    assert after == before
    assert (counts["commands that read"], counts["refused to write"]) == (8, 2)


def without_privileges() -> tuple[str, ...]:
    """What to put before a command so that permissions bind root as well."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root needs setpriv to give up its permissions")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@pytest.mark.skipif(os.name != "posix", reason="permissions are different here")
@pytest.mark.parametrize("what", ["shard", "folder of a tap"])
def test_what_may_not_be_read_is_named_and_computed_again_and_never_filled(
    what: str, photos: Path, humeris: Callable[..., Any], command: Callable[..., Any], tmp_path: Path
) -> None:
    before = without_privileges()
    words = ("extract", photos, "-b", "nano,image_size=32", "-l", "block2_out:avg", "-l", "block4_out:map", "-j", "1")
    for limit in (4, 12):
        assert humeris(*words, "--limit", limit).code == 0
    cache = tmp_path / "cache"
    rows = stored(cache)
    (first, *_) = sorted(cache.glob("features/*/block2_out.avg/*.h5"))
    shut = first if what == "shard" else first.parent
    mode = shut.stat().st_mode
    lost = len(next(item for item in shards(cache) if item.path == first).keys) if what == "shard" else 36
    shut.chmod(0)
    listed = command("cache", "list", before=before)
    assert listed.returncode in {1, 2}, listed.stdout
    assert "Traceback" not in listed.stderr
    assert "Permission denied" in listed.stdout + listed.stderr
    again = command(*words, "--json", before=before)
    if what == "shard":
        found = json.loads(again.stdout)
        assert again.returncode == 1, again.stderr
        assert found["damaged"] == [{"path": str(first), "reason": "cannot be read: Permission denied"}]
        assert found["extracted"][0]["rows"] == {"block2_out:avg": lost}
        assert found["extracted"][0]["computed"] == lost
    else:
        assert (again.returncode, again.stderr.count("\n")) == (2, 1), again.stderr
    if shut.exists() and shut.stat().st_mode & 0o777 == 0:
        shut.chmod(mode)
    assert stored(cache) == rows
    assert humeris("cache", "verify").code == 0


def shards(cache: Path) -> list[Any]:
    return [
        item
        for extraction in Store(cache).iter_extractions()
        for features in extraction.list_taps()
        for item in features.list_shards()
    ]


def stored(cache: Path) -> dict[tuple[str, str, bytes], bytes]:
    """Each row of each tap, as bytes."""
    found = {}
    for extraction in Store(cache).iter_extractions():
        for features in extraction.list_taps():
            for item in features.list_shards():
                for number, row in enumerate(item.read_rows()):
                    found[features.layer, features.pool, item.keys[number : number + 1].tobytes()] = row.tobytes()
    return found
