"""What `humeris cache list`, `info` and `verify` say of a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from humeris.cache import formatting, shard
from humeris.cache.errors import CacheError
from humeris.cache.file_stamp import FileStamp
from humeris.cache.inventory import build_inventory, describe_extraction, verify
from humeris.cache.shard import to_keys
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.commands.render import cache as render

SPEC = ExtractionSpec(
    backbone="toy",
    architecture="toy()",
    weights="random, seed 0",
    weights_sha256="ab" * 32,
    image_size=(8, 8),
    preprocessing="tf",
    pixels="1",
)
OTHER = replace(SPEC, preprocessing="torch", backbone="other")
KEYS = to_keys([hashlib.sha256(bytes([number])).digest() for number in range(6)])
ROWS = np.random.default_rng(0).normal(size=(6, 2, 2, 3)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    with Store(path, write=True) as store:
        extraction = store.get_extraction(SPEC)
        extraction.create([{"name": "z_first", "cost": 1}, {"name": "a_second", "cost": 2}])
        extraction.add("a_second", "avg", KEYS, ROWS.mean(axis=(1, 2)))
        extraction.add("z_first", "map", KEYS[:4], ROWS[:4].astype(np.float16))
        extraction.add("z_first", "map", KEYS[3:], ROWS[3:])
        store.get_extraction(OTHER).add("conv", "avg", KEYS[:1], ROWS[:1, 0, 0])
    return path


def test_the_inventory_counts_rows_shards_and_bytes(cache: Path) -> None:
    found = build_inventory(Store(cache))
    assert [each["backbone"] for each in found["extractions"]] == ["other,weights=random", "toy,weights=random"]
    toy = found["extractions"][1]
    sizes = {path.parent.name: 0 for path in cache.glob("features/*/*/*.h5")}
    for path in cache.glob(f"features/{SPEC.folder_name}/*/*.h5"):
        sizes[path.parent.name] += path.stat().st_size
    assert toy == {
        "extraction": SPEC.folder_name,
        "backbone": "toy,weights=random",
        "image_size": [8, 8],
        "precision": "float32",
        "views": "plain",
        "taps": [
            {"tap": "z_first:map", "images": 6, "views": [0], "rows": 6, "shards": 2, "shape": [2, 2, 3],
             "dtypes": ["float16", "float32"], "compression": ["none"], "bytes": sizes["z_first.map"]},
            {"tap": "a_second:avg", "images": 6, "views": [0], "rows": 6, "shards": 1, "shape": [3],
             "dtypes": ["float32"], "compression": ["none"], "bytes": sizes["a_second.avg"]},
        ],
        "bytes": sizes["z_first.map"] + sizes["a_second.avg"],
    }  # fmt: skip
    assert found["bytes"] == sum(path.stat().st_size for path in cache.glob("features/*/*/*.h5"))
    assert found["damaged"] == []


def test_views_dtypes_and_compression_are_shown(cache: Path) -> None:
    with Store(cache, write=True) as store:
        extraction = store.get_extraction(OTHER)
        for view in range(3):
            views, number = np.full(5, view, np.uint16), slice(view, view + 3)
            rows = ROWS[:5].astype(ml_dtypes.bfloat16 if view else np.float32)
            extraction.add("late", "map", KEYS[:5][number], rows[number], views=views[number],
                           compression=("none", "gzip", "blosc2")[view])  # fmt: skip
    store = Store(cache, write=True)
    tap = describe_extraction(store, "other")["taps"][1]
    assert (tap["tap"], tap["images"], tap["views"], tap["rows"]) == ("late:map", 5, [0, 1, 2], 9)
    assert (tap["dtypes"], tap["compression"]) == (["bfloat16", "float32"], ["blosc2", "gzip", "none"])
    shown = render.format_extraction(describe_extraction(store, "other"))
    assert "bfloat16 float32" in shown
    assert "blosc2 gzip none" in shown
    found = verify(store)
    assert found["rows_by_view"] == {"0": 17, "1": 3, "2": 3}
    assert found["rows_by_dtype_and_compression"] == {
        "bfloat16, blosc2": 3, "bfloat16, gzip": 3, "float16, none": 4, "float32, none": 13,
    }  # fmt: skip
    assert found["damaged"] == []
    assert "bfloat16, blosc2: 3 rows" in render.format_verification(found)


def test_an_extraction_is_named_by_the_beginning_of_its_folder(cache: Path) -> None:
    found = describe_extraction(Store(cache), "toy")
    assert found["spec"] == SPEC.to_dict()
    assert describe_extraction(Store(cache), SPEC.folder_name)["extraction"] == SPEC.folder_name


@pytest.mark.parametrize(("name", "number"), [("nothing", 0), ("", 2)])
def test_a_name_that_fits_none_or_several_lists_what_there_is(name: str, number: int, cache: Path) -> None:
    with pytest.raises(CacheError, match=f"does not name one extraction: {number} begin.*{SPEC.folder_name}"):
        describe_extraction(Store(cache), name)


def test_verify_finds_all_sound(cache: Path) -> None:
    with Store(cache, write=True) as store:
        found = verify(store)
    assert (found["shards"], found["rows"], found["damaged"], found["rows_not_finite"]) == (4, 14, [], 0)


def test_verify_reads_every_file_again_and_sets_damage_aside(cache: Path) -> None:
    path = sorted(cache.glob("features/*/z_first.map/*.h5"))[0]
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with Store(cache, write=True) as store:
        found = verify(store)
    assert [each["path"] for each in found["damaged"]] == [str(path)]
    assert found["set_aside"] == [f"{path}.corrupt"]
    assert found["shards"] == 3
    with Store(cache, write=True) as store:
        assert verify(store)["damaged"] == []


def test_verify_does_not_believe_what_it_remembers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory that says a damaged file was checked, as after a fault of the disk that touches no timestamp."""
    path = sorted(cache.glob("features/*/a_second.avg/*.h5"))[0]
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with Store(cache, write=True) as store, monkeypatch.context() as patch:
        patch.setattr(FileStamp, "is_stable", lambda *_: True)
        patch.setattr(shard, "check_digest", lambda _: None)
        store.verifier.verify(path)
    assert not Store(cache).get_extraction(SPEC).get_features("a_second", "avg").find_missing(KEYS[:3]).any()
    with Store(cache, write=True) as store:
        assert [each["path"] for each in verify(store)["damaged"]] == [str(path)]


