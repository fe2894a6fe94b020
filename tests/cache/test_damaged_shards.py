"""Thousands of damaged shards, and every other file of a cache: a wrong row is never served, and what is lost comes back."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from humeris.cache import shard
from humeris.cache.errors import HumerisError, NotACache, RowsMissing
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store

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
PARTS = (slice(0, 8), slice(8, 16), slice(16, 24))
Tap = tuple[str, str]
_NORMAL = np.random.default_rng(0).normal(size=(24, 96)).astype(np.float32)
_MAPS = np.maximum(_NORMAL, 0).astype(np.float16).reshape(24, 4, 4, 6)
STORED: dict[Tap, tuple[np.ndarray, str]] = {
    ("conv", "avg"): (_NORMAL, "none"),
    ("conv", "map"): (_MAPS, "none"),
    ("packed", "map"): (_MAPS, "gzip"),
    ("short", "avg"): (_NORMAL.astype(ml_dtypes.bfloat16), "none"),
}
if importlib.util.find_spec("hdf5plugin"):
    STORED["quick", "map"] = (_MAPS, "blosc2")
ROWS = {tap: rows.astype(np.float32) if tap[0] == "short" else rows for tap, (rows, _) in STORED.items()}
TAPS = sorted(STORED)
PLAIN = TAPS[:2]


def filled(path: Path, taps: Sequence[Tap] = TAPS) -> Path:
    """A cache of 24 rows of each tap, three shards each."""
    with Store(path, write=True) as store:
        for layer, pool in taps:
            for part in PARTS:
                rows, compression = STORED[layer, pool]
                store.get_extraction(SPEC).add(layer, pool, KEYS[part], rows[part], compression=compression)
    return path


def shards(cache: Path, tap: Tap) -> list[Path]:
    return sorted(cache.glob(f"features/*/{tap[0]}.{tap[1]}/*.h5"))


def overwrite(path: Path, data: bytes) -> None:
    """Change a file in place, later than the last tick of the clock that it has seen."""
    before = path.stat().st_ctime_ns
    path.chmod(0o644)
    path.write_bytes(data)
    while path.stat().st_ctime_ns == before:
        path.write_bytes(data)


def keys_in(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return shard.to_keys([row.tobytes() for row in file["keys"][:]])


def serves_only(cache: Path, lost: dict[Tap, np.ndarray]) -> bool:
    """Whether a reader misses exactly the `lost` keys of each tap, reports it, and gives every other row as it was."""
    right = True
    with Store(cache) as store:
        for tap, keys in lost.items():
            features = store.get_extraction(SPEC).get_features(*tap)
            missing = features.find_missing(KEYS)
            try:
                features.read(KEYS)
                refused = False
            except RowsMissing:
                refused = True
            rest = features.read(KEYS[~missing]) if not missing.all() else ROWS[tap][:0]
            right &= np.array_equal(missing, np.isin(KEYS, keys)) and refused == missing.any()
            right &= rest.tobytes() == ROWS[tap][~missing].tobytes()
        return right and len(store.corrupt_files) >= len(lost)


def heal(cache: Path, *taps: Tap) -> bool:
    """Store again what is missing, as the next extraction does; whether every row is as it was, bit by bit."""
    right = True
    with Store(cache, write=True) as store:
        extraction = store.get_extraction(SPEC)
        for tap in taps:
            gap = extraction.get_features(*tap).find_missing(KEYS)
            rows, compression = STORED[tap]
            extraction.add(*tap, KEYS[gap], rows[gap], compression=compression)
            found = extraction.get_features(*tap).read(KEYS)
            right &= found.dtype == ROWS[tap].dtype and found.tobytes() == ROWS[tap].tobytes()
    return right


def flipped(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[random.integers(len(data))] ^= 1 << random.integers(8)
    return bytes(changed)


def truncated(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(len(data))]


def garbled(data: bytes, random: np.random.Generator) -> bytes:
    at = int(random.integers(len(data) - 64))
    return data[:at] + random.bytes(64) + data[at + 64 :]


@pytest.mark.parametrize(
    ("damage", "times"),
    [(flipped, 600), pytest.param(flipped, 2000, marks=pytest.mark.many), (truncated, 200), (garbled, 200)],
)
def test_no_damaged_shard_is_served_and_its_rows_come_back_bit_by_bit(
    damage: Callable[[bytes, np.random.Generator], bytes], times: int, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(times)
    cache = filled(memory / "c")
    parsed: list[str] = []
    real = h5py.File

    def file(name: Any, *arguments: Any, **options: Any) -> h5py.File:
        parsed.append(str(name))
        return real(name, *arguments, **options)

    counts: Counter[str] = Counter()
    times -= times % -len(TAPS)  # the same for each kind of shard
    for _ in range(times // len(TAPS)):
        victims = {tap: shards(cache, tap)[random.integers(3)] for tap in TAPS}
        lost = {tap: keys_in(victim) for tap, victim in victims.items()}
        for (layer, pool), victim in victims.items():
            overwrite(victim, damage(victim.read_bytes(), random))
            counts[f"damaged shards of {layer}:{pool}"] += 1
        parsed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(h5py, "File", file)
            counts["read as they should be"] += len(TAPS) * serves_only(cache, lost)
        counts["given to HDF5"] += len({str(victim) for victim in victims.values()} & set(parsed))
        counts["good ones given to HDF5"] += len(set(parsed)) > 0
        counts["healed"] += len(TAPS) * heal(cache, *TAPS)
        for path in cache.glob("features/*/*/*.corrupt"):
            path.unlink()
    print(damage.__name__, dict(counts))
    assert counts["read as they should be"] == counts["healed"] == times
    assert counts["given to HDF5"] == 0
    assert counts["good ones given to HDF5"] == times // len(TAPS)
    assert {counts[f"damaged shards of {layer}:{pool}"] for layer, pool in TAPS} == {times // len(TAPS)}


_READER = """
import json, resource, sys
import h5py, numpy as np
from humeris.cache.store import Store

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

