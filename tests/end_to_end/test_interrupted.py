"""Killed, interrupted, out of space, read-only: what was stored stays, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from humeris.cache import shard
from humeris.cache.errors import CacheFull, CacheReadOnly
from humeris.cache.inventory import verify
from humeris.cache.leases import Lease, Leases
from humeris.cache.store import Store
from humeris.extract.backbones.forward import ForwardPass
from humeris.extract.engine import extract as extraction
from humeris.extract.engine import row_writer
from humeris.extract.engine.extract import ExtractResult, extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images

TAPS = ("-l", "block2_out:avg", "-l", "block4_out:map")
OPTIONS = ("-b", "nano,image_size=32", *TAPS, "--batch-size", "4", "-j", "1")

# A real command whose writer stores every batch, and that sends itself a signal at a given call.
_DRIVER = """
import os, signal, sys
from humeris.extract.backbones import forward
from humeris.extract.engine import row_writer as writer
from humeris.cache import atomic_files as files

writer._BYTES = 1
where, left, number = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))

def counted(real):
    def call(*arguments, **options):
        global left
        if where != "rename" or str(arguments[1]).endswith(".h5"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)
        return real(*arguments, **options)
    return call

if where == "forward":
    forward.ForwardPass.__call__ = counted(forward.ForwardPass.__call__)
else:
    setattr(os, where, counted(getattr(os, where)))
from humeris.cli import main
main()
"""


def driven(data: Path, where: str, count: int, number: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _DRIVER, where, str(count), str(int(number)), "extract", data, *OPTIONS]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def extract(data: Path) -> ExtractResult:
    with Store(write=True) as store:
        images = load_images(data, store, jobs=1)
        return extract_features(
            images, store, ExtractConfig("nano,image_size=32", layers=[TAPS[1], TAPS[3]], batch_size=4, jobs=1)
        )[0]


def contents(done: ExtractResult) -> dict[str, bytes]:
    """The rows of each tap, as bytes."""
    stored = Store().get_extraction(done.metadata.spec)
    return {str(tap): stored.get_features(tap.layer, tap.pool).read(done.images.keys).tobytes() for tap in done.taps}


@pytest.fixture
def uninterrupted(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """What an extraction that nothing disturbed stores, in a cache of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("HUMERIS_CACHE", str(tmp_path / "other"))
        return contents(extract(photos))


def sound() -> None:
    with Store() as store:
        found = verify(store)
    assert found["damaged"] == []
    assert found["rows_not_finite"] == 0


def test_a_command_killed_at_any_moment_goes_on_where_it_was(photos: Path, uninterrupted: dict[str, bytes]) -> None:
    for where, count in (("rename", 3), ("fsync", 24)):
        assert driven(photos, where, count, signal.SIGKILL).returncode == -signal.SIGKILL
        sound()
    stored = sum(1 for _ in Store().path.glob("features/*/*/*.h5"))
    assert stored >= 4
    done = extract(photos)
    assert 0 < done.computed < 36
    assert contents(done) == uninterrupted
    assert extract(photos).computed == 0
    sound()


def test_an_interrupted_command_keeps_what_it_computed_and_names_the_command_that_goes_on(
    photos: Path, uninterrupted: dict[str, bytes]
) -> None:
    done = driven(photos, "forward", 4, signal.SIGINT)
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert f"humeris extract {photos} -b nano,image_size=32 -l block2_out:avg" in lines[0]
    sound()
    rest = extract(photos)
    assert 36 - 16 <= rest.computed <= 36 - 12
    assert contents(rest) == uninterrupted


