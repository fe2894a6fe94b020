"""The cache folder: rows come back as they were stored, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from humeris.cache import row_reader as rows
from humeris.cache import shard, verification
from humeris.cache import store as store_module
from humeris.cache.errors import CacheError, CacheReadOnly, NotACache, RowsMissing
from humeris.cache.extraction import Extraction, read_spec
from humeris.cache.file_stamp import FileStamp
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.cache.tap_features import TapFeatures

SPEC = ExtractionSpec(
    backbone="toy",
    architecture="toy()",
    weights="random, seed 0",
    weights_sha256="ab" * 32,
    image_size=(8, 8),
    preprocessing="tf",
    pixels="1",
)
KEYS = shard.to_keys([hashlib.sha256(bytes([number])).digest() for number in range(24)])
ROWS = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)


def filled(path: Path) -> Path:
    """A cache of 24 rows of one tap, in three shards."""
    with Store(path, write=True) as store:
        for part in (slice(0, 8), slice(8, 16), slice(16, 24)):
            store.get_extraction(SPEC).add("conv", "avg", KEYS[part], ROWS[part])
    return remembered(path)


def remembered(path: Path) -> Path:
    """The cache once its shards were verified late enough for that to be written down."""
    for each in shards(path):
        while not FileStamp.from_path(each).is_stable(time.time_ns()):
            pass
    with Store(path, write=True) as store:
        for extraction in store.iter_extractions():
            for features in extraction.list_taps():
                features.list_shards()
    return path


def tap(path: Path, write: bool = False) -> TapFeatures:
    return Store(path, write=write).get_extraction(SPEC).get_features("conv", "avg")


def shards(path: Path) -> list[Path]:
    return sorted(path.glob("features/*/*/*.h5"))


def overwrite(path: Path, data: bytes) -> None:
    """Change a file in place, later than the last tick of the clock that it has seen."""
    before = path.stat().st_ctime_ns
    path.chmod(0o644)
    path.write_bytes(data)
    while path.stat().st_ctime_ns == before:
        path.write_bytes(data)


def listing(path: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for each in [path, *path.rglob("*")]:
        status = each.lstat()
        found[str(each)] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


# --- what is stored


def test_rows_come_back_in_any_order_and_as_often_as_asked(tmp_path: Path) -> None:
    features = tap(filled(tmp_path / "c"))
    order = np.array([23, 0, 9, 9, 15, 1])
    assert np.array_equal(features.read(KEYS[order]), ROWS[order])
    assert not features.find_missing(KEYS).any()


def test_shards_are_named_by_their_digest_and_read_only(tmp_path: Path) -> None:
    found = shards(filled(tmp_path / "c"))
    assert len(found) == 3
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
        assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_the_folder_is_laid_out_as_documented(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    assert (cache / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert json.loads((cache / "humeris.json").read_bytes())["format"] == 2
    spec = json.loads((cache / "features" / SPEC.folder_name / "spec.json").read_bytes())
    assert ExtractionSpec.from_dict(spec) == SPEC
    assert {path.parent.name for path in shards(cache)} == {"conv.avg"}
    assert list((cache / "tmp").iterdir()) == []


def test_each_shard_repeats_the_spec(tmp_path: Path) -> None:
    import h5py

    for path in shards(filled(tmp_path / "c")):
        with h5py.File(path) as file:
            said = json.loads(file.attrs["attributes"])
        assert ExtractionSpec.from_dict(said["spec"]) == SPEC
        assert (said["extraction"], said["layer"], said["pool"]) == (SPEC.digest, "conv", "avg")


def test_missing_rows_are_an_error_and_never_zeros(tmp_path: Path) -> None:
    features = tap(filled(tmp_path / "c"))
    other = shard.to_keys([hashlib.sha256(b"other").digest()])
    assert features.find_missing(np.concatenate([KEYS[:2], other])).tolist() == [False, False, True]
    with pytest.raises(RowsMissing, match=r"rows are missing: 2 of 3 images are cached.*humeris extract"):
        features.read(np.concatenate([KEYS[:2], other]))
    with pytest.raises(RowsMissing):
        tap(tmp_path / "none").read(KEYS[:1])
    with pytest.raises(LookupError):
        features.read(other)


def test_keys_that_differ_after_a_zero_byte_are_different_rows(tmp_path: Path) -> None:
    keys = shard.to_keys([b"\0" * 32, b"a" + b"\0" * 31, b"a\0b" + b"\0" * 29, b"a\0c" + b"\0" * 29])
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", keys, ROWS[:4])
    assert np.array_equal(tap(tmp_path / "c").read(keys[::-1]), ROWS[:4][::-1])


def test_storing_no_rows_writes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "c", write=True) as store:
        assert store.get_extraction(SPEC).add("conv", "avg", KEYS[:0], ROWS[:0]) == 0
    assert not (tmp_path / "c").exists()


def test_rows_of_both_widths_may_lie_side_by_side(tmp_path: Path) -> None:
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "map", KEYS[:2], ROWS[:2].astype(np.float16))
        store.get_extraction(SPEC).add("conv", "map", KEYS[2:4], ROWS[2:4] * 1e6)
    found = Store(tmp_path / "c").get_extraction(SPEC).get_features("conv", "map").read(KEYS[:4])
    assert found.dtype == np.float32
    assert np.array_equal(found, np.concatenate([ROWS[:2].astype(np.float16).astype(np.float32), ROWS[2:4] * 1e6]))


def test_each_view_is_a_row_of_its_own_and_another_view_is_a_miss(tmp_path: Path) -> None:
    views = np.array([0, 1, 2] * 8, np.uint16)
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", KEYS[:8].repeat(3), ROWS, views=views)
        store.get_extraction(SPEC).add("conv", "avg", KEYS[8:10], ROWS[8:10], views=np.full(2, 65535, np.uint16))
    features = tap(tmp_path / "c")
    for view in range(3):
        assert np.array_equal(features.read(KEYS[:8][::-1], view), ROWS[view::3][::-1])
        assert features.find_missing(KEYS[:10], view).tolist() == [False] * 8 + [True] * 2
    assert np.array_equal(features.read(KEYS[8:10], view=65535), ROWS[8:10])
    assert features.find_missing(KEYS, view=3).all()
    with pytest.raises(RowsMissing):
        features.read(KEYS[8:10])
    assert np.array_equal(features.read(KEYS[:8]), features.read(KEYS[:8], view=0))


def test_views_added_by_another_process_are_found(tmp_path: Path) -> None:
    early = tap(filled(tmp_path / "c"))
    assert early.find_missing(KEYS, view=1).all()
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", KEYS, -ROWS, views=np.ones(24, np.uint16))
    assert np.array_equal(early.read(KEYS, view=1), -ROWS)
    assert np.array_equal(early.read(KEYS), ROWS)


def test_rows_of_every_dtype_are_read_in_the_widest(tmp_path: Path) -> None:
    rows = {"float16": ROWS[:8].astype(np.float16), "bfloat16": ROWS[8:16].astype(ml_dtypes.bfloat16), "float32": ROWS[16:]}
    parts = {"float16": KEYS[:8], "bfloat16": KEYS[8:16], "float32": KEYS[16:]}
    wanted = np.concatenate([each.astype(np.float32) for each in rows.values()])
    for number, names in enumerate((["bfloat16"], ["float16", "bfloat16"], ["float16", "bfloat16", "float32"])):
        with Store(tmp_path / str(number), write=True) as store:
            for name in names:
                store.get_extraction(SPEC).add("conv", "avg", parts[name], rows[name])
        features = tap(tmp_path / str(number))
        assert {item.stored_dtype for item in features.list_shards()} == set(names)
        mine = np.concatenate([np.nonzero(np.isin(KEYS, parts[name]))[0] for name in names])[::-1]
        read = features.read(KEYS[mine])
        assert read.dtype == np.float32
        assert np.array_equal(read, wanted[mine])


def test_equal_rows_from_two_workers_are_one_file(tmp_path: Path) -> None:
    filled(filled(tmp_path / "c"))
    assert len(shards(tmp_path / "c")) == 3
    victim = shards(tmp_path / "c")[0]
    overwrite(victim, victim.read_bytes()[:-1])  # and the second worker's file takes the place of a damaged one
    filled(tmp_path / "c")
    assert len(shards(tmp_path / "c")) == 3
    assert np.array_equal(tap(tmp_path / "c").read(KEYS), ROWS)


@pytest.mark.parametrize("columns", [1, 3, 500, 1024, 5000, 400_000])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_right_whichever_way_they_are_read(
    columns: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few and many, in order, in runs, shuffled, twice, by one thread and by several."""
    random = np.random.default_rng(columns)
    count = 2000 if columns < 5000 else 40
    keys = shard.to_keys([hashlib.sha256(str(number).encode()).digest() for number in range(count)])
    rows = random.normal(size=(count, columns)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    with Store(tmp_path / "c", write=True) as store:
        for part in np.array_split(np.arange(count), 3):
            store.get_extraction(SPEC).add("conv", "avg", keys[part], rows[part])
    features = tap(tmp_path / "c")
    whole, shuffled = np.arange(count), random.permutation(count)
    runs = np.concatenate(np.array_split(whole, 7)[::-1])
    orders = [whole, shuffled, runs, whole[::-1], shuffled[:9], np.repeat(shuffled[:20], 3), whole[5:6], whole[3:-3]]
    for worth in (1 << 40, 1):
        monkeypatch.setattr("humeris.cache.tap_features._MIN_THREADED_BYTES", worth)
        for order in orders:
            assert np.array_equal(features.read(keys[order]), rows[order].astype(np.float32))


def test_a_file_that_shrinks_while_it_is_read_is_a_miss_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = filled(tmp_path / "c")
    store = Store(cache)
    features = store.get_extraction(SPEC).get_features("conv", "avg")
    victim = shards(cache)[0]
    real = rows.read

    def read(path: Path, *rest: object) -> None:
        if path == victim:
            victim.chmod(0o644)
            os.truncate(victim, 10)
        real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "read", read)
    with pytest.raises(RowsMissing, match=f"16 of {len(KEYS)} images are cached"):
        features.read(KEYS)
    assert [found.path for found in store.corrupt_files] == [victim]


