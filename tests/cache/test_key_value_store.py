"""Facts kept in the cache: damaged or lost, they cost time and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.key_value_store import KeyValueStore


@pytest.fixture
def memo(tmp_path: Path) -> KeyValueStore:
    return KeyValueStore(tmp_path / "index", tmp_path / "tmp", lambda: None)


def test_a_value_comes_back_as_it_was_put(memo: KeyValueStore) -> None:
    value = bytes(range(256)) * 3 + b"\n\n"
    assert memo.put("kind", "key", value)
    assert memo.get("kind", "key") == value
    assert memo.put_json("kind", "json", {"a": [1, None, "ü"]})
    assert memo.get_json("kind", "json") == {"a": [1, None, "ü"]}


def test_an_empty_value_is_a_value(memo: KeyValueStore) -> None:
    memo.put("kind", "key", b"")
    assert memo.get("kind", "key") == b""


def test_kinds_and_keys_do_not_share_values(memo: KeyValueStore) -> None:
    memo.put("one", "key", b"1")
    assert memo.get("two", "key") is None
    assert memo.get("one", "other") is None
    assert memo.get_json("one", "other") is None


def test_a_later_value_replaces_an_earlier_one(memo: KeyValueStore) -> None:
    memo.put("kind", "key", b"1")
    memo.put("kind", "key", b"2")
    assert memo.get("kind", "key") == b"2"


def test_a_key_may_hold_bytes_that_are_not_utf_8(memo: KeyValueStore) -> None:
    memo.put("kind", "caf\udce9/\n", b"1")
    assert memo.get("kind", "caf\udce9/\n") == b"1"


def test_a_damaged_file_is_a_miss(memo: KeyValueStore, tmp_path: Path) -> None:
    memo.put_json("kind", "key", list(range(50)))
    (path,) = (tmp_path / "index").iterdir()
    good = path.read_bytes()
    random = np.random.default_rng(0)
    damages = [good[: int(random.integers(len(good)))] for _ in range(40)]
    for _ in range(100):
        flipped = bytearray(good)
        flipped[random.integers(len(good))] ^= 1 << random.integers(8)
        damages.append(bytes(flipped))
    for damaged in [*damages, b"", b"\n", b"null", good + b" "]:
        path.write_bytes(damaged)
        assert memo.get("kind", "key") is None
        assert memo.get_json("kind", "key") is None


def test_a_memo_that_may_not_write_writes_nothing(tmp_path: Path) -> None:
    memo = KeyValueStore(tmp_path / "index", tmp_path / "tmp", None)
    assert not memo.put("kind", "key", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_a_value_should_be_is_a_miss(memo: KeyValueStore, tmp_path: Path) -> None:
    memo.put("kind", "key", b"1")
    (path,) = (tmp_path / "index").iterdir()
    path.unlink()
    path.mkdir()
    assert memo.get("kind", "key") is None
    assert not memo.put("kind", "key", b"2")


def test_a_fifo_where_a_value_should_be_is_a_miss_and_is_written_over(memo: KeyValueStore, tmp_path: Path) -> None:
    memo.put("kind", "key", b"1")
    (path,) = (tmp_path / "index").iterdir()
    path.unlink()
    os.mkfifo(path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom humeris.cache.key_value_store import KeyValueStore\n"
        "memo = KeyValueStore(Path('known'), Path('tmp'), lambda: None)\n"
        "print(memo.get('kind', 'key'), memo.put('kind', 'key', b'2'), memo.get('kind', 'key'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "None True b'2'\n", done.stderr
