"""Safe reading of image files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .decode import ImageRejected

MAX_BYTES = 512 * 1024 * 1024
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file; raises `ImageRejected` for anything else (opening a FIFO would block forever)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageRejected("not_a_file", "not a regular file")
            if status.st_size > MAX_BYTES:
                raise ImageRejected("too_large", f"{status.st_size:,} bytes exceed the limit of {MAX_BYTES:,} bytes")
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ImageRejected("unreadable", os.strerror(error.errno or 0)) from error


def compute_digest(data: bytes) -> bytes:
    """Return the digest that identifies an image: SHA-256 of its file's bytes, 32 bytes."""
    return hashlib.sha256(data).digest()


def count_cores() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(function: Callable[[_In], _Out], values: Iterable[_In], jobs: int, max_pending: int) -> Generator[_Out]:
    """Map over `jobs` threads; yields results in order, with at most `max_pending` values in flight."""
    remaining = iter(values)
    with ThreadPoolExecutor(jobs) as pool:
        pending = deque(pool.submit(function, value) for value in islice(remaining, max_pending))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, value) for value in islice(remaining, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
