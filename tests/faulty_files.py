"""Every operation on files below a folder, counted, told, and made to fail at a given one.

It stands between the package and the operating system: `os`, `open`, memory maps and HDF5's own opening of files. Each
name of an operation below is what a fault can be limited to.
"""

from __future__ import annotations

import builtins
import errno
import io
import mmap
import os
import signal
from collections.abc import Callable
from typing import Any

WRITES = ("create", "write", "mkdir", "rename", "link", "fsync", "fchmod", "truncate", "utime")
ENDS = ("crash", "crash after", "torn")

_real_open, _real_mmap = io.open, mmap.mmap


class Shim:
    """Counts operations below `root`; the one numbered `at` (of those in `only`, if given) meets `fault`.

    fault: the name of an errno, raised instead of the operation; "lost NAME", raised after it was done all the same;
    "short", half of a write; "crash", "crash after" and "torn" (half of a write first) end the process by SIGKILL.
    sticky: every later one of those operations fails as well, as on a disk that stays full.
    """

    def __init__(
        self, root: str, tell: Callable[..., None], at: int = 0, fault: str = "", only: tuple[str, ...] = (),
        sticky: bool = False, journal: bool = False,
    ) -> None:  # fmt: skip
        self.root, self.at, self.fault, self.only, self.sticky = root, at, fault, only, sticky
        self.journal, self.count = journal, 0
        self.open_files: dict[int, str] = {}
        self._write = os.write
        self._tell = tell

    def tell(self, **event: Any) -> None:
        self._tell(event, self._write)

    def inside(self, path: object) -> str:
        """`path` as text when it lies below the root, else ""."""
        if isinstance(path, int):
            return self.open_files.get(path, "")
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        text = os.fsdecode(path)
        return text if text == self.root or text.startswith(self.root + os.sep) else ""

    def step(
        self, name: str, path: str, perform: Callable[[], Any], half: Callable[[], Any] | None = None, **facts: Any
    ) -> Any:
        """Do one operation, or what the fault makes of it."""
        meant = not self.only or name in self.only
        self.count += meant
        if meant and self.at and (self.count == self.at or (self.sticky and self.count > self.at)):
            if self.count == self.at:
                self.tell(fault=self.fault, operation=name, path=os.path.relpath(path, self.root))
            if self.fault in ENDS:
                if self.fault == "torn" and half is not None:
                    half()
                elif self.fault == "crash after":
                    perform()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "short":
                return half() if half is not None else perform()
            if self.fault.startswith("lost "):
                perform()
            number = getattr(errno, self.fault.removeprefix("lost "))
            raise OSError(number, os.strerror(number), path)
        result = perform()
        if self.journal:
            self.tell(operation=name, path=os.path.relpath(path, self.root), **facts)
        return result


def install(tell: Callable[..., None], **options: Any) -> Shim:
    """Put a shim between this process and the files below `options["root"]`; see `Shim`."""
    shim = Shim(tell=tell, **options)
    _install_on_paths(shim)
    _install_on_descriptors(shim)
    _install_on_readers(shim)
    return shim


def _install_on_paths(shim: Shim) -> None:
    for name in ("stat", "lstat", "mkdir", "unlink", "scandir", "listdir", "rmdir", "chmod", "utime", "access", "truncate"):
        real = getattr(os, name)

        def one(path: Any = ".", *rest: Any, real: Any = real, name: str = name, **options: Any) -> Any:
            where = shim.inside(path)
            if not where:
                return real(path, *rest, **options)
            try:
                return shim.step(name, where, lambda: real(path, *rest, **options))
            except OSError:
                if name == "access":  # which says no, whatever the reason
                    return False
                raise

        setattr(os, name, one)
    os.remove = os.unlink
    for name in ("rename", "replace", "link"):
        real = getattr(os, name)

        def two(source: Any, target: Any, *, real: Any = real, name: str = name, **options: Any) -> Any:
            where = shim.inside(target)
            if not where:
                return real(source, target, **options)
            kind = "link" if name == "link" else "rename"
            facts = {"source": os.path.relpath(os.fsdecode(source), shim.root)}
            return shim.step(kind, where, lambda: real(source, target, **options), **facts)

        setattr(os, name, two)


