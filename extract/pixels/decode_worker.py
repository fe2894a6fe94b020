"""Decoder process of `decode_pool`, so that an image that crashes or hangs its decoder is lost alone.

A request is a line of JSON, then the image's bytes unless they are in a file. A response is the length of its JSON
(4 bytes, little-endian), the JSON, then the pixels unless the JSON has a reason for a rejection. The JSON has the size if
the request left it to the image.
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
MEMORY_BYTES = 4 << 30  # of address space, most of which is never touched
READY = b"go on"
_PIPE_BYTES = 1 << 20


def main() -> None:
    """Serve requests on standard input until it is closed."""
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_AS, MEMORY_BYTES)
    response_fd = os.dup(1)
    os.dup2(2, 1)  # nothing else may write where the answers go
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(response_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    send(response_fd, READY)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        _extend_cpu_limit()
        views: list[np.ndarray] = []
        response: dict[str, Any] = {}
        try:
            data = sys.stdin.buffer.read(request["bytes"])
            if request.get("within"):
                request["size"] = response["size"] = decode.fit_size(data, request["within"])
            views = _decode_views(request, data)
        except decode.ImageRejected as error:
            response = {"reason": error.reason, "detail": str(error)}
        header = json.dumps(response).encode()
        send(response_fd, struct.pack("<I", len(header)) + header)
        for view in views:
            send(response_fd, np.ascontiguousarray(view).data.cast("B"))


def _decode_views(request: dict[str, Any], data: bytes) -> list[np.ndarray]:
    digest = bytes.fromhex(request["digest"])
    if request["path"]:
        data = read_file.read_bytes(Path(request["path"]))
    if digest and read_file.compute_digest(data) != digest:
        raise decode.ImageRejected("changed", "file changed while it was used; run the command again")
    plain_view = decode.decode(data, tuple(request["size"]))
    if request["views"] == [0]:
        return [plain_view]
    from .augment import Policy

    policy = Policy(tuple((name, tuple(strength)) for name, strength in request["policy"]))
    views = []
    for view in request["views"]:
        _extend_cpu_limit()
        views.append(plain_view if view == 0 else policy.make_view(plain_view, digest, view))
    return views


def _extend_cpu_limit() -> None:
    """Let the kernel kill this process after `CPU_SECONDS` more of CPU time."""
    used_seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _set_limit(resource.RLIMIT_CPU, int(used_seconds) + 1 + CPU_SECONDS)


def _set_limit(resource_id: int, value: int) -> None:
    hard_limit = resource.getrlimit(resource_id)[1]
    with contextlib.suppress(OSError, ValueError):  # a lower limit is set already, or the system has no such limit
        resource.setrlimit(resource_id, (value, hard_limit))


def send(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` to a pipe."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


if __name__ == "__main__":
    main()