def test_rows_of_two_shapes_under_one_tap_are_refused_in_one_line(tmp_path: Path) -> None:
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", KEYS[:8], ROWS[:8])
        store.get_extraction(SPEC).add("conv", "avg", KEYS[8:], ROWS[8:, :1])
    with pytest.raises(CacheError, match=r"rows differ in shape: \[\(1,\), \(16,\)\]"):
        tap(tmp_path / "c").read(KEYS)


def test_keys_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """The index sorts by the first eight bytes; digests made to share them or to crowd together are found too."""
    alike = [b"\xff" * 8 + hashlib.sha256(bytes([number])).digest()[:24] for number in range(10)]
    crowded = [b"\x01" * 7 + bytes([number]) + bytes(24) for number in range(100)]
    keys = shard.to_keys(alike + crowded + [b"\xff" * 32, b"\0" * 32])
    rows = np.arange(len(keys), dtype=np.float32).reshape(-1, 1)
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", keys[:60], rows[:60])
        store.get_extraction(SPEC).add("conv", "avg", keys[60:], rows[60:])
    features = tap(tmp_path / "c")
    order = np.random.default_rng(0).permutation(len(keys))
    assert np.array_equal(features.read(keys[order]), rows[order])
    strangers = shard.to_keys(
        [b"\xff" * 8 + bytes(24), b"\x01" * 31 + b"\x02", b"\xff" * 31 + b"\xfe", b"\0" * 31 + b"\x01"]
    )
    assert features.find_missing(strangers).all()