def test_verify_counts_rows_that_are_not_finite(cache: Path) -> None:
    rows = ROWS[:3, 0, 0].copy()
    rows[1, 0] = np.nan
    rows[2, 2] = np.inf
    with Store(cache, write=True) as store:
        store.get_extraction(SPEC).add("late", "avg", KEYS[:3], rows)
        assert verify(store)["rows_not_finite"] == 2


def test_the_texts_for_people_name_what_is_there(cache: Path) -> None:
    store = Store(cache, write=True)
    assert "toy,weights=random" in render.format_inventory(build_inventory(store))
    assert "z_first:map" in render.format_extraction(describe_extraction(store, "toy"))
    assert "4 shards, 14 rows" in render.format_verification(verify(store))
    assert "all files intact" in render.format_verification(verify(store))
    assert "cache is empty" in render.format_inventory(build_inventory(Store(cache / "none")))


@pytest.mark.parametrize("command", ["list", "verify"])
def test_an_empty_cache_is_no_error(command: str, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    result = humeris("cache", command, "--cache", tmp_path / "none", "--json")
    assert result.code == 0
    assert result.json["damaged"] == []
    assert not (tmp_path / "none").exists()


def test_damage_makes_the_exit_code_one(cache: Path, humeris: Callable[..., Any]) -> None:
    assert humeris("cache", "verify").code == 0
    path = sorted(cache.glob("features/*/a_second.avg/*.h5"))[0]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert humeris("cache", "list").code == 1
    result = humeris("cache", "verify")
    assert result.code == 1
    assert "corrupt files found" in result.out
    assert humeris("cache", "verify").code == 0


def test_an_unknown_extraction_is_exit_code_two_and_one_line(cache: Path, humeris: Callable[..., Any]) -> None:
    result = humeris("cache", "info", "nothing")
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (250_000, "250 kB"), (3.2e12, "3.2 TB")]
)
def test_sizes_are_written_with_a_unit(count: float, said: str) -> None:
    assert formatting.format_size(count) == said


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\u202egnp.exe", "caf\udce9", "\x00"])
def test_names_cannot_move_the_cursor_or_reorder_the_line(name: str) -> None:
    shown = formatting.to_printable(name)
    assert shown.isprintable()
    shown.encode("utf-8")
