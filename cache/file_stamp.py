"""File stamps: the part of a file's status that changes when its bytes do."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

# A file changed within one tick of the clock after it was read could keep its timestamps. File systems that store whole
# seconds tick once or twice a second or slower, others every few milliseconds.
_TICK_NS = 20_000_000
_SLOW_TICK_NS = 2_000_000_000


@dataclass(frozen=True)
class FileStamp:
    """A file's inode, size, mtime and ctime (ns): equal stamps mean the same bytes."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def from_path(cls, path: Path | str) -> FileStamp:
        """Return the stamp of the file at `path`; raises `OSError`."""
        status = os.stat(path)
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def to_bytes(self) -> bytes:
        """Return the four numbers as 8 bytes each."""
        return struct.pack("=4q", self.inode, self.size, self.mtime_ns, self.ctime_ns)

    def is_stable(self, now_ns: int) -> bool:
        """Return whether a change after `now_ns` (ns since 1970) must change the stamp; programs cannot set ctime."""
        tick = _SLOW_TICK_NS if self.ctime_ns % 1_000_000_000 == 0 else _TICK_NS
        return self.ctime_ns + tick < now_ns