def test_rows_stored_twice_are_served_once(tmp_path: Path) -> None:
    cache = filled(filled(tmp_path / "c"))
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", KEYS[4:12], ROWS[4:12])
    assert np.array_equal(tap(cache).read(KEYS), ROWS)


@pytest.mark.parametrize("layer", ["conv/1", "a.b", "..", "ü x\n", "%2F", "conv.avg"])
def test_a_layer_may_have_any_name(layer: str, tmp_path: Path) -> None:
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add(layer, "avg", KEYS, ROWS)
    extraction = Store(tmp_path / "c").get_extraction(SPEC)
    assert [(each.layer, each.pool) for each in extraction.list_taps()] == [(layer, "avg")]
    assert np.array_equal(extraction.get_features(layer, "avg").read(KEYS), ROWS)
    assert all(path.parent.parent.name == SPEC.folder_name for path in shards(tmp_path / "c"))


def test_another_spec_shares_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    other = Store(tmp_path / "c").get_extraction(replace(SPEC, preprocessing="torch"))
    assert other.get_features("conv", "avg").find_missing(KEYS).all()


def test_a_spec_that_only_describes_itself_otherwise_finds_the_rows(tmp_path: Path) -> None:
    filled(tmp_path / "c")
    renamed = Store(tmp_path / "c").get_extraction(replace(SPEC, backbone="renamed", file="/moved/net.keras"))
    assert np.array_equal(renamed.get_features("conv", "avg").read(KEYS), ROWS)


