"""The index of files: an unchanged file is not read again, a changed one always is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.file_stamp import FileStamp
from humeris.cache.key_value_store import KeyValueStore
from humeris.extract.images.class_folders import ClassFolders
from humeris.extract.images.file_index import FileIndex, FileRecord
from humeris.extract.images.item import Item
from humeris.extract.pixels import decode

FACT = FileRecord(bytes(range(32)), "PNG")


@pytest.fixture
def memo(tmp_path: Path) -> KeyValueStore:
    return KeyValueStore(tmp_path / "index", tmp_path / "tmp", lambda: None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"one")
    settle(path)
    return path


def settle(path: Path) -> None:
    """Wait until any later change is certain to change the file's times (about 20 ms)."""
    while not FileStamp.from_path(path).is_stable(time.time_ns()):
        pass


def known(memo: KeyValueStore, file: Path) -> FileIndex:
    return FileIndex(memo, ClassFolders(file.parent))


def get(known: FileIndex, name: str, path: Path) -> FileRecord | None:
    """The record of one file."""
    found = known.look_up([Item(name, path)])
    return found.get(0) if found.has_record[0] else None


def remembered(memo: KeyValueStore, file: Path, fact: FileRecord = FACT) -> None:
    first = known(memo, file)
    first.put("a.png", FileStamp.from_path(file), fact, time.time_ns())
    first.save()


def test_a_fact_is_remembered_from_one_run_to_the_next(memo: KeyValueStore, file: Path) -> None:
    remembered(memo, file)
    assert get(known(memo, file), "a.png", file) == FACT
    assert get(known(memo, file), "b.png", file) is None


def test_a_refusal_is_remembered_with_its_reason(memo: KeyValueStore, file: Path) -> None:
    fact = FileRecord(bytes(32), "", "not_an_image", "found b'<ht\0ml>'")
    remembered(memo, file, fact)
    found = get(known(memo, file), "a.png", file)
    assert found == fact


def test_a_same_size_edit_with_its_time_put_back_is_noticed(memo: KeyValueStore, file: Path) -> None:
    status = file.stat()
    remembered(memo, file)
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_mtime_ns, file.stat().st_size) == (status.st_mtime_ns, status.st_size)
    assert get(known(memo, file), "a.png", file) is None


@pytest.mark.parametrize("shift", [-86_400, 3600, 366 * 86_400])
def test_a_changed_time_makes_the_file_unknown(shift: int, memo: KeyValueStore, file: Path) -> None:
    remembered(memo, file)
    os.utime(file, (file.stat().st_atime + shift, file.stat().st_mtime + shift))
    assert get(known(memo, file), "a.png", file) is None


def test_another_file_of_the_same_size_and_time_is_noticed(memo: KeyValueStore, file: Path) -> None:
    status = file.stat()
    remembered(memo, file)
    other = file.with_name("other")
    other.write_bytes(b"two")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)
    assert get(known(memo, file), "a.png", file) is None


def test_a_file_that_is_gone_is_unknown(memo: KeyValueStore, file: Path) -> None:
    remembered(memo, file)
    file.unlink()
    assert get(known(memo, file), "a.png", file) is None


def test_a_file_just_written_is_not_remembered(memo: KeyValueStore, file: Path) -> None:
    """A second change within one tick of the clock could leave the times unchanged."""
    file.write_bytes(b"new")
    os.utime(file, ns=(time.time_ns() + 10**9, time.time_ns() + 10**9))
    assert not FileStamp.from_path(file).is_stable(FileStamp.from_path(file).ctime_ns + 1)
    first = known(memo, file)
    first.put("a.png", FileStamp.from_path(file), FACT, FileStamp.from_path(file).ctime_ns + 1)
    first.save()
    assert get(known(memo, file), "a.png", file) is None


def test_a_file_system_of_whole_seconds_needs_longer(file: Path) -> None:
    stamp = FileStamp(1, 1, 10**9, 5 * 10**9)
    assert not stamp.is_stable(6 * 10**9)
    assert stamp.is_stable(8 * 10**9)
    assert FileStamp(1, 1, 10**9, 5 * 10**9 + 1).is_stable(6 * 10**9)


def test_what_is_gone_is_forgotten_and_the_rest_is_kept(memo: KeyValueStore, file: Path) -> None:
    first = known(memo, file)
    for name in ("a.png", "gone.png"):
        first.put(name, FileStamp.from_path(file), FACT, time.time_ns())
    first.save()
    second = known(memo, file)
    assert get(second, "gone.png", file) is None
    assert get(second, "a.png", file) == FACT
    (file.parent / "b.png").write_bytes(b"b")
    second.put("b.png", FileStamp.from_path(file), FACT, time.time_ns())
    second.save()
    assert get(known(memo, file), "a.png", file) == FACT


def test_a_file_changed_between_its_stamp_and_its_reading_is_not_remembered_by_a_late_clock(
    memo: KeyValueStore, file: Path
) -> None:
    """The time at which the stamp was taken counts, not the time at which the record is stored."""
    first = known(memo, file)
    stamp = FileStamp.from_path(file)
    first.put("a.png", stamp, FACT, stamp.ctime_ns)
    first.save()
    assert get(known(memo, file), "a.png", file) is None


def test_facts_of_another_pixels_version_are_not_used(
    memo: KeyValueStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(memo, file)
    monkeypatch.setattr(decode, "get_version", lambda: "0, other")
    assert get(known(memo, file), "a.png", file) is None


def test_facts_belong_to_their_root(memo: KeyValueStore, file: Path, tmp_path: Path) -> None:
    remembered(memo, file)
    assert get(FileIndex(memo, ClassFolders(tmp_path)), "a.png", file) is None
    link = tmp_path / "link"
    link.symlink_to(file.parent)
    assert get(FileIndex(memo, ClassFolders(link)), "a.png", file) == FACT


def test_damaged_facts_are_forgotten_and_found_out_again(memo: KeyValueStore, file: Path, tmp_path: Path) -> None:
    remembered(memo, file)
    (path,) = (tmp_path / "index").iterdir()
    good = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(good)
        changed[random.integers(len(good))] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        assert get(known(memo, file), "a.png", file) is None
        path.write_bytes(good[: random.integers(len(good))])
        assert get(known(memo, file), "a.png", file) is None


def test_names_of_any_bytes_and_digests_with_zeros_survive(memo: KeyValueStore, file: Path) -> None:
    names = ["new\nline", "caf\udce9", "=x", "ü", "x" * 255]
    facts = {name: FileRecord(bytes([number]) + bytes(31), "PNG") for number, name in enumerate(names)}
    first = known(memo, file)
    for name, fact in facts.items():
        (file.parent / name).write_bytes(b"")
        first.put(name, FileStamp.from_path(file), fact, time.time_ns())
    first.save()
    assert {name: get(known(memo, file), name, file) for name in names} == facts