resource.setrlimit(resource.RLIMIT_AS, (1024**3, 1024**3))
(extraction,) = Store(sys.argv[1]).iter_extractions()
served = refused = 0
before = peak()
store = Store(sys.argv[1])
(extraction,) = store.iter_extractions()
served = sum(len(tap.list_shards()) for tap in extraction.list_taps())
print(json.dumps({"served": served, "refused": len(store.corrupt_files), "kilobytes": peak() - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_damaged_headers_cost_no_memory(tmp_path: Path) -> None:
    """A flip in a header can make HDF5 ask for gigabytes; it is never asked. One process, one gigabyte of addresses."""
    random = np.random.default_rng(5)
    cache = filled(tmp_path / "c")
    for tap in TAPS:
        sound = [(path, path.read_bytes()) for path in shards(cache, tap)]
        for number in range(300):
            path, data = sound[number % 3]
            changed = bytearray(data)
            changed[random.integers(400 if number % 4 == 1 else len(data))] ^= 1 << random.integers(8)
            (path.parent / f"{hashlib.sha256(data + bytes([number % 256, number // 256])).hexdigest()}.h5").write_bytes(
                changed if number % 2 else changed[: random.integers(1, len(changed))]
            )
    done = subprocess.run([sys.executable, "-c", _READER, cache], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert (found["served"], found["refused"]) == (3 * len(TAPS), 300 * len(TAPS))
    assert found["kilobytes"] < 50_000


# --- something else in the place of a shard


def emptied(path: Path) -> None:
    overwrite(path, b"")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def looped(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def linked_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path.parent.parent / f"pipe-{path.name}")
    path.symlink_to(path.parent.parent / f"pipe-{path.name}")


def older(path: Path) -> None:
    """The bytes of another file of the same size."""
    overwrite(path, path.read_bytes()[::-1])


REPLACED = (emptied, fifo, folder, dangling, looped, device, linked_fifo, older)


@pytest.mark.parametrize("tap", TAPS, ids=lambda tap: tap[1])
def test_what_stands_in_the_place_of_a_shard_is_a_miss_and_makes_way(tap: Tap, tmp_path: Path) -> None:
    """And nothing waits on a pipe."""
    cache = filled(tmp_path / "c")
    counts: Counter[str] = Counter()
    for change in REPLACED:
        victim = shards(cache, tap)[1]
        lost = keys_in(victim)
        change(victim)
        counts["replaced"] += 1
        counts["missed"] += serves_only(cache, {tap: lost})
        counts["healed"] += heal(cache, tap)
        for path in cache.glob("features/*/*/*.corrupt"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    print(dict(counts))
    assert counts == dict.fromkeys(("replaced", "missed", "healed"), len(REPLACED))


def test_a_link_to_a_file_outside_of_the_cache_is_not_followed(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c")
    victim = shards(cache, TAPS[0])[0]
    lost = keys_in(victim)
    victim.rename(tmp_path / "outside.h5")
    victim.symlink_to(tmp_path / "outside.h5")
    assert serves_only(cache, {TAPS[0]: lost})
    assert heal(cache, TAPS[0])


def test_swapped_and_foreign_shards_are_misses(tmp_path: Path) -> None:
    """Two names exchanged, in a tap and between taps; and rows of elsewhere under their right name, for the same images."""
    cache = filled(tmp_path / "c")
    counts: Counter[str] = Counter()
    for first, second in ((TAPS[0], TAPS[0]), (TAPS[0], TAPS[1]), (TAPS[1], TAPS[1])):
        a, b = shards(cache, first)[0], shards(cache, second)[-1]
        lost = {
            tap: np.concatenate([keys_in(x) for x, at in ((a, first), (b, second)) if at == tap]) for tap in {first, second}
        }
        a.rename(tmp_path / "x")
        b.rename(a)
        (tmp_path / "x").rename(b)
        for tap, keys in lost.items():
            counts["swapped"] += 1
            counts["missed"] += serves_only(cache, {tap: keys})
            counts["healed"] += heal(cache, tap)
    others = {"preprocessing": "torch", "pixels": "2", "weights_sha256": "cd" * 32, "precision": "bfloat16"}
    with Store(cache, write=True) as store:
        home = store.get_extraction(SPEC).get_features(*TAPS[0]).path
        for name, value in others.items():
            extraction = store.get_extraction(replace(SPEC, **{name: value}))
            extraction.add(*TAPS[0], KEYS, ROWS[TAPS[0]] + 1)
        store.get_extraction(SPEC).add("deeper", "avg", KEYS, ROWS[TAPS[0]] + 1)
        store.get_extraction(SPEC).add("conv", "max", KEYS, ROWS[TAPS[0]] + 1)
    foreign = [path for path in cache.glob("features/*/*/*.h5") if path.parent != home]
    for path in foreign:
        shutil.copy(path, home)
    store = Store(cache)
    features = store.get_extraction(SPEC).get_features(*TAPS[0])
    counts["foreign"] = len(foreign)
    assert features.read(KEYS).tobytes() == ROWS[TAPS[0]].tobytes()
    counts["foreign refused"] = sum("belongs to another" in found.reason for found in store.corrupt_files)
    print(dict(counts))
    assert counts["swapped"] == counts["missed"] == counts["healed"] == 4
    assert counts["foreign refused"] == counts["foreign"] >= 15


# --- the other files of the cache


def outcome(cache: Path) -> str:
    """What a reader and then a writer make of the cache; fails on a wrong row and on anything that is no clear error."""
    try:
        with Store(cache) as store:
            listed = [str(features.layer) for each in store.iter_extractions() for features in each.list_taps()]
            assert listed in ([], [layer for layer, _ in PLAIN])
        with Store(cache, write=True) as store:
            extraction = store.get_extraction(SPEC)
            extraction.create(LAYERS)
            for tap in PLAIN:
                assert extraction.get_features(*tap).read(KEYS).tobytes() == ROWS[tap].tobytes()
        with Store(cache) as store:
            assert [each.spec.digest for each in store.iter_extractions()] == [SPEC.digest]
    except HumerisError as error:
        return "clear error" if len(str(error).splitlines()) == 1 else str(error)
    return "right rows"


LAYERS = [{"name": "conv", "kind": "Conv2D", "shape": [4, 4, 6], "elements": 96, "cost": 1234567}]


def described(path: Path) -> Path:
    with Store(filled(path, PLAIN), write=True) as store:
        store.get_extraction(SPEC).create(LAYERS)
        store.kv_store.put_json("backbone", "toy", {"a": 1})
    return path


@pytest.mark.parametrize(
    ("pattern", "times"),
    [
        ("humeris.json", 150),
        ("features/*/spec.json", 300),
        ("index/*", 150),
        ("features/*/layers.json", 300),
    ],
)  # fmt: skip
def test_a_flip_in_any_other_file_never_gives_a_wrong_row_or_a_crash(pattern: str, times: int, memory: Path) -> None:
    cache = described(memory / "c")
    random = np.random.default_rng(times)
    good = {path: path.read_bytes() for path in sorted(cache.glob(pattern))}
    assert good
    counts: Counter[str] = Counter()
    crashes: Counter[str] = Counter()
    for number in range(times):
        victim = list(good)[number % len(good)]
        change = (flipped, flipped, truncated)[number % 3]
        overwrite(victim, change(good[victim], random))
        try:
            counts[outcome(cache)] += 1
        except Exception as error:
            crashes[f"{type(error).__name__}: {error}"[:80]] += 1
        if not victim.exists() or victim.read_bytes() != good[victim]:
            victim.unlink(missing_ok=True)
            victim.write_bytes(good[victim])
    print(pattern, dict(counts), dict(crashes))
    assert not crashes
    assert counts["right rows"] + counts["clear error"] == times
    assert (counts["clear error"] > 0) == (pattern == "humeris.json")


VALUES: tuple[Any, ...] = (None, 5, -1, "", "x", [], [1], {}, {"a": 1}, True, 1e400)


def test_a_description_with_values_of_another_kind_is_no_crash(memory: Path) -> None:
    """What a text editor can do to spec.json and layers.json, and to what `humeris cache` then prints."""
    from humeris.cache import inventory
    from humeris.commands.render import cache as formatting

    cache = described(memory / "c")
    counts: Counter[str] = Counter()
    crashes: Counter[str] = Counter()
    for name in ("spec.json", "layers.json"):
        (path,) = cache.glob(f"features/*/{name}")
        good = path.read_bytes()
        known = json.loads(good)
        fields = known[0] if isinstance(known, list) else known
        for field in fields:
            for value in VALUES:
                changed = {**fields, field: value}
                overwrite(path, json.dumps([changed] if isinstance(known, list) else changed).encode())
                try:
                    found = inventory.build_inventory(Store(cache))
                    formatting.format_inventory(found)
                    for each in found["extractions"]:
                        formatting.format_extraction(inventory.describe_extraction(Store(cache), each["extraction"]))
                    counts[outcome(cache)] += 1
                except Exception as error:
                    crashes[f"{name} {field}: {type(error).__name__}"] += 1
                path.chmod(0o644)
                path.write_bytes(good)
    print(dict(counts), dict(crashes))
    assert not crashes
    assert counts["right rows"] == len(VALUES) * (len(SPEC.to_dict()) + len(LAYERS[0]))


@pytest.mark.parametrize("key", ["name", "cost"])
def test_a_flip_in_a_key_of_the_layers_stops_no_sweep(
    key: str, photos: Path, humeris: Callable[..., Any], tmp_path: Path
) -> None:
    assert humeris("extract", photos, "-b", "nano,image_size=32", "-l", "block2_out", "--json").code == 0
    (path,) = (tmp_path / "cache").glob("features/*/layers.json")
    good = path.read_bytes()
    overwrite(path, good.replace(f'"{key}"'.encode(), f'"{key[:-1]}a"'.encode(), 1))
    assert humeris("cache", "list").code == 0
    swept = humeris("sweep", photos, "-j", 1, "--head", "logreg,C=1", "-o", tmp_path / "run", "--json")
    assert swept.code in {0, 2}
    assert humeris("extract", photos, "-b", "nano,image_size=32", "-l", "block2_out", "--json").code in {0, 1}
    assert json.loads(path.read_bytes()) == json.loads(good)


def test_the_mark_of_a_cache_is_never_written_over(tmp_path: Path) -> None:
    """A mark of another format, or one that cannot be read, may be somebody else's: it stays, and so does all the rest."""
    cache = filled(tmp_path / "c")
    mark = cache / "humeris.json"
    for data in (b"", b"{", b'{"format": 3}'):
        mark.write_bytes(data)
        with pytest.raises(NotACache):
            Store(cache, write=True)
        assert mark.read_bytes() == data


# --- a real network


def test_an_extraction_computes_what_was_damaged_and_nothing_else(
    photos: Path, humeris: Callable[..., Any], tmp_path: Path
) -> None:
    words = [
        "extract",
        photos,
        "-b",
        "nano,image_size=32",
        "-l",
        "block2_out:avg",
        "-l",
        "block4_out:map",
        "-j",
        1,
        "--json",
    ]
    random = np.random.default_rng(7)
    for limit in (4, 8, 12):  # three shards of each tap
        assert humeris(*words, "--limit", limit).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "cache").glob("features/*/*/*.h5")}
    assert len(before) == 6
    rows = stored(tmp_path / "cache")
    counts: Counter[str] = Counter()
    for number, change in enumerate((flipped, truncated, garbled, emptied, fifo, folder)):
        now = sorted((tmp_path / "cache").glob("features/*/*/*.h5"))
        victim = now[number % len(now)]
        lost = len(keys_in(victim))
        if change in {flipped, truncated, garbled}:
            overwrite(victim, change(victim.read_bytes(), random))  # type: ignore[call-arg, arg-type]
        else:
            change(victim)  # type: ignore[call-arg]
        done = humeris(*words)
        assert done.code == 1, done.err
        assert [each["path"] for each in done.json["damaged"]] == [str(victim)]
        (extracted,) = done.json["extracted"]
        assert extracted["computed"] == sum(extracted["rows"].values()) == lost
        assert stored(tmp_path / "cache") == rows
        again = humeris(*words)
        assert (again.code, again.json["extracted"][0]["forward_passes"]) == (0, 0)
        counts["damaged"] += 1
        counts["rows computed again"] += lost
    print(dict(counts))
    assert counts["damaged"] == 6


def stored(cache: Path) -> dict[str, bytes]:
    """The rows of each tap, in the order of their keys, as bytes."""
    found = {}
    for extraction in Store(cache).iter_extractions():
        for features in extraction.list_taps():
            keys = np.unique(np.concatenate([item.keys for item in features.list_shards()]))
            found[f"{features.layer}:{features.pool}"] = keys.tobytes() + features.read(keys).tobytes()
    return found