def test_rows_added_by_another_process_are_found(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    early = tap(cache)
    more = shard.to_keys([hashlib.sha256(b"more").digest()])
    assert early.find_missing(more).all()
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", more, ROWS[:1] + 1)
    assert np.array_equal(early.read(more), ROWS[:1] + 1)


def test_rows_added_while_reading_do_not_shift_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are numbered by name, so one that appears between finding and reading must not renumber the others."""
    cache = filled(tmp_path / "c")
    reader = tap(cache)
    real = TapFeatures.list_shards
    added = 0

    def shards(self: TapFeatures) -> list[shard.Shard]:
        nonlocal added
        found = real(self)
        if self is reader:
            added += 1
            with Store(cache, write=True) as store:
                more = shard.to_keys([hashlib.sha256(b"more" + bytes([added])).digest()])
                store.get_extraction(SPEC).add("conv", "avg", more, np.full((1, 16), added, np.float32))
        return found

    monkeypatch.setattr(TapFeatures, "list_shards", shards)
    for _ in range(20):
        assert np.array_equal(reader.read(KEYS), ROWS)
    assert added >= 20


# --- damage


def flip(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[random.integers(len(data))] ^= 1 << random.integers(8)
    return bytes(changed)


def truncate(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(len(data))]


def garble(data: bytes, random: np.random.Generator) -> bytes:
    at = int(random.integers(len(data) - 64))
    return data[:at] + random.bytes(64) + data[at + 64 :]


@pytest.mark.parametrize(("damage", "times"), [(flip, 200), (truncate, 50), (garble, 50)])
def test_a_damaged_shard_is_a_miss_and_is_computed_again(
    damage: Callable[[bytes, np.random.Generator], bytes], times: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    cache = filled(tmp_path / "c")
    for number in range(times):
        before = shards(cache)
        victim = before[number % 3]
        overwrite(victim, damage(victim.read_bytes(), random))
        with Store(cache, write=number % 2 == 0) as store:
            missing = store.get_extraction(SPEC).get_features("conv", "avg").find_missing(KEYS)
            assert missing.sum() == 8
            assert np.array_equal(
                store.get_extraction(SPEC).get_features("conv", "avg").read(KEYS[~missing]), ROWS[~missing]
            )
            assert [found.path for found in store.corrupt_files] == [victim]
            with pytest.raises(RowsMissing):
                store.get_extraction(SPEC).get_features("conv", "avg").read(KEYS)
        assert victim.exists() == (number % 2 == 1)
        with Store(cache, write=True) as store:
            extraction = store.get_extraction(SPEC)
            gap = extraction.get_features("conv", "avg").find_missing(KEYS)
            extraction.add("conv", "avg", KEYS[gap], ROWS[gap])
            assert np.array_equal(extraction.get_features("conv", "avg").read(KEYS), ROWS)
        for path in cache.glob("features/*/*/*.corrupt"):
            path.unlink()


def test_a_damaged_shard_is_set_aside_so_that_it_is_reported_once(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    victim = shards(cache)[0]
    overwrite(victim, victim.read_bytes()[:-1])
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).get_features("conv", "avg").list_shards()
        assert [(found.path, found.reason) for found in store.corrupt_files] == [
            (victim, "SHA-256 digest does not match the file name")
        ]
    assert victim.with_name(victim.name + ".corrupt").exists()
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).get_features("conv", "avg").list_shards()
        assert store.corrupt_files == []


def test_a_damaged_shard_is_set_aside_even_when_a_folder_has_the_name(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    victim = shards(cache)[0]
    victim.with_name(f"{victim.name}.corrupt").mkdir()
    overwrite(victim, victim.read_bytes()[:-1])
    with Store(cache, write=True) as store:
        assert store.get_extraction(SPEC).get_features("conv", "avg").find_missing(KEYS).sum() == 8
        assert [found.path for found in store.corrupt_files] == [victim]
    assert not victim.exists()
    assert len(list(victim.parent.glob(f"{victim.stem}*.h5.corrupt"))) == 2
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).get_features("conv", "avg").list_shards()
        assert store.corrupt_files == []


def test_a_damaged_shard_that_cannot_be_set_aside_is_still_only_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only disk, or when another process has just set it aside."""
    cache = filled(tmp_path / "c")
    victim = shards(cache)[0]
    overwrite(victim, victim.read_bytes()[:-1])

    def refuse(*_: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    store = Store(cache, write=True)
    assert store.get_extraction(SPEC).get_features("conv", "avg").find_missing(KEYS).sum() == 8
    assert [found.path for found in store.corrupt_files] == [victim]


def test_shards_with_swapped_names_are_both_refused(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    first, second, _ = shards(cache)
    first.rename(cache / "x")
    second.rename(first)
    (cache / "x").rename(second)
    assert tap(cache).find_missing(KEYS).sum() == 16


def test_a_shard_of_another_layer_is_refused_under_its_right_name(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    other = shard.to_keys([hashlib.sha256(b"foreign").digest()])
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).add("deeper", "avg", other, ROWS[:1])
        store.get_extraction(replace(SPEC, preprocessing="torch")).add("conv", "avg", other, ROWS[:1])
        store.get_extraction(SPEC).add("conv", "max", other, ROWS[:1])
    home = cache / "features" / SPEC.folder_name / "conv.avg"
    foreign = [path for path in shards(cache) if path.parent != home]
    assert len(foreign) == 3
    for path in foreign:
        shutil.copy(path, home)
    store = Store(cache)
    features = store.get_extraction(SPEC).get_features("conv", "avg")
    assert features.find_missing(other).all()
    assert np.array_equal(features.read(KEYS), ROWS)
    assert {found.path.name for found in store.corrupt_files} == {path.name for path in foreign}
    assert all("belongs to another" in found.reason for found in store.corrupt_files)


def test_a_whole_extraction_folder_under_another_name_is_refused(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    other = replace(SPEC, preprocessing="torch")
    (cache / "features" / SPEC.folder_name).rename(cache / "features" / other.folder_name)
    store = Store(cache)
    assert store.get_extraction(other).get_features("conv", "avg").find_missing(KEYS).all()
    assert store.get_extraction(SPEC).get_features("conv", "avg").find_missing(KEYS).all()
    assert any(found.path.name == "spec.json" for found in store.corrupt_files)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"backbone": 1}', b"\xff\xfe"])
def test_a_damaged_spec_is_reported_and_written_again(data: bytes, tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    overwrite(cache / "features" / SPEC.folder_name / "spec.json", data)
    store = Store(cache)
    assert list(store.iter_extractions()) == []
    assert [found.reason for found in store.corrupt_files] == ["spec does not belong to this folder"]
    with Store(cache, write=True) as store:
        extraction = store.get_extraction(SPEC)
        assert np.array_equal(extraction.get_features("conv", "avg").read(KEYS), ROWS)
        extraction.create()
    assert [each.spec for each in Store(cache).iter_extractions()] == [SPEC]


def test_litter_in_the_cache_is_passed_over(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    home = cache / "features" / SPEC.folder_name
    for path in (cache / "features" / ".DS_Store", home / ".DS_Store", home / "conv.avg" / "notes.txt"):
        path.write_bytes(b"x")
    (home / "conv.avg" / "sub").mkdir()
    (cache / "features" / "empty").mkdir()
    store = Store(cache)
    assert [each.spec for each in store.iter_extractions()] == [SPEC]
    assert np.array_equal(store.get_extraction(SPEC).get_features("conv", "avg").read(KEYS), ROWS)
    assert store.corrupt_files == []


def test_something_else_under_a_digest_for_a_name_is_a_miss(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    home = cache / "features" / SPEC.folder_name / "conv.avg"
    (home / f"{'0' * 64}.h5").mkdir()
    (home / f"{'1' * 64}.h5").symlink_to(home / "nothing")
    store = Store(cache)
    assert np.array_equal(store.get_extraction(SPEC).get_features("conv", "avg").read(KEYS), ROWS)
    assert len(store.corrupt_files) == 2


def test_a_fifo_under_a_digest_for_a_name_does_not_hang(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    os.mkfifo(cache / "features" / SPEC.folder_name / "conv.avg" / f"{'0' * 64}.h5")
    code = (
        "import sys; from humeris.cache.store import Store\n"
        "store = Store(sys.argv[1]); (extraction,) = store.iter_extractions()\n"
        "print(len(extraction.get_features('conv', 'avg').list_shards()), len(store.corrupt_files))"
    )
    done = subprocess.run([sys.executable, "-c", code, cache], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.split() == ["3", "1"], done.stderr


@pytest.mark.parametrize("name", ["humeris.json", "features/*/spec.json", "features/*/layers.json", "index/*"])
def test_a_fifo_in_place_of_any_file_does_not_hang(name: str, tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).create([{"name": "conv", "cost": 1}])
        store.kv_store.put("kind", "key", b"1")
    found = list(cache.glob(name))
    assert found
    for path in found:
        path.unlink()
        os.mkfifo(path)
    code = (
        "import sys\nfrom test_store import *\n"
        "with Store(sys.argv[1], write=True) as store:\n"
        "    store.kv_store.get('kind', 'key')\n"
        "    extraction = store.get_extraction(SPEC)\n"
        "    extraction.create([{'name': 'conv', 'cost': 1}])\n"
        "    missing = extraction.get_features('conv', 'avg').find_missing(KEYS)\n"
        "    print(missing.sum(), extraction.is_created, extraction.layers)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, cache],
        capture_output=True, text=True, timeout=20, check=False, cwd=Path(__file__).parent,
    )  # fmt: skip
    if name == "humeris.json":
        assert "NotACache" in done.stderr
    else:
        assert done.stdout == "0 True [{'name': 'conv', 'cost': 1}]\n", done.stderr


def test_deleting_what_is_known_loses_nothing(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    assert any((cache / "index").iterdir())
    shutil.rmtree(cache / "index")
    assert np.array_equal(tap(cache).read(KEYS), ROWS)


def test_a_damaged_memory_of_verified_files_is_no_licence(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    for path in (cache / "index").iterdir():
        overwrite(path, path.read_bytes()[:-3])
    victim = shards(cache)[0]
    overwrite(victim, victim.read_bytes()[:-1])
    assert np.array_equal(tap(cache).find_missing(KEYS).sum(), 8)


def test_a_verified_file_is_not_hashed_again_and_a_changed_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = filled(tmp_path / "c")
    hashed: list[Path] = []
    real = shard.check_digest
    monkeypatch.setattr(shard, "check_digest", lambda path: (hashed.append(path), real(path)))
    assert np.array_equal(tap(cache).read(KEYS), ROWS)
    assert hashed == []
    victim = shards(cache)[1]
    overwrite(victim, victim.read_bytes())
    assert np.array_equal(tap(cache).read(KEYS), ROWS)
    assert hashed == [victim]


def test_a_shard_just_written_is_checked_by_each_reader_until_the_clock_has_ticked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = shard.check_digest
    monkeypatch.setattr(shard, "check_digest", lambda path: (hashed.append(path.name), real(path)))
    with monkeypatch.context() as patch:
        patch.setattr(FileStamp, "is_stable", lambda *_: False)
        with Store(tmp_path / "c", write=True) as store:
            features = store.get_extraction(SPEC).get_features("conv", "avg")
            for part in (slice(0, 12), slice(12, 24)):
                store.get_extraction(SPEC).add("conv", "avg", KEYS[part], ROWS[part])
            assert hashed == []
            for _ in range(2):
                assert np.array_equal(features.read(KEYS), ROWS)
    assert len(hashed) == 4
    remembered(tmp_path / "c")
    assert len(hashed) == 6
    for _ in range(2):
        assert np.array_equal(tap(tmp_path / "c").read(KEYS), ROWS)
    assert len(hashed) == 6


def test_a_writer_checks_what_it_wrote_once_the_clock_has_ticked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that commands which only read need not hash every shard, whatever they are called for."""
    cache = tmp_path / "c"
    with Store(cache, write=True) as store:
        for part in (slice(0, 12), slice(12, 24)):
            store.get_extraction(SPEC).add("conv", "avg", KEYS[part], ROWS[part])
        for each in shards(cache):
            while not FileStamp.from_path(each).is_stable(time.time_ns()):
                pass
    monkeypatch.setattr(shard, "check_digest", None)
    assert np.array_equal(tap(cache).read(KEYS), ROWS)


def test_a_change_within_the_tick_in_which_a_shard_was_written_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that stands still: the changed file has the very times of the one that was written."""
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 + 1)
    monkeypatch.setattr(verification, "_fingerprint", lambda _: [1, 1, 10**18, 10**18])
    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "avg", KEYS, ROWS)
        features = store.get_extraction(SPEC).get_features("conv", "avg")
        assert not features.find_missing(KEYS).any()
        (path,) = shards(tmp_path / "c")
        overwrite(path, path.read_bytes()[:-1] + b"?")
        assert tap(tmp_path / "c").find_missing(KEYS).all()
        assert features.find_missing(KEYS).all()


def test_a_same_size_change_with_its_time_put_back_is_noticed(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    victim = shards(cache)[0]
    status = victim.stat()
    overwrite(victim, flip(victim.read_bytes(), np.random.default_rng(0)))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    victim.chmod(0o444)
    assert victim.stat().st_mtime_ns == status.st_mtime_ns
    assert tap(cache).find_missing(KEYS).sum() == 8


# --- reading writes nothing


def test_reading_writes_nothing(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    shutil.rmtree(cache / "index")
    victim = shards(cache)[0]
    overwrite(victim, victim.read_bytes()[:-1])
    before = listing(cache)
    with Store(cache) as store:
        features = store.get_extraction(SPEC).get_features("conv", "avg")
        good = ~features.find_missing(KEYS)
        assert np.array_equal(features.read(KEYS[good]), ROWS[good])
        assert len(store.corrupt_files) == 1
        assert not store.kv_store.put("kind", "key", b"1")
    assert listing(cache) == before


def test_reading_a_cache_that_does_not_exist_does_not_create_it(tmp_path: Path) -> None:
    with Store(tmp_path / "c") as store:
        assert list(store.iter_extractions()) == []
        assert store.get_extraction(SPEC).get_features("conv", "avg").find_missing(KEYS).all()
    with Store(tmp_path / "c", write=True):
        pass
    assert list(tmp_path.iterdir()) == []


# --- folders that are something else


def test_a_folder_with_other_files_is_not_taken_for_a_cache(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("precious")
    before = listing(tmp_path / "c")
    with pytest.raises(NotACache, match=r"other files.*--cache"):
        Store(tmp_path / "c", write=True)
    assert listing(tmp_path / "c") == before


def test_a_file_is_not_a_cache(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"")
    with pytest.raises(NotACache, match="is a file, not a cache folder"):
        Store(tmp_path / "c")


def test_an_empty_folder_becomes_a_cache(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    assert np.array_equal(tap(filled(tmp_path / "c")).read(KEYS), ROWS)


@pytest.mark.parametrize("left", [["tmp"], ["tmp", "CACHEDIR.TAG"]])
def test_a_cache_whose_making_was_interrupted_is_finished(left: list[str], tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    for path in cache.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert np.array_equal(tap(filled(cache)).read(KEYS), ROWS)


@pytest.mark.parametrize("found", [3, 1, 0, "1", None, [1]])
def test_a_cache_of_another_format_is_left_alone(found: object, tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    (cache / "humeris.json").write_text(json.dumps({"format": found}))
    with pytest.raises(NotACache, match=r"unsupported cache format .*; this humeris reads format 2;"):
        Store(cache, write=True)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"3", b"\xff", b"{"])
def test_an_unreadable_mark_is_one_line(data: bytes, tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    (cache / "humeris.json").write_bytes(data)
    with pytest.raises(NotACache, match="cannot be read as the marker of a humeris cache") as caught:
        Store(cache)
    assert "\n" not in str(caught.value)


def test_the_cache_is_where_the_environment_says(tmp_path: Path) -> None:
    assert Store().path == tmp_path / "cache"


# --- few descriptors, many shards


_MANY = """
import resource, sys
import numpy as np
from humeris.cache.store import Store
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
store = Store(sys.argv[1])
(extraction,) = store.iter_extractions()
keys = np.load(sys.argv[2]).view("S32").reshape(-1)
rows = extraction.get_features("conv", "avg").read(keys)
assert len(store.corrupt_files) == 0
np.save(sys.argv[3], rows)
"""


def test_fifteen_hundred_shards_are_read_with_few_descriptors(tmp_path: Path) -> None:
    count = 1500
    keys = shard.to_keys([hashlib.sha256(str(number).encode()).digest() for number in range(count)])
    rows = np.arange(1, 2 * count + 1, dtype=np.float32).reshape(count, 2)
    with Store(tmp_path / "c", write=True) as store:
        extraction: Extraction = store.get_extraction(SPEC)
        extraction.add("conv", "avg", keys[:1], rows[:1])
    folder = extraction.get_features("conv", "avg").path
    for number in range(1, count):
        data = shard.encode(
            rows[number : number + 1], keys[number : number + 1], np.zeros(1, np.uint16),
            {"extraction": SPEC.digest, "layer": "conv", "pool": "avg"},
        )  # fmt: skip
        (folder / f"{hashlib.sha256(data).hexdigest()}.h5").write_bytes(data)
    np.save(tmp_path / "keys.npy", keys.view(np.uint8).reshape(-1, 32))
    paths = [tmp_path / "c", tmp_path / "keys.npy", tmp_path / "rows.npy"]
    done = subprocess.run([sys.executable, "-c", _MANY, *paths], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "rows.npy"), rows)


# --- errors


def test_every_cache_error_is_one_line_of_text(tmp_path: Path) -> None:
    error = CacheReadOnly("somewhere: something")
    assert str(error) == "somewhere: something"
    assert isinstance(error, CacheError)
    assert isinstance(error, OSError)


def test_a_spec_that_is_published_while_it_is_looked_for_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "cache", write=True) as store:
        store.get_extraction(SPEC).create()
    looked: list[Path] = []

    def late(path: Path) -> ExtractionSpec | None:
        looked.append(path)
        return None if len(looked) == 1 else read_spec(path)

    monkeypatch.setattr(store_module, "read_spec", late)
    found = Store(tmp_path / "cache")
    assert [each.spec for each in found.iter_extractions()] == [SPEC]
    assert found.corrupt_files == []
