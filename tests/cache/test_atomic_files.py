"""Files that are either wholly there or not there at all, whatever fails and whenever the process is killed."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from humeris.cache import atomic_files
from humeris.cache.errors import CacheError, CacheFull, CacheReadOnly

CALLS = ("open", "write", "fchmod", "fsync", "close", "rename", "mkdir")


class Fault:
    """Makes the n-th call of one function of `os` fail, before it does anything (a close is done all the same)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int) -> None:
        self.left, self.hit = number, False
        real: Callable[..., Any] = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.hit = True
                if name == "close":
                    real(*args, **options)
                raise OSError(code, os.strerror(code))
            return real(*args, **options)

        monkeypatch.setattr(os, name, call)


def test_a_published_file_is_whole_and_read_only(tmp_path: Path) -> None:
    atomic_files.publish(b"abc", tmp_path / "a" / "b" / "file", tmp_path / "tmp")
    path = tmp_path / "a" / "b" / "file"
    assert path.read_bytes() == b"abc"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("name", CALLS)
def test_when_any_call_fails_nothing_half_written_is_visible(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {errno.EIO: CacheError, errno.EROFS: CacheReadOnly}.get(code, CacheFull)
    for number in range(1, 30):
        root = tmp_path / str(number)
        root.mkdir()
        with monkeypatch.context() as patch:
            fault = Fault(patch, name, number, code)
            try:
                atomic_files.publish(b"abc" * 100, root / "rows" / "file", root / "tmp")
                failed = None
            except CacheError as error:
                failed = error
        if not fault.hit:
            break
        assert isinstance(failed, kind)
        assert "\n" not in str(failed)
        assert list(root.glob("tmp/*")) == []
        visible = [path for path in root.rglob("*") if path.is_file()]
        assert [path.read_bytes() for path in visible] in ([], [b"abc" * 100])
        assert all(path.name == "file" for path in visible)
    assert number > 1, f"os.{name} was never called"
    assert not fault.hit, "the loop ended before the calls did"
    assert (root / "rows" / "file").read_bytes() == b"abc" * 100


def test_a_file_is_published_whole_when_the_system_writes_a_few_bytes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    data = os.urandom(1000)
    atomic_files.publish(data, tmp_path / "file", tmp_path / "tmp")
    assert (tmp_path / "file").read_bytes() == data


def test_the_file_and_its_folder_are_synced_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def rename(*args: Any) -> None:
        done.append("rename")
        real_rename(*args)

    (tmp_path / "tmp").mkdir()
    (tmp_path / "rows").mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    atomic_files.publish(b"abc", tmp_path / "rows" / "file", tmp_path / "tmp")
    assert done == ["file", "rename", "folder"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from humeris.cache import atomic_files as files

root = Path(sys.argv[1])
data = bytes(range(256)) * 8
names = ("open", "write", "fchmod", "fsync", "close", "rename", "mkdir", "unlink")
number = 0
while True:
    number += 1
    place = root / str(number)
    place.mkdir()
    child = os.fork()
    if not child:
        left = number
        def wrap(real):
            def call(*args, **options):
                global left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)
            return call
        for name in names:
            setattr(os, name, wrap(getattr(os, name)))
        real_write = os.write
        os.write = lambda descriptor, rest: real_write(descriptor, rest[:512])
        files.publish(data, place / "rows" / "file", place / "tmp")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    visible = [path.read_bytes() for path in place.glob("rows/*")]
    assert visible in ([], [data]), (number, [len(each) for each in visible])
    elsewhere = [path for path in place.rglob("*") if path.is_file() and path.parent.name not in {"rows", "tmp"}]
    assert not elsewhere, elsewhere
    files.publish(data, place / "rows" / "file", place / "tmp")
    assert (place / "rows" / "file").read_bytes() == data
    if os.waitstatus_to_exitcode(status) == 0:
        break
print(number)
"""


def test_a_process_killed_before_any_of_its_system_calls_leaves_all_or_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_what_a_killed_process_left_is_removed_after_a_day_and_nothing_younger(tmp_path: Path) -> None:
    old, young, folder = tmp_path / "1-old", tmp_path / "2-young", tmp_path / "3-folder"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    folder.mkdir()
    os.utime(old, (0, 0))
    os.utime(folder, (0, 0))
    atomic_files.clear_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-young", "3-folder"]


def test_clearing_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    atomic_files.clear_stale(tmp_path / "none")


def test_a_file_where_a_folder_must_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"")
    with pytest.raises(CacheError, match=r"rows: cannot write: ") as caught:
        atomic_files.publish(b"abc", tmp_path / "rows" / "file", tmp_path / "tmp")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "tmp").iterdir()) == []
