"""Who is computing what right now. A claim saves work; nothing is wrong without one."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from .files import read_json

_STALE_SECONDS = 60.0
_BEAT_SECONDS = 5.0


class Claim:
    """One piece of work that this process has taken, until it is released or its heartbeat stops."""

    def __init__(self, path: Path) -> None:
        self._path, self._beaten = path, time.monotonic()

    def beat(self) -> None:
        """Say that the work goes on; to be called at least every few seconds."""
        if time.monotonic() - self._beaten > _BEAT_SECONDS:
            self._beaten = time.monotonic()
            try:
                os.utime(self._path)
            except OSError:  # a claim that is lost costs others some work, no more
                return

    def release(self) -> None:
        """Give the work back, done or not."""
        try:
            self._path.unlink()
        except OSError:
            return


class Claims:
    """The claims in `folder`, each a file made exclusively, which says whose it is.

    File locks are no use here: on some network file systems every caller gets them (huggingface_hub pull request 4306), and
    one held by a process that hangs holds for ever. A claim is void when its process on this host is gone, or when its
    file was not touched for a minute.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str) -> Claim | None:
        """The claim on `name`, or None while another process has it. Where no file can be written everything is granted."""
        path = self._folder / f"claim-{name}"
        for _ in range(2):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                if not _void(path):
                    return None
                Claim(path).release()
            except OSError:
                return Claim(path)
            else:
                try:
                    os.write(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
                except OSError:  # a full disk; an empty claim is void after a minute
                    pass
                finally:
                    os.close(descriptor)
                return Claim(path)
        return None


def _void(path: Path) -> bool:
    """Whether nobody works on the claim at `path` any more."""
    try:
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            return True
        owner = read_json(path)
        if owner.get("host") == socket.gethostname():
            os.kill(owner["pid"], 0)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return False
    return False
