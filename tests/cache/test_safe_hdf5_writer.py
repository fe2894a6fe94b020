"""A file that HDF5 fills by itself: a failed write is told afterwards, and crashes nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from humeris.cache.safe_hdf5_writer import SafeHdf5Writer

# Writes a file through a draft whose writes fail from one number on, and ends as a command would.
_FILL = r"""
import errno, os, sys
from pathlib import Path
import h5py, numpy as np
from humeris.cache.safe_hdf5_writer import SafeHdf5Writer

first, count, real = int(sys.argv[1]), 0, os.pwrite
def pwrite(*arguments):
    global count
    count += 1
    if count >= first:
        raise OSError(errno.ENOSPC, "No space left on device")
    return real(*arguments)
os.pwrite = pwrite
with SafeHdf5Writer(Path(sys.argv[2])) as draft, h5py.File(draft, "w") as file:
    for name in "abc":
        rows = file.create_dataset(name, (3000, 40), "f4")
        for start in range(0, 3000, 256):
            rows[start : start + 256] = 1
    names = [f"name {number}" * 3 for number in range(20_000)]
    file.create_dataset("names", data=names, dtype=h5py.string_dtype())
    file.attrs["text"] = "x" * 5000
try:
    draft.raise_for_error()
    print(count)
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def filled(first: int, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _FILL, str(first), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_process_survives_a_write_that_fails_wherever_it_is(tmp_path: Path) -> None:
    whole = filled(1 << 30, tmp_path / "whole")
    assert (whole.returncode, whole.stderr) == (0, "")
    count = int(whole.stdout)
    assert count > 500
    numbers = [1, 2, 3, 4, *np.linspace(5, count, 12).astype(int).tolist()]
    for number in numbers:
        done = filled(number, tmp_path / str(number))
        assert (done.returncode, done.stdout, done.stderr) == (0, "ENOSPC\n", ""), number
    print({"writes": count, "failed at": len(numbers)})


def test_what_is_written_through_a_draft_is_what_hdf5_writes(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 30))
    with SafeHdf5Writer(tmp_path / "a") as draft, h5py.File(draft, "w") as file:
        file.create_dataset("rows", data=rows, track_times=False)
    draft.raise_for_error()
    with h5py.File(tmp_path / "a") as file:
        assert np.array_equal(file["rows"][:], rows)


def failing(*_: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error")


def test_what_could_not_be_written_is_still_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 reads what it wrote, and must not stumble over it while it closes the file."""
    with SafeHdf5Writer(tmp_path / "a") as draft:
        draft.write(b"0123456789")
        monkeypatch.setattr(os, "pwrite", failing)
        draft.seek(4)
        draft.write(b"abc")
        draft.seek(20)
        draft.write(b"xyz")
        draft.seek(5)
        draft.write(b"B")
        draft.seek(2)
        buffer = bytearray(20)
        draft.readinto(buffer)
        assert buffer == b"23aBc789" + bytes(10) + b"xy"
        assert draft.seek(0, os.SEEK_END) == 23
    assert (tmp_path / "a").read_bytes() == b"0123456789"
    with pytest.raises(OSError, match="Input/output error"):
        draft.raise_for_error()


@pytest.mark.parametrize("name", ["fsync", "ftruncate"])
def test_an_error_of_any_step_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, name, failing)
    with SafeHdf5Writer(tmp_path / "a") as draft:
        draft.truncate(10)
    with pytest.raises(OSError, match="Input/output error"):
        draft.raise_for_error()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_draft_is_always_a_new_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(FileExistsError):
        SafeHdf5Writer(tmp_path / "a")
