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
FATAL_FAULTS = ("crash", "crash after", "torn")

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

    def resolve_inside(self, path: object) -> str:
        """`path` as text when it lies below the root, else ""."""
        if isinstance(path, int):
            return self.open_files.get(path, "")
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        text = os.fsdecode(path)
        return text if text == self.root or text.startswith(self.root + os.sep) else ""

    def run_operation(
        self, name: str, path: str, perform: Callable[[], Any], perform_half: Callable[[], Any] | None = None, **details: Any
    ) -> Any:
        """Do one operation, or what the fault makes of it."""
        is_target = not self.only or name in self.only
        self.count += is_target
        if is_target and self.at and (self.count == self.at or (self.sticky and self.count > self.at)):
            if self.count == self.at:
                self.tell(fault=self.fault, operation=name, path=os.path.relpath(path, self.root))
            if self.fault in FATAL_FAULTS:
                if self.fault == "torn" and perform_half is not None:
                    perform_half()
                elif self.fault == "crash after":
                    perform()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "short":
                return perform_half() if perform_half is not None else perform()
            if self.fault.startswith("lost "):
                perform()
            error_number = getattr(errno, self.fault.removeprefix("lost "))
            raise OSError(error_number, os.strerror(error_number), path)
        result = perform()
        if self.journal:
            self.tell(operation=name, path=os.path.relpath(path, self.root), **details)
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

        def call_with_path(path: Any = ".", *args: Any, real: Any = real, name: str = name, **options: Any) -> Any:
            inside_path = shim.resolve_inside(path)
            if not inside_path:
                return real(path, *args, **options)
            try:
                return shim.run_operation(name, inside_path, lambda: real(path, *args, **options))
            except OSError:
                if name == "access":  # which says no, whatever the reason
                    return False
                raise

        setattr(os, name, call_with_path)
    os.remove = os.unlink
    for name in ("rename", "replace", "link"):
        real = getattr(os, name)

        def call_with_two_paths(source: Any, target: Any, *, real: Any = real, name: str = name, **options: Any) -> Any:
            inside_path = shim.resolve_inside(target)
            if not inside_path:
                return real(source, target, **options)
            kind = "link" if name == "link" else "rename"
            details = {"source": os.path.relpath(os.fsdecode(source), shim.root)}
            return shim.run_operation(kind, inside_path, lambda: real(source, target, **options), **details)

        setattr(os, name, call_with_two_paths)


def _install_on_descriptors(shim: Shim) -> None:
    real_open, real_write, real_close = os.open, os.write, os.close

    def open_file(path: Any, flags: int, *args: Any, **options: Any) -> int:
        inside_path = shim.resolve_inside(path)
        if not inside_path:
            return real_open(path, flags, *args, **options)
        name = "create" if flags & os.O_CREAT else "open"
        descriptor: int = shim.run_operation(name, inside_path, lambda: real_open(path, flags, *args, **options))
        shim.open_files[descriptor] = inside_path
        return descriptor

    def write(descriptor: int, data: Any) -> int:
        inside_path = shim.resolve_inside(descriptor)
        if not inside_path:
            return real_write(descriptor, data)
        view = memoryview(data)
        write_half = lambda: real_write(descriptor, view[: max(len(view) // 2, 1)])  # noqa: E731
        details = {"data": bytes(view).hex()} if shim.journal else {}
        return int(shim.run_operation("write", inside_path, lambda: real_write(descriptor, view), write_half, **details))

    def close(descriptor: int) -> None:
        inside_path = shim.open_files.pop(descriptor, "")
        if not inside_path:
            return real_close(descriptor)

        def perform() -> None:
            if not calls:
                calls.append(True)
                real_close(descriptor)

        calls: list[bool] = []
        try:
            shim.run_operation("close", inside_path, perform)
        finally:
            perform()  # Linux frees the descriptor even when `close` reports an error
        return None

    os.open, os.write, os.close = open_file, write, close
    for name in ("fsync", "fdatasync", "fchmod", "ftruncate", "fstat"):
        real = getattr(os, name)

        def call_with_descriptor(descriptor: int, *args: Any, real: Any = real, name: str = name) -> Any:
            inside_path = shim.resolve_inside(descriptor)
            if not inside_path:
                return real(descriptor, *args)
            kind = {"fdatasync": "fsync", "ftruncate": "truncate"}.get(name, name)
            return shim.run_operation(kind, inside_path, lambda: real(descriptor, *args))

        setattr(os, name, call_with_descriptor)


def _install_on_readers(shim: Shim) -> None:
    import h5py

    class Raw(io.FileIO):
        def read(self, size: int | None = -1) -> Any:
            return shim.run_operation("read", str(self.name), lambda: super(Raw, self).read(-1 if size is None else size))

        def readall(self) -> Any:
            return shim.run_operation("read", str(self.name), super().readall)

        def readinto(self, buffer: Any) -> Any:
            return shim.run_operation("read", str(self.name), lambda: super(Raw, self).readinto(buffer))

    def open_file(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        inside_path = "" if isinstance(file, int) else shim.resolve_inside(file)
        if not inside_path:
            return _real_open(file, mode, buffering, *args, **options)
        assert set(mode) <= set("rb"), f"{inside_path} opened to {mode}: the shim does not see what is written there"
        raw = shim.run_operation("open", inside_path, lambda: Raw(os.fspath(file), "r"))
        if buffering == 0:
            return raw
        return io.BufferedReader(raw) if "b" in mode else io.TextIOWrapper(io.BufferedReader(raw), *args, **options)

    class Map(_real_mmap):
        def __new__(cls, descriptor: int, *args: Any, **options: Any) -> Any:
            try:
                inside_path = shim.resolve_inside(os.readlink(f"/proc/self/fd/{descriptor}"))
            except OSError:
                inside_path = ""
            make = lambda: super(Map, cls).__new__(cls, descriptor, *args, **options)  # noqa: E731
            return shim.run_operation("mmap", inside_path, make) if inside_path else make()

    class File(h5py.File):
        def __init__(self, name: Any, *args: Any, **options: Any) -> None:
            inside_path = "" if isinstance(name, io.IOBase) else shim.resolve_inside(name)
            open_hdf5 = lambda: super(File, self).__init__(name, *args, **options)  # noqa: E731
            if inside_path:
                shim.run_operation("hdf5", inside_path, open_hdf5)
            else:
                open_hdf5()

    builtins.open = io.open = open_file  # type: ignore[assignment]
    mmap.mmap = Map  # type: ignore[misc]
    h5py.File = File