def _install_on_descriptors(shim: Shim) -> None:
    real_open, real_write, real_close = os.open, os.write, os.close

    def open_file(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        where = shim.inside(path)
        if not where:
            return real_open(path, flags, *rest, **options)
        name = "create" if flags & os.O_CREAT else "open"
        found: int = shim.step(name, where, lambda: real_open(path, flags, *rest, **options))
        shim.open_files[found] = where
        return found

    def write(descriptor: int, data: Any) -> int:
        where = shim.inside(descriptor)
        if not where:
            return real_write(descriptor, data)
        view = memoryview(data)
        half = lambda: real_write(descriptor, view[: max(len(view) // 2, 1)])  # noqa: E731
        facts = {"data": bytes(view).hex()} if shim.journal else {}
        return int(shim.step("write", where, lambda: real_write(descriptor, view), half, **facts))

    def close(descriptor: int) -> None:
        where = shim.open_files.pop(descriptor, "")
        if not where:
            return real_close(descriptor)

        def perform() -> None:
            if not performed:
                performed.append(True)
                real_close(descriptor)

        performed: list[bool] = []
        try:
            shim.step("close", where, perform)
        finally:
            perform()  # Linux frees the descriptor even when `close` reports an error
        return None

    os.open, os.write, os.close = open_file, write, close
    for name in ("fsync", "fdatasync", "fchmod", "ftruncate", "fstat"):
        real = getattr(os, name)

        def by_number(descriptor: int, *rest: Any, real: Any = real, name: str = name) -> Any:
            where = shim.inside(descriptor)
            if not where:
                return real(descriptor, *rest)
            kind = {"fdatasync": "fsync", "ftruncate": "truncate"}.get(name, name)
            return shim.step(kind, where, lambda: real(descriptor, *rest))

        setattr(os, name, by_number)


def _install_on_readers(shim: Shim) -> None:
    import h5py

    class Raw(io.FileIO):
        def read(self, size: int | None = -1) -> Any:
            return shim.step("read", str(self.name), lambda: super(Raw, self).read(-1 if size is None else size))

        def readall(self) -> Any:
            return shim.step("read", str(self.name), super().readall)

        def readinto(self, buffer: Any) -> Any:
            return shim.step("read", str(self.name), lambda: super(Raw, self).readinto(buffer))

    def open_file(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        where = "" if isinstance(file, int) else shim.inside(file)
        if not where:
            return _real_open(file, mode, buffering, *rest, **options)
        assert set(mode) <= set("rb"), f"{where} opened to {mode}: the shim does not see what is written there"
        raw = shim.step("open", where, lambda: Raw(os.fspath(file), "r"))
        if buffering == 0:
            return raw
        return io.BufferedReader(raw) if "b" in mode else io.TextIOWrapper(io.BufferedReader(raw), *rest, **options)

    class Map(_real_mmap):
        def __new__(cls, descriptor: int, *rest: Any, **options: Any) -> Any:
            try:
                where = shim.inside(os.readlink(f"/proc/self/fd/{descriptor}"))
            except OSError:
                where = ""
            make = lambda: super(Map, cls).__new__(cls, descriptor, *rest, **options)  # noqa: E731
            return shim.step("mmap", where, make) if where else make()

    class File(h5py.File):
        def __init__(self, name: Any, *rest: Any, **options: Any) -> None:
            where = "" if isinstance(name, io.IOBase) else shim.inside(name)
            begin = lambda: super(File, self).__init__(name, *rest, **options)  # noqa: E731
            if where:
                shim.step("hdf5", where, begin)
            else:
                begin()

    builtins.open = io.open = open_file  # type: ignore[assignment]
    mmap.mmap = Map  # type: ignore[misc]
    h5py.File = File