def test_what_waits_in_memory_is_stored_on_an_interrupt(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ForwardPass.__call__

    def call(self: ForwardPass, images: Any) -> Any:
        if self.passes == 3:
            raise KeyboardInterrupt
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(ForwardPass, "__call__", call)
        with pytest.raises(KeyboardInterrupt):
            extract(photos)
    assert extract(photos).computed == 36 - 12


@pytest.mark.parametrize("numbers", [(1, 4, 11), pytest.param((2, 7), marks=pytest.mark.many)])
def test_an_extraction_that_fails_at_any_write_leaves_only_sound_rows_and_completes_later(
    numbers: tuple[int, ...], photos: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, bytes]
) -> None:
    monkeypatch.setattr(row_writer, "_BYTES", 1)
    real = os.write
    for number in numbers:
        left = number

        def write(descriptor: int, data: Any) -> int:
            nonlocal left
            left -= 1
            if left <= 0:
                raise OSError(28, "No space left on device")
            return real(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(CacheFull, match="free some space"):
                extract(photos)
        sound()
        assert not list(Store().path.glob("tmp/*"))
    assert contents(extract(photos)) == uninterrupted


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and leave to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_line_and_a_run_with_space_completes(
    photos: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, bytes],
    humeris: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(row_writer, "_BYTES", 1)
    monkeypatch.setenv("HUMERIS_CACHE", str(small_disk / "cache"))
    (small_disk / "ballast").write_bytes(bytes(230_000))
    result = humeris("extract", photos, *OPTIONS)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert "No space left on device" in result.err
    assert "free some space" in result.err
    sound()
    assert list(Store().path.glob("features/*/*/*.h5"))
    (small_disk / "ballast").unlink()
    done = extract(photos)
    assert 0 < done.computed < 36
    assert contents(done) == uninterrupted


_FULL = """
import resource, signal, sys
import numpy as np
from humeris.cache import shard
from humeris.cache.errors import CacheFull
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store

keys = shard.to_keys([bytes([number]) * 32 for number in range(1, 9)])
spec = ExtractionSpec("toy", "toy()", "random", "00", (8, 8), "tf", "1")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
store = Store(sys.argv[1], write=True)
try:
    store.get_extraction(spec).add("conv", "avg", keys, np.ones((8, 512), np.float32))
    print("stored")
except CacheFull:
    print("full")
store.flush()
"""


@pytest.mark.parametrize("limit", [0, 1, 100, 600, 5000, 20_000, 10**6])
def test_a_file_size_limit_ends_no_process_by_a_crash(limit: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FULL, tmp_path / "c", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("stored\n" if limit > 20_000 else "full\n")
    assert all(shard.check_digest(path) is None for path in tmp_path.glob("c/features/*/*/*.h5"))
    assert not list(tmp_path.glob("c/tmp/*"))


# --- a read-only cache


def _locked_down() -> list[str]:
    """A prefix under which not even root may write to what is read-only, or [] where it is not needed."""
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root needs setpriv to be kept from writing")
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search,-fowner"]


@pytest.fixture
def read_only(photos: Path) -> Iterator[Path]:
    extract(photos)
    cache = Store().path
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield cache
    for folder in folders:
        folder.chmod(0o755)


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*_locked_down(), sys.executable, "-c", "from humeris.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _listing(folder: Path) -> dict[str, tuple[int, ...]]:
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths}


def test_a_completed_run_again_works_on_a_read_only_cache_and_writes_nothing(photos: Path, read_only: Path) -> None:
    before = _listing(read_only)
    probe = subprocess.run([*_locked_down(), "touch", str(read_only / "x")], capture_output=True, check=False)
    assert probe.returncode != 0, "the folder is not read-only"
    done = _command("extract", photos, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "0 computed" in done.stdout
    assert _command("cache", "list").returncode == 0
    assert _command("cache", "verify").returncode == 0
    assert _listing(read_only) == before


def test_a_read_only_cache_that_lacks_rows_is_one_line_and_no_network_is_built(
    photos: Path, read_only: Path, draw_image: Callable[..., Path]
) -> None:
    draw_image(photos / "blob" / "new.png", 1, 99)
    before = _listing(read_only)
    done = _command("extract", photos, *OPTIONS)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "read-only" in done.stderr
    assert "--cache" in done.stderr
    assert _listing(read_only) == before


def test_a_damaged_shard_in_a_read_only_cache_is_one_line(photos: Path, read_only: Path) -> None:
    path = sorted(read_only.glob("features/*/block2_out.avg/*.h5"))[0]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    path.chmod(0o444)
    done = _command("extract", photos, *OPTIONS)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "read-only" in done.stderr
    done = _command("cache", "verify")
    assert done.returncode == 1, done.stderr
    assert "digest" in done.stdout


def test_a_read_only_cache_is_found_out_before_the_network_runs(
    photos: Path, monkeypatch: pytest.MonkeyPatch, draw_image: Callable[..., Path]
) -> None:
    extract(photos)
    draw_image(photos / "blob" / "new.png", 1, 99)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(extraction, "build", lambda _: pytest.fail("the network was built for nothing"))
    with pytest.raises(CacheReadOnly):
        extract(photos)


# --- several at once


def test_two_extractions_at_once_make_one_sound_cache(
    photos: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, bytes]
) -> None:
    """Interleaved batch by batch, whatever is claimed: while one stores, the other has begun with the same gaps."""
    monkeypatch.setattr(row_writer, "_BYTES", 1)
    monkeypatch.setattr(Leases, "acquire", lambda *_: Lease(None))
    real = ForwardPass.__call__
    inside = False

    def call(self: ForwardPass, images: Any) -> Any:
        nonlocal inside
        if not inside and self.passes == 4:
            inside = True
            assert extract(photos).computed == 36 - 16
        return real(self, images)

    monkeypatch.setattr(ForwardPass, "__call__", call)
    done = extract(photos)
    assert inside
    assert done.computed == 36
    assert contents(done) == uninterrupted
    sound()
