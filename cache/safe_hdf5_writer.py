"""File object for HDF5 files that are too large for memory; defers write errors."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class SafeHdf5Writer(io.RawIOBase):
    """A new file at `path` for `h5py.File(draft, "w")`, whose writes never fail towards HDF5.

    HDF5 crashes the process after a failed write, sometimes only at exit (h5py issue 914). So the first error is stored,
    later writes stay in memory, and `raise_for_error` raises the error: call it often, and after HDF5 has closed the file.
    Closing syncs.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._position = self._end = 0
        self._error: BaseException | None = None
        self._failed_writes: list[tuple[int, bytes]] = []

    def raise_for_error(self) -> None:
        """Raise the first error of any write."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte, relative to the start, the current position or the end."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        """Return the position of the next read or write, in bytes."""
        return self._position

    def write(self, data: Any) -> int:
        """Write all of `data`, to memory after an error; returns its length in bytes."""
        view = memoryview(data).cast("B")
        if self._error is not None or not self._attempt(lambda: self._write(view)):
            self._failed_writes.append((self._position, bytes(view)))
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def _write(self, view: memoryview) -> None:
        n_written = 0
        while n_written < len(view):
            n_written += os.pwrite(self._descriptor, view[n_written:], self._position + n_written)

    def _attempt(self, step: Callable[[], object]) -> bool:
        """Return whether `step` succeeds; the first error is stored."""
        try:
            step()
        except BaseException as error:  # HDF5 must not see Ctrl-C either
            self._error = self._error or error
            return False
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what was written, zeros elsewhere."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._attempt(lambda: os.preadv(self._descriptor, [view], self._position))
        for start, data in self._failed_writes:
            begin, end = max(start, self._position), min(start + len(data), self._position + len(view))
            if begin < end:
                view[begin - self._position : end - self._position] = data[begin - start : end - start]
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Resize the file to `size` bytes."""
        self._end = self._position if size is None else size
        self._attempt(lambda: os.ftruncate(self._descriptor, self._end))
        return self._end

    def close(self) -> None:
        """Sync and close the file; an error is stored for `raise_for_error`."""
        if not self.closed:
            self._attempt(lambda: os.fsync(self._descriptor))
            os.close(self._descriptor)
        super().close()
