"""Claims save work among processes, and hold nobody up: those of the dead and the silent are void."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from humeris.cache import leases
from humeris.cache.leases import Leases


def test_a_claim_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    mine, other = Leases(tmp_path), Leases(tmp_path)
    claim = mine.acquire("a")
    assert claim is not None
    assert other.acquire("a") is None
    assert mine.acquire("a") is None
    assert other.acquire("b") is not None
    claim.release()
    assert other.acquire("a") is not None


def test_a_claim_of_a_process_that_is_gone_is_void(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from humeris.cache.leases import Leases; Leases(Path({str(tmp_path)!r})).acquire('a')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["lease-a"]
    assert Leases(tmp_path).acquire("a") is not None


def test_a_claim_from_another_host_is_void_once_it_was_silent_for_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "lease-a"
    path.write_text(json.dumps({"host": socket.gethostname() + "-other", "boot": "", "pid": 1}))
    assert Leases(tmp_path).acquire("a") is None
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert Leases(tmp_path).acquire("a") is not None


def test_a_heartbeat_keeps_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Leases(tmp_path).acquire("a")
    assert claim is not None
    old = time.time() - 1000
    os.utime(tmp_path / "lease-a", (old, old))
    claim.renew()  # not so soon after the last one
    assert (tmp_path / "lease-a").stat().st_mtime == pytest.approx(old)
    monkeypatch.setattr(leases, "_RENEWAL_SECONDS", -1.0)
    claim.renew()
    assert (tmp_path / "lease-a").stat().st_mtime > old + 900
    (tmp_path / "lease-a").unlink()
    claim.renew()
    claim.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "?", "boot": "", "pid": "x"}', b"\xff\xfe"])
def test_a_claim_that_lost_its_bytes_is_void(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lease-a").write_bytes(content.replace(b"?", socket.gethostname().encode()))
    assert Leases(tmp_path).acquire("a") is not None


def test_a_claim_from_before_the_machine_started_again_is_void(tmp_path: Path) -> None:
    assert Leases(tmp_path).acquire("a") is not None
    owner = json.loads((tmp_path / "lease-a").read_text())
    assert Leases(tmp_path).acquire("a") is None
    (tmp_path / "lease-a").write_text(json.dumps({**owner, "boot": "another"}))
    assert Leases(tmp_path).acquire("a") is not None


def test_where_no_file_can_be_made_everything_is_granted(tmp_path: Path) -> None:
    nowhere = Leases(tmp_path / "missing")
    first, second = nowhere.acquire("a"), nowhere.acquire("a")
    assert first is not None
    assert second is not None
    first.release()
