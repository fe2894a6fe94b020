"""Reading of image files: only regular files are read, nothing blocks, and order is kept."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from humeris.extract.pixels import read_file
from humeris.extract.pixels.decode import ImageRejected


def refused(path: Path) -> str:
    with pytest.raises(ImageRejected) as caught:
        read_file.read_bytes(path)
    return caught.value.reason


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "a").write_bytes(data)
    assert read_file.read_bytes(tmp_path / "a") == data
    (tmp_path / "link").symlink_to("a")
    assert read_file.read_bytes(tmp_path / "link") == data


def test_an_empty_file_is_empty_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert read_file.read_bytes(tmp_path / "a") == b""


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    assert refused(tmp_path / "x.jpg") == "not_a_file"


def test_a_refused_folder_leaves_no_open_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(50):
        refused(tmp_path)
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after <= before + 5


@pytest.mark.parametrize("name", ["missing", "dangling", "loop"])
def test_a_path_to_nothing_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert refused(tmp_path / name) == "unreadable"


def test_a_fifo_and_a_device_and_a_socket_are_refused_at_once(tmp_path: Path) -> None:
    """Run in a separate process, because a read that blocks would block the tests."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    code = (
        "import sys\nfrom pathlib import Path\nfrom humeris.extract.pixels.decode import ImageRejected\n"
        "from humeris.extract.pixels import read_file as source\n"
        "for name in ('fifo', 'socket', '/dev/zero', '/dev/null'):\n"
        "    try: source.read_bytes(Path(name)); print('read')\n"
        "    except ImageRejected as refused: print(refused.reason)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False
    )
    assert done.stdout.split() == ["not_a_file", "unreadable", "not_a_file", "not_a_file"], done.stderr


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(read_file.MAX_BYTES + 1)
    assert refused(tmp_path / "a") == "too_large"


def test_the_digest_is_sha_256() -> None:
    assert read_file.compute_digest(b"abc") == hashlib.sha256(b"abc").digest()


def test_results_keep_their_order_and_few_are_in_flight() -> None:
    flying: set[int] = set()
    most = 0
    gate = threading.Lock()

    def numbers() -> object:
        for number in range(200):
            nonlocal most
            with gate:
                flying.add(number)
                most = max(most, len(flying))
            yield number

    found = []
    for number in read_file.map_in_order(lambda number: number, numbers(), jobs=4, max_pending=10):
        with gate:
            flying.discard(number)
        found.append(number)
    assert found == list(range(200))
    assert most <= 12


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def work(number: int) -> int:
        if number == 5:
            raise ZeroDivisionError
        return number

    with pytest.raises(ZeroDivisionError):
        list(read_file.map_in_order(work, range(20), jobs=2, max_pending=4))


def test_nothing_to_do_is_done() -> None:
    assert list(read_file.map_in_order(lambda number: number, [], jobs=2, max_pending=4)) == []


def test_there_is_a_core() -> None:
    assert read_file.count_cores() >= 1
