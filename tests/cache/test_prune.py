"""Making room in a cache: what goes, what stays, and that nobody who reads or writes meanwhile is harmed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache import atomic_files, shard
from humeris.cache import prune as pruning
from humeris.cache import row_reader as reading
from humeris.cache.errors import CacheError, RowsMissing
from humeris.cache.prune import parse_age, parse_size, prune
from humeris.cache.shard import to_keys
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.commands.render import cache as render

SPEC = ExtractionSpec("toy", "toy()", "random, seed 0", "ab" * 32, (8, 8), "tf", "1")
OTHER = replace(SPEC, backbone="other", preprocessing="torch")
KEYS = to_keys([hashlib.sha256(bytes([number])).digest() for number in range(16)])
ROWS = np.random.default_rng(0).normal(size=(16, 100)).astype(np.float32)
LAYERS = [{"name": "conv", "cost": 1}, {"name": "late", "cost": 2}]
DAY = 86400


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three taps of two shards each: 10, 20 and 30 days old; of the youngest, one shard is 90 days old."""
    path = tmp_path / "cache"
    with Store(path, write=True) as store:
        for spec, layer, ages in ((SPEC, "conv", (20, 25)), (SPEC, "late", (10, 90)), (OTHER, "conv", (30, 31))):
            extraction = store.get_extraction(spec)
            extraction.create(LAYERS)
            for part, age in zip((slice(0, 8), slice(8, 16)), ages, strict=True):
                before = set(path.rglob("*.h5"))
                extraction.add(layer, "avg", KEYS[part], ROWS[part])
                (new,) = set(path.rglob("*.h5")) - before
                os.utime(new, (0, time.time() - age * DAY))
    return path


def taps(path: Path) -> list[str]:
    store = Store(path)
    return [f"{each.spec.backbone} {tap.layer}" for each in store.iter_extractions() for tap in each.list_taps()]


def run(path: Path, **options: Any) -> dict[str, Any]:
    with Store(path, write=True) as store:
        return prune(store, **options)


# --- what goes


@pytest.mark.parametrize(
    ("days", "stay"),
    [(5, []), (15, ["toy late"]), (25.5, ["toy conv", "toy late"]), (35, ["other conv", "toy conv", "toy late"])],
)
def test_a_tap_goes_whole_by_when_it_last_got_rows(days: float, stay: list[str], cache: Path) -> None:
    found = run(cache, older_than=days * DAY)
    assert taps(cache) == stay
    assert found["kept"] == len(stay)
    for name in stay:
        spec = SPEC if name.startswith("toy") else OTHER
        assert np.array_equal(Store(cache).get_extraction(spec).get_features(name.split()[1], "avg").read(KEYS), ROWS)


def test_to_fit_a_size_the_oldest_taps_go_first_and_no_more_than_needed(cache: Path) -> None:
    sizes = {path.parent: 0 for path in cache.rglob("*.h5")}
    for path in cache.rglob("*.h5"):
        sizes[path.parent] += path.stat().st_size
    total = sum(sizes.values())
    assert run(cache, max_bytes=total)["removed"] == []
    found = run(cache, max_bytes=total - 1)
    (gone,) = found["removed"]
    assert (gone["extraction"], gone["tap"], gone["shards"], gone["age_days"]) == (OTHER.folder_name, "conv:avg", 2, 30.0)
    assert taps(cache) == ["toy conv", "toy late"]
    assert found["bytes"] + found["bytes_kept"] == total
    assert found["bytes_kept"] == sum(path.stat().st_size for path in cache.rglob("*.h5"))
    run(cache, max_bytes=0)
    assert taps(cache) == []


def test_both_criteria_may_be_given(cache: Path) -> None:
    run(cache, older_than=25 * DAY, max_bytes=1)
    assert taps(cache) == []


def test_neither_criterion_is_an_error(cache: Path) -> None:
    with pytest.raises(CacheError, match="--older-than or --max-size"):
        run(cache)
    assert len(taps(cache)) == 3


def test_an_extraction_without_rows_goes_and_the_cache_stays_one(cache: Path) -> None:
    run(cache, older_than=25.5 * DAY)
    assert [path.name for path in (cache / "features").iterdir()] == [SPEC.folder_name]
    run(cache, max_bytes=0)
    assert list((cache / "features").iterdir()) == []
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", KEYS, ROWS)
    assert taps(cache) == ["toy conv"]


