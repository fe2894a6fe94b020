"""A model of a disk that loses power: what was not synced may be there, in part, or not at all, in any order.

It is harsher than journalling file systems are: the two ends of a rename are separate changes of two folders, and unsynced
changes of one folder need not survive in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

Entry = int | str | None  # a file's number, a folder's path, or nothing
READ_OPERATIONS = {"stat", "lstat", "fstat", "access", "scandir", "listdir", "open", "read", "mmap", "hdf5", "close"}
PASSIVE = READ_OPERATIONS | {"chmod", "fchmod", "utime"}


@dataclass
class _File:
    durable: bytes = b""
    pending: list[bytes] = field(default_factory=list)


@dataclass
class _Folder:
    durable: dict[str, Entry] = field(default_factory=dict)
    pending: list[tuple[str, Entry]] = field(default_factory=list)

    def get_entries(self) -> dict[str, Entry]:
        return {**self.durable, **dict(self.pending)}


class Disk:
    """What is on the disk and what is only on its way there, after the operations that were applied."""

    def __init__(self, before: Path | None = None) -> None:
        self._files: list[_File] = []
        self._folders = {".": _Folder()}
        self._open_files: dict[str, int] = {}
        for path in sorted(before.rglob("*")) if before else ():
            folder, name = self._find_parent(path.relative_to(before).as_posix())  # type: ignore[arg-type]
            if path.is_dir():
                folder_path = path.relative_to(before).as_posix()  # type: ignore[arg-type]
                self._folders[folder_path] = _Folder()
                folder.durable[name] = folder_path
            else:
                self._files.append(_File(path.read_bytes()))
                folder.durable[name] = len(self._files) - 1

    def _find_parent(self, path: str) -> tuple[_Folder, str]:
        pure = PurePosixPath(path)
        return self._folders[str(pure.parent)], pure.name

    def apply(self, event: Mapping[str, Any]) -> None:
        """One operation as `faulty_files.Shim` tells it."""
        operation, path = event["operation"], event["path"]
        if operation in PASSIVE:
            return
        folder, name = self._find_parent(path) if path != "." else (self._folders["."], "")
        if operation == "mkdir":
            self._folders[path] = _Folder()
            folder.pending.append((name, path))
        elif operation == "create":
            if folder.get_entries().get(name) is None:
                self._files.append(_File())
                folder.pending.append((name, len(self._files) - 1))
            self._open_files[path] = folder.get_entries()[name]  # type: ignore[assignment]
        elif operation == "write":
            self._files[self._open_files[path]].pending.append(bytes.fromhex(event["data"]))
        elif operation == "fsync" and path in self._folders:
            self._folders[path].durable = {k: v for k, v in self._folders[path].get_entries().items() if v is not None}
            self._folders[path].pending.clear()
        elif operation == "fsync":
            file = self._files[self._open_files[path]]
            file.durable, file.pending = file.durable + b"".join(file.pending), []
        elif operation in {"rename", "link"}:
            origin, old_name = self._find_parent(event["source"])
            folder.pending.append((name, origin.get_entries()[old_name]))
            if operation == "rename":
                origin.pending.append((old_name, None))
        elif operation == "unlink":
            folder.pending.append((name, None))
        else:
            raise NotImplementedError(f"the model knows nothing of {operation}")

    def write_after_cut(self, target: Path, random: np.random.Generator, name_probability: float, data: str) -> None:
        """Write into `target` what one may find: each unsynced name with probability `names`, unsynced bytes as `data` says.

        data: "kept", "missing", "zeroed", "torn", or "any" of these for each file.
        """
        self._write(".", target, random, name_probability, data)

    def _write(
        self, folder_path: str, target: Path, random: np.random.Generator, name_probability: float, data: str
    ) -> None:
        target.mkdir(exist_ok=True)
        folder = self._folders[folder_path]
        surviving = [change for change in folder.pending if random.random() < name_probability]
        for name, entry in {**folder.durable, **dict(surviving)}.items():
            if isinstance(entry, str):
                self._write(entry, target / name, random, name_probability, data)
            elif entry is not None:
                (target / name).write_bytes(self._build_content(self._files[entry], random, data))

    def _build_content(self, file: _File, random: np.random.Generator, data: str) -> bytes:
        unsynced = b"".join(file.pending)
        fate = random.choice(["kept", "missing", "zeroed", "torn"]) if data == "any" else data
        part = {"kept": unsynced, "missing": b"", "zeroed": bytes(len(unsynced)), "torn": unsynced[: len(unsynced) // 2]}[
            str(fate)
        ]
        return file.durable + part


def iterate_cuts(before: Path | None, journal: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, Disk]]:
    """The disk before and after each operation of `journal` that changes it, with how many events came before."""
    disk = Disk(before)
    yield 0, disk
    for number, event in enumerate(journal, start=1):
        if "operation" in event:
            disk.apply(event)
        if "tap" in event or ("operation" in event and event["operation"] not in PASSIVE):
            yield number, disk
