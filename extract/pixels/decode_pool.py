"""Decoding in worker processes: an image that crashes or hangs its decoder is rejected, and the job continues."""

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
from .augment import Policy
from .decode import ImageRejected
from .decode_worker import CPU_SECONDS, READY, send

WALL_SECONDS = 60
_CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}


class DecoderPool:
    """Pool of up to `jobs` decoder processes, started on demand; `decode` may be called from as many threads."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._decoders = [_DecoderProcess() for _ in range(jobs)]
        self._free: queue.LifoQueue[_DecoderProcess] = queue.LifoQueue()
        for decoder in self._decoders:
            self._free.put(decoder)

    def decode(
        self,
        file: Path | bytes,
        size: tuple[int, int],
        digest: bytes | None = None,
        views: Sequence[int] = (0,),
        policy: Policy | None = None,
    ) -> np.ndarray:
        """Decode an image and return views of it.

        Parameters
        ----------
        file : Path or bytes
            The image file, or its bytes.
        size : tuple of int
            (height, width) in pixels.
        digest : bytes, optional
            SHA-256 that the file must have.
        views : sequence of int
            View numbers; 0 is the result of `decode.decode`, others are augmented from it.
        policy : Policy, optional
            The augmentation policy.

        Returns
        -------
        np.ndarray
            (views, height, width, 3) uint8.

        Raises
        ------
        ImageRejected
            With the codes of `decode`, and `changed` for another digest, `crashed` if two decoders crashed on the image,
            `killed` if they were killed, `too_slow` after `CPU_SECONDS` of CPU time, `stalled` after `WALL_SECONDS`.
        """
        path, data = ("", file) if isinstance(file, bytes) else (str(file), b"")
        header = {"path": path, "bytes": len(data), "digest": digest.hex() if digest else "", "size": size}
        operations = policy.operations if policy else ()
        request = json.dumps({**header, "views": list(views), "policy": operations}).encode() + b"\n" + data
        return self._run_request(request, (len(views), *size, 3))

    def decode_thumbnail(self, data: bytes, side: int) -> np.ndarray:
        """Return an image as RGB uint8 (height, width, 3) with its aspect ratio, at most `side` pixels a side.

        Raises `ImageRejected`, as `decode` does.
        """
        header = {"path": "", "bytes": len(data), "digest": "", "size": [side, side], "within": side}
        request = json.dumps({**header, "views": [0], "policy": ()}).encode() + b"\n" + data
        thumbnail: np.ndarray = self._run_request(request, (1, side, side, 3))[0]
        return thumbnail

    def _run_request(self, request: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Return a decoder's response, retrying once if the first decoder died."""
        decoder = self._free.get()
        try:
            try:
                return decoder.run_request(request, shape)
            except ImageRejected as error:
                if error.reason not in {"crashed", "killed"}:
                    raise
            return decoder.run_request(request, shape)
        finally:
            self._free.put(decoder)

    def close(self) -> None:
        """Stop the processes."""
        for decoder in self._decoders:
            decoder.stop()

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _DecoderProcess:
    """One decoder process, started on the first request and restarted after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run_request(self, request: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Return the pixels for `request`, of `shape` unless the response has a size; raises `ImageRejected`."""
        process = self._process = self._process or _start_process()
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + WALL_SECONDS
        try:
            send(process.stdin.fileno(), request)
            (length,) = struct.unpack("<I", _read_exactly(process.stdout, bytearray(4), deadline))
            response = json.loads(_read_exactly(process.stdout, bytearray(length), deadline))
            height, width = response.get("size", shape[1:3])
            result = np.empty((shape[0], height, width, 3), np.uint8)
            if "reason" not in response:
                _read_exactly(process.stdout, result.data.cast("B"), deadline)
        except TimeoutError:
            process.kill()
            self.stop()
            raise ImageRejected("stalled", f"no result after {WALL_SECONDS} s; the decoder was stopped") from None
        except (OSError, EOFError):
            raise self._explain_exit() from None
        if "reason" in response:
            raise ImageRejected(response["reason"], response["detail"])
        return result

    def _explain_exit(self) -> ImageRejected:
        status = self.stop()
        if status == -signal.SIGXCPU:
            return ImageRejected(
                "too_slow", f"decoding takes more than {CPU_SECONDS} s of CPU time; the decoder was stopped"
            )
        if -status in _CRASH_SIGNALS:
            return ImageRejected("crashed", f"two decoders crashed on it ({signal.Signals(-status).name})")
        return ImageRejected("killed", f"two decoders were killed while decoding it (exit status {status})")

    def stop(self) -> int:
        """Stop the process, if any, and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        return process.wait()


def _start_process() -> subprocess.Popen[bytes]:
    """Start a decoder and wait until it is ready; raises `HumerisError` if none can be started."""
    command = [sys.executable, "-P", "-m", "humeris.extract.pixels.decode_worker"]
    for _ in range(2):
        process = _popen(command)
        assert process.stdout is not None
        with contextlib.suppress(EOFError, TimeoutError):
            if bytes(_read_exactly(process.stdout, bytearray(len(READY)), time.monotonic() + WALL_SECONDS)) == READY:
                return process
        process.kill()
        process.communicate()
    raise HumerisError(f"cannot start an image decoder: the process exits at once; to see why, run {shlex.join(command)}")


def _popen(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libtiff repeats there what the rejection says
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        process_group=0,  # Ctrl-C is for this process, which lets pending images finish
    )


def _read_exactly(pipe: IO[bytes], buffer: Any, deadline: float) -> Any:
    """Fill `buffer` from the pipe; raises `TimeoutError` or `EOFError`."""
    remaining = memoryview(buffer)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while remaining:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        count = pipe.readinto(remaining)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        remaining = remaining[count:]
    return buffer