def test_what_damage_and_killed_processes_left_goes_and_nothing_else(cache: Path) -> None:
    home = cache / "features" / SPEC.folder_name
    rubbish = [home / "conv.avg" / f"{'0' * 64}.h5.corrupt", cache / "tmp" / "1-old"]
    keep = [cache / "tmp" / "1-young", home / "late.avg" / "notes.txt", cache / "index" / "x"]
    keep[2].parent.mkdir(exist_ok=True)
    for path in rubbish + keep:
        path.write_bytes(b"x")
    os.utime(rubbish[1], (0, 0))
    (home / "empty.avg").mkdir()
    (cache / "features" / "nothing").mkdir()
    outside = cache.parent / "outside"
    outside.mkdir()
    (outside / f"{'1' * 64}.h5").write_bytes(b"precious")
    (home / "link.avg").symlink_to(outside)
    found = run(cache, older_than=1000 * DAY)
    assert (found["removed"], found["set_aside"], found["drafts"]) == ([], [str(rubbish[0])], 1)
    assert not any(path.exists() for path in rubbish)
    assert all(path.exists() for path in keep)
    assert sorted(path.name for path in home.iterdir()) == ["conv.avg", "late.avg", "layers.json", "link.avg", "spec.json"]
    assert not (cache / "features" / "nothing").exists()
    run(cache, max_bytes=0)
    assert (outside / f"{'1' * 64}.h5").read_bytes() == b"precious"
    assert keep[1].exists()


def test_a_rehearsal_says_the_same_and_removes_nothing(cache: Path) -> None:
    (cache / "features" / SPEC.folder_name / "conv.avg" / f"{'0' * 64}.h5.corrupt").write_bytes(b"x")
    (cache / "features" / "nothing").mkdir()
    before = sorted(cache.rglob("*"))
    said = run(cache, older_than=15 * DAY, dry_run=True)
    assert sorted(cache.rglob("*")) == before
    assert {**said, "dry_run": False} == run(cache, older_than=15 * DAY)
    assert len(said["removed"]) == 2


def test_rows_whose_spec_was_lost_are_pruned_like_others(cache: Path) -> None:
    (cache / "features" / OTHER.folder_name / "spec.json").unlink()
    assert len(run(cache, older_than=25.5 * DAY)["removed"]) == 1
    assert not (cache / "features" / OTHER.folder_name).exists()


# --- beside others


def test_a_reader_that_mapped_a_shard_keeps_its_rows(cache: Path) -> None:
    mapped = [item.read_rows() for item in Store(cache).get_extraction(SPEC).get_features("conv", "avg").list_shards()]
    run(cache, max_bytes=0)
    assert sorted(np.concatenate(mapped)[:, 0].tolist()) == sorted(ROWS[:, 0].tolist())


def test_a_reader_that_lost_its_rows_sees_a_miss_and_no_damage(cache: Path) -> None:
    store = Store(cache)
    reader = store.get_extraction(SPEC).get_features("conv", "avg")
    assert np.array_equal(reader.read(KEYS), ROWS)
    run(cache, max_bytes=0)
    with pytest.raises(RowsMissing, match=f"0 of {len(KEYS)} images are cached"):
        reader.read(KEYS)
    assert reader.find_missing(KEYS).all()
    assert list(store.iter_extractions()) == []
    assert store.corrupt_files == []


@pytest.mark.parametrize("compression", ["none", "gzip", "blosc2"])
def test_rows_removed_between_finding_and_reading_are_a_miss_unless_stored_elsewhere(
    compression: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).add("both", "avg", KEYS, ROWS, compression=compression)
        store.get_extraction(SPEC).add("both", "avg", KEYS[:8], ROWS[:8], compression=compression)
    store = Store(cache)
    reader = store.get_extraction(SPEC).get_features("both", "avg")
    real = reading.read
    removed: list[Path] = []

    def read(path: Path, *rest: Any) -> None:
        if not removed:
            path.unlink()
            removed.append(path)
        real(path, *rest)

    monkeypatch.setattr(reading, "read", read)
    paths = {len(item.keys): item.path for item in reader.list_shards()}
    try:
        assert np.array_equal(reader.read(KEYS[:8]), ROWS[:8])
        assert len(removed) == 1
    finally:
        lost = removed[0] == paths[16]
    if lost:
        with pytest.raises(RowsMissing, match=f"8 of {len(KEYS)} images are cached"):
            reader.read(KEYS)
    assert store.corrupt_files == []


