"""The process that decodes images for `decoders`, so that one that kills or hangs its decoder costs that image alone.

A request is a line of JSON, then the image's bytes where they are not in a file. An answer is a number of bytes
(4, little-endian), as much JSON, then the pixels unless the JSON says why there are none. It says the size where that was
left to the image.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import decode, read_file

CPU_SECONDS = 10
MEMORY = 4 << 30  # of address space, most of which is never touched
READY = b"go on"
_PIPE = 1 << 20


def main() -> None:
    """Answer requests on standard input until it is closed."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, MEMORY)
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing else may write where the answers go
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(answers, fcntl.F_SETPIPE_SZ, _PIPE)
    send(answers, READY)
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        _allow_more()
        views: list[np.ndarray] = []
        answer: dict[str, Any] = {}
        try:
            data = sys.stdin.buffer.read(asked["bytes"])
            if asked.get("within"):
                asked["size"] = answer["size"] = decode.size_within(data, asked["within"])
            views = _views(asked, data)
        except decode.Refused as refused:
            answer = {"reason": refused.reason, "detail": str(refused)}
        text = json.dumps(answer).encode()
        send(answers, struct.pack("<I", len(text)) + text)
        for view in views:
            send(answers, np.ascontiguousarray(view).data.cast("B"))


def _views(asked: dict[str, Any], data: bytes) -> list[np.ndarray]:
    digest = bytes.fromhex(asked["digest"])
    if asked["path"]:
        data = read_file.read(Path(asked["path"]))
    if digest and read_file.digest(data) != digest:
        raise decode.Refused("changed", "the file changed while it was used; run the command again")
    plain = decode.decode(data, tuple(asked["size"]))
    if asked["views"] == [0]:
        return [plain]
    from .augment import Policy

    policy = Policy.parse(asked["policy"])
    views = []
    for view in asked["views"]:
        _allow_more()
        views.append(plain if view == 0 else policy.view(plain, digest, view))
    return views


def _allow_more() -> None:
    """Let the kernel end this process after `CPU_SECONDS` of work from now on, in whatever loop it is."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _limit(resource.RLIMIT_CPU, int(used) + 1 + CPU_SECONDS)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with contextlib.suppress(OSError, ValueError):  # a lower limit is set already, or the system has no such limit
        resource.setrlimit(kind, (value, hard))


def send(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` to a pipe."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    main()
