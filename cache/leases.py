"""Leases that keep processes from duplicating work; safe to lose."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

from .atomic_files import read_json

_STALE_SECONDS = 60.0
_HUNG_SECONDS = 900.0
_RENEWAL_SECONDS = 5.0


class Lease:
    """One unit of work that this process holds, until it is released or its heartbeat stops.

    `path` is its file, None if no file can be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._renewed_at = path, time.monotonic()

    def renew(self) -> None:
        """Renew the lease; call it at least every few seconds."""
        if self._path is not None and time.monotonic() - self._renewed_at > _RENEWAL_SECONDS:
            self._renewed_at = time.monotonic()
            with suppress(OSError):  # a lease that is lost costs others some work, no more
                os.utime(self._path)

    def release(self) -> None:
        """Release the lease, whether the work is done or not."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


class Leases:
    """The leases in `folder`, each a file that names its owner.

    File locks do not work here: some network file systems grant them to every caller (huggingface_hub pull request 4306),
    and a hung process holds its lock forever. A lease expires when its process on this host is gone, when it was not
    renewed for a minute by another host, or for 15 minutes by this one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def acquire(self, name: str) -> Lease | None:
        """Return the lease on `name`, or None while another process holds it; always granted if no file can be written."""
        path, draft = self._folder / f"lease-{name}", self._folder / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            _write(draft, json.dumps(_describe_process()).encode())
            for _ in range(2):
                with suppress(FileExistsError):
                    os.link(draft, path)  # the lease and its owner appear at once
                    return Lease(path)
                if not _is_expired(path):
                    break
                Lease(path).release()
            return None
        except OSError:
            return Lease(None)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _describe_process() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "boot": _read_boot_id(), "pid": os.getpid()}


def _read_boot_id() -> str:
    """Return the identifier of the machine's current boot, "" if the system has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _is_expired(path: Path) -> bool:
    """Return whether no process holds the lease at `path` any more."""
    try:
        idle_seconds = time.time() - path.stat().st_mtime
        owner = read_json(path)
        if owner["host"] != socket.gethostname():
            return idle_seconds > _STALE_SECONDS
        if owner["boot"] == _read_boot_id():
            os.kill(owner["pid"], 0)
            return idle_seconds > _HUNG_SECONDS
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:  # also when the process is somebody else's
        return False
    except (ValueError, KeyError, TypeError, OverflowError):  # leases appear complete: this one was lost to a power cut
        return True
    return True
