"""Images to pixels in processes of their own: one that kills or hangs its decoder costs that image, not the job."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...cache.errors import HumerisError
from . import decode as pixels
from .decode_worker import CPU_SECONDS, READY, send

WALL_SECONDS = 60
_OWN_FAULT = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}


class Decoders:
    """Up to `jobs` decoder processes, started when needed; `decode` may be called from as many threads."""

    def __init__(self, jobs: int) -> None:
        self._decoders = [_Decoder() for _ in range(jobs)]
        self._free: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        for decoder in self._decoders:
            self._free.put(decoder)

    def decode(
        self,
        file: Path | bytes,
        size: tuple[int, int],
        digest: bytes | None = None,
        views: Sequence[int] = (0,),
        policy: str = "",
    ) -> np.ndarray:
        """Views (n, height, width, 3) uint8 of an image file, or of the bytes of one, with the `digest` it should have.

        View 0 is what `pixels.decode` gives, others are made from it by the augmentation `policy`. Raises `pixels.Refused`:
        besides its codes `changed`; `crashed` when two decoders died of the image, `killed` when something ended them;
        `too_slow` after `CPU_SECONDS` of processor time, `stalled` after `WALL_SECONDS` with less.
        """
        path, data = ("", file) if isinstance(file, bytes) else (str(file), b"")
        asked = {"path": path, "bytes": len(data), "digest": digest.hex() if digest else "", "size": size}
        request = json.dumps({**asked, "views": list(views), "policy": policy}).encode() + b"\n" + data
        return self._ask(request, (len(views), *size, 3))

    def small(self, data: bytes, side: int) -> np.ndarray:
        """RGB uint8 (height, width, 3) of the bytes of an image, in its own proportions and at most `side` pixels long.

        Raises `pixels.Refused`, as `decode` does.
        """
        asked = {"path": "", "bytes": len(data), "digest": "", "size": [side, side], "within": side}
        request = json.dumps({**asked, "views": [0], "policy": ""}).encode() + b"\n" + data
        found: np.ndarray = self._ask(request, (1, side, side, 3))[0]
        return found

    def _ask(self, request: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """What some decoder answers, asked once more where the first died of it."""
        decoder = self._free.get()
        try:
            try:
                return decoder.ask(request, shape)
            except pixels.Refused as refused:
                if refused.reason not in {"crashed", "killed"}:
                    raise
            return decoder.ask(request, shape)
        finally:
            self._free.put(decoder)

    def close(self) -> None:
        """End the processes."""
        for decoder in self._decoders:
            decoder.stop()

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Decoder:
    """One process, started when first asked and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """The pixels that answer `request`, of `shape` unless the answer names their size; raises `pixels.Refused`."""
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + WALL_SECONDS
        try:
            send(process.stdin.fileno(), request)
            (length,) = struct.unpack("<I", _read(process.stdout, bytearray(4), deadline))
            answer = json.loads(_read(process.stdout, bytearray(length), deadline))
            height, width = answer.get("size", shape[1:3])
            result = np.empty((shape[0], height, width, 3), np.uint8)
            if "reason" not in answer:
                _read(process.stdout, result.data.cast("B"), deadline)
        except TimeoutError:
            process.kill()
            self.stop()
            raise pixels.Refused("stalled", f"nothing came of it in {WALL_SECONDS} s; the decoder was stopped") from None
        except (OSError, EOFError):
            raise self._death() from None
        if "reason" in answer:
            raise pixels.Refused(answer["reason"], answer["detail"])
        return result

    def _death(self) -> pixels.Refused:
        status = self.stop()
        if status == -signal.SIGXCPU:
            return pixels.Refused(
                "too_slow", f"it takes more than {CPU_SECONDS} s of work to decode; the decoder was stopped"
            )
        if -status in _OWN_FAULT:
            return pixels.Refused("crashed", f"two decoders died of it ({signal.Signals(-status).name})")
        return pixels.Refused("killed", f"two decoders ended while they had it (exit status {status})")

    def stop(self) -> int:
        """End the process, if there is one; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        return process.wait()


def _start() -> subprocess.Popen[bytes]:
    """A decoder that is ready; raises `HumerisError` when none can be started."""
    command = [sys.executable, "-P", "-m", "humeris.extract.pixels.decode_worker"]
    for _ in range(2):
        process = _popen(command)
        assert process.stdout is not None
        with contextlib.suppress(EOFError, TimeoutError):
            if bytes(_read(process.stdout, bytearray(len(READY)), time.monotonic() + WALL_SECONDS)) == READY:
                return process
        process.kill()
        process.communicate()
    raise HumerisError(f"expected a process that decodes images, found that it ends at once; {shlex.join(command)} says why")


def _popen(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libtiff says there in its own words what the refusal says anyway
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        process_group=0,  # Ctrl-C is for this process, which lets what is under way come to its end
    )


def _read(pipe: IO[bytes], into: Any, deadline: float) -> Any:
    """Fill `into` from the pipe; raises `TimeoutError` or `EOFError`."""
    rest = memoryview(into)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while rest:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        count = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]
    return into
