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
from humeris.cache.leases import Claims


def test_a_claim_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    mine, other = Claims(tmp_path), Claims(tmp_path)
    claim = mine.take("a")
    assert claim is not None
    assert other.take("a") is None
    assert mine.take("a") is None
    assert other.take("b") is not None
    claim.release()
    assert other.take("a") is not None


def test_a_claim_of_a_process_that_is_gone_is_void(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from humeris.cache.leases import Claims; Claims(Path({str(tmp_path)!r})).take('a')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["claim-a"]
    assert Claims(tmp_path).take("a") is not None


def test_a_claim_from_another_host_is_void_once_it_was_silent_for_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "claim-a"
    path.write_text(json.dumps({"host": socket.gethostname() + "-other", "boot": "", "pid": 1}))
    assert Claims(tmp_path).take("a") is None
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert Claims(tmp_path).take("a") is not None


def test_a_heartbeat_keeps_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claims(tmp_path).take("a")
    assert claim is not None
    old = time.time() - 1000
    os.utime(tmp_path / "claim-a", (old, old))
    claim.beat()  # not so soon after the last one
    assert (tmp_path / "claim-a").stat().st_mtime == pytest.approx(old)
    monkeypatch.setattr(leases, "_BEAT_SECONDS", -1.0)
    claim.beat()
    assert (tmp_path / "claim-a").stat().st_mtime > old + 900
    (tmp_path / "claim-a").unlink()
    claim.beat()
    claim.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "?", "boot": "", "pid": "x"}', b"\xff\xfe"])
def test_a_claim_that_lost_its_bytes_is_void(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "claim-a").write_bytes(content.replace(b"?", socket.gethostname().encode()))
    assert Claims(tmp_path).take("a") is not None


def test_a_claim_from_before_the_machine_started_again_is_void(tmp_path: Path) -> None:
    assert Claims(tmp_path).take("a") is not None
    owner = json.loads((tmp_path / "claim-a").read_text())
    assert Claims(tmp_path).take("a") is None
    (tmp_path / "claim-a").write_text(json.dumps({**owner, "boot": "another"}))
    assert Claims(tmp_path).take("a") is not None


def test_where_no_file_can_be_made_everything_is_granted(tmp_path: Path) -> None:
    nowhere = Claims(tmp_path / "missing")
    first, second = nowhere.take("a"), nowhere.take("a")
    assert first is not None
    assert second is not None
    first.release()