@pytest.mark.parametrize("reason", ["", "can't retrieve stat info for file"])
@pytest.mark.parametrize("name", ["check_digest", "load"])
def test_a_shard_removed_while_it_is_opened_is_no_damage(
    name: str, reason: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the operating system says that it is gone, or HDF5 in its own words."""

    shutil.rmtree(cache / "index", ignore_errors=True)
    real = getattr(shard, name)

    def call(path: Path, *rest: Any) -> Any:
        path.unlink()
        if reason:
            raise shard.CorruptFile(reason)
        return real(path, *rest)

    monkeypatch.setattr(shard, name, call)
    store = Store(cache)
    assert store.get_extraction(SPEC).get_features("conv", "avg").find_missing(KEYS).all()
    assert store.corrupt_files == []


def test_a_writer_whose_folder_is_removed_makes_it_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every step of the writer that changes or syncs a folder, the cache is pruned just before it."""
    names = ("mkdir", "open", "rename", "fsync")
    for number in range(1, 40):
        path = cache.parent / str(number)
        left = number
        with Store(path, write=True) as store, monkeypatch.context() as patch:
            store.create()
            extraction = store.get_extraction(SPEC)
            extraction.create(LAYERS)
            busy = False

            def before(real: Callable[..., Any], path: Path = path) -> Callable[..., Any]:
                def call(*args: Any, **options: Any) -> Any:
                    nonlocal left, busy
                    if not busy:
                        left -= 1
                        if left == 0:
                            busy = True
                            with Store(path, write=True) as other:
                                pruning.prune(other, older_than=1000 * DAY)
                            busy = False
                    return real(*args, **options)

                return call

            for name in names:
                patch.setattr(os, name, before(getattr(os, name)))
            extraction.add("conv", "avg", KEYS, ROWS)
        (found,) = Store(path).iter_extractions()
        assert found.spec == SPEC
        assert found.layers == LAYERS
        assert np.array_equal(found.get_features("conv", "avg").read(KEYS), ROWS)
        if left > 0:
            break
    assert 5 < number < 39


def test_a_spec_that_a_writer_needs_again_is_given_back(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer stores rows after prune found the extraction empty, and is done before prune removes its spec."""
    run(cache, max_bytes=0)
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).create(LAYERS)
    real = pruning.read_spec
    written: list[int] = []

    def read_spec(path: Path) -> Any:
        if not written:
            with Store(cache, write=True) as store:
                written.append(store.get_extraction(SPEC).add("conv", "avg", KEYS, ROWS))
        return real(path)

    monkeypatch.setattr(pruning, "read_spec", read_spec)
    run(cache, max_bytes=0)
    assert written
    (found,) = Store(cache).iter_extractions()
    assert found.layers == LAYERS
    assert np.array_equal(found.get_features("conv", "avg").read(KEYS), ROWS)


_WRITER = """
import hashlib, sys
import numpy as np
from humeris.cache.shard import to_keys
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
spec = ExtractionSpec("toy", "toy()", "random, seed 0", "ab" * 32, (8, 8), "tf", "1")
name = sys.argv[2]
for number in range(60):
    keys = to_keys([hashlib.sha256(f"{name} {number} {row}".encode()).digest() for row in range(4)])
    rows = np.arange(4 * 8, dtype=np.float32).reshape(4, 8) + number
    with Store(sys.argv[1], write=True) as store:
        extraction = store.get_extraction(spec)
        extraction.add("conv", "avg", keys, rows)
        tap = extraction.get_features("conv", "avg")
        there = ~tap.find_missing(keys)
        try:
            assert not there.any() or np.array_equal(tap.read(keys[there]), rows[there])
        except LookupError:
            pass  # pruned between the two
        assert store.corrupt_files == [], store.corrupt_files
print("done")
"""


def test_writers_and_readers_go_on_while_the_cache_is_emptied_over_and_over(tmp_path: Path) -> None:
    """Two processes store and read, a thread of this one prunes everything as fast as it can; nothing fails or is wrong."""
    path = tmp_path / "cache"
    with Store(path, write=True) as store:
        store.create()
    command = [sys.executable, "-c", _WRITER, path]
    writers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in "ab"
    ]
    stop, failed, removed = threading.Event(), [], 0

    def sweep() -> None:
        nonlocal removed
        while not stop.is_set():
            try:
                removed += sum(each["shards"] for each in run(path, max_bytes=0)["removed"])
            except Exception as error:  # shown by the assertion below
                failed.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    outcomes = [process.communicate(timeout=120) for process in writers]
    stop.set()
    thread.join()
    assert [(out.strip(), err) for out, err in outcomes] == [("done", ""), ("done", "")]
    assert failed == []
    assert removed > 20
    run(path, max_bytes=0)
    assert list(Store(path).iter_extractions()) == []


# --- the command


@pytest.mark.parametrize(
    ("said", "seconds"), [("30d", 30 * DAY), ("12h", 43200), ("2 w", 14 * DAY), ("0.5m", 30), ("0s", 0)]
)
def test_an_age_is_a_number_and_a_unit(said: str, seconds: float) -> None:
    assert parse_age(said) == seconds


@pytest.mark.parametrize(
    ("said", "count"),
    [("10GB", 10**10), ("500 MB", 5 * 10**8), ("1.5GiB", 3 << 29), ("0", 0), ("7", 7), ("2kB", 2000), ("2K", 2000)],
)
def test_a_size_is_a_number_and_a_unit(said: str, count: int) -> None:
    assert parse_size(said) == count


@pytest.mark.parametrize("said", ["", "d", "30", "-1d", "1y", "1e9d", "nan d"])
def test_something_else_is_no_age(said: str) -> None:
    with pytest.raises(CacheError, match="such as 30d"):
        parse_age(said)


@pytest.mark.parametrize("said", ["", "GB", "-1GB", "1PB", "inf", "1e3"])
def test_something_else_is_no_size(said: str) -> None:
    with pytest.raises(CacheError, match="such as 10GB"):
        parse_size(said)


def test_the_command_says_what_it_did(cache: Path, humeris: Callable[..., Any]) -> None:
    done = humeris("cache", "prune", "--older-than", "15d", "--dry-run")
    assert done.code == 0
    assert "nothing was removed" in done.out
    assert len(taps(cache)) == 3
    done = humeris("cache", "prune", "--older-than", "15d", "--max-size", "1GB", "--json")
    assert done.code == 0
    assert [each["tap"] for each in done.json["removed"]] == ["conv:avg", "conv:avg"]
    assert taps(cache) == ["toy late"]
    done = humeris("cache", "prune", "--max-size", "0")
    assert done.code == 0
    assert "late:avg" in done.out
    assert humeris("cache", "list").code == 0


@pytest.mark.parametrize("options", [[], ["--older-than", "soon"], ["--max-size", "big"], ["--dry-run"]])
def test_a_criterion_that_is_missing_or_unclear_is_exit_code_two(
    options: list[str], cache: Path, humeris: Callable[..., Any]
) -> None:
    done = humeris("cache", "prune", *options)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err
    assert len(taps(cache)) == 3


def test_pruning_a_cache_that_does_not_exist_does_not_create_it(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    done = humeris("cache", "prune", "--max-size", "0", "--cache", tmp_path / "none", "--json")
    assert (done.code, done.json["removed"]) == (0, [])
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_removed_is_listed_and_the_rest_is_done(
    cache: Path, monkeypatch: pytest.MonkeyPatch, humeris: Callable[..., Any]
) -> None:
    stuck = sorted(cache.rglob("*.h5"))[0]
    real = os.unlink

    def unlink(path: Any, *args: Any, **options: Any) -> None:
        if Path(path) == stuck:
            raise PermissionError(1, "Operation not permitted")
        real(path, *args, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    done = humeris("cache", "prune", "--max-size", "0", "--json")
    assert done.code == 1
    assert done.json["left_out"] == [{"path": str(stuck), "reason": "Operation not permitted"}]
    assert list(cache.rglob("*.h5")) == [stuck]
    assert "cannot remove " in render.format_pruning(done.json)


def test_a_cache_that_may_not_be_written_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, humeris: Callable[..., Any]
) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    done = humeris("cache", "prune", "--max-size", "0")
    assert done.code == 2
    assert "read-only" in done.err
    assert len(taps(cache)) == 3


def test_drafts_that_are_still_being_written_stay(cache: Path) -> None:
    draft = cache / "tmp" / "2-draft"
    draft.write_bytes(b"x")
    assert atomic_files.list_stale(cache / "tmp") == []
    assert json.loads(json.dumps(run(cache, max_bytes=0)))["drafts"] == 0
    assert draft.exists()
