"""Available memory, and a limit on the memory that parsing an untrusted file may take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

_MAX_PARSING_BYTES = 2 << 30  # a truncated HDF5 file can make the library allocate tens of GB


def get_available_bytes() -> int:
    """Return the bytes that can be allocated without swapping."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@contextlib.contextmanager
def limit_memory(extra_bytes: int = _MAX_PARSING_BYTES) -> Iterator[None]:
    """Limit the address space of the process to its present size plus `extra_bytes` (Linux only)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            current_bytes = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (OSError, AttributeError):
        yield
        return
    if soft not in {resource.RLIM_INFINITY, -1} and soft <= current_bytes + extra_bytes:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (current_bytes + extra_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
