"""Python processes that begin with Keras imported: forked from one that imported it, and nothing of ours, and ran nothing.

As a program this is that process. To import Keras takes seconds; tests that begin an interpreter only to run a command in it
need not pay them each time. Those whose claim is about the beginning or the end of an interpreter do.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

_MAX_REQUEST = 1 << 22


class WarmPython:
    """Runs commands as `subprocess.run` does, in forks of a process that is started for the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(
        self,
        command: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        check: bool = False,
        **_: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run `[sys.executable, "-c", CODE, ...]` or `[sys.executable, "-m", MODULE, ...]`; its output is text."""
        words = [str(word) for word in command]
        assert words[0] == sys.executable
        assert words[1] in {"-c", "-m"}
        job = {"words": words[1:], "env": dict(os.environ if env is None else env), "cwd": str(cwd or Path.cwd())}
        with self._lock:
            self._process = self._process or self._start()
            pipes = [os.pipe(), os.pipe()]
            socket.send_fds(self._socket, [json.dumps(job).encode()], [write for _, write in pipes])
            for _, write in pipes:
                os.close(write)
            assert self._socket.recv(1) == b"f"
            texts = ["", ""]
            readers = [
                threading.Thread(target=_read_text, args=(read, texts, place)) for place, (read, _) in enumerate(pipes)
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            exit_code = int(self._socket.recv(16))
        done = subprocess.CompletedProcess(words, exit_code, *texts)
        if check:
            done.check_returncode()
        return done

    def _start(self) -> subprocess.Popen[bytes]:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        with theirs:
            return subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # of TensorFlow's chatter on import
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"},
            )

    def __enter__(self) -> WarmPython:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process is not None:
            self._socket.close()
            self._process.wait(60)


def _read_text(descriptor: int, texts: list[str], place: int) -> None:
    with os.fdopen(descriptor, "rb") as file:
        texts[place] = file.read().decode(errors="replace")


def serve_forks(orders: socket.socket) -> None:
    """Fork a process for each command, and tell when it has begun and how it has ended."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    assert not [name for name in sys.modules if name.startswith("humeris")]
    assert len(os.listdir("/proc/self/task")) == 1, "a process with TensorFlow's threads must not fork"
    gc.freeze()  # a child that collects would copy every page
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, _MAX_REQUEST, 2)
        if not message:
            return
        child = os.fork()
        if child == 0:
            orders.close()
            _run_child(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(b"f")
        orders.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _run_child(job: Mapping[str, Any], out: int, err: int) -> None:
    """The whole life of a forked process, which ends as an interpreter does."""
    for stream, descriptor in ((1, out), (2, err)):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
    code = 1
    try:
        _set_up(job)
        _execute(*job["words"])
        code = 0
    except SystemExit as exit_error:
        code = exit_error.code if isinstance(exit_error.code, int) else int(exit_error.code is not None)
        if isinstance(exit_error.code, str):
            print(exit_error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _set_up(job: Mapping[str, Any]) -> None:
    """The environment, folder and path of a new interpreter, and what Keras takes from the environment on import."""
    from keras.src.backend import config

    os.environ.clear()
    os.environ.update(job["env"])
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.chdir(job["cwd"])
    sys.path[0] = ""
    if "KERAS_HOME" in os.environ:
        config._KERAS_DIR = os.environ["KERAS_HOME"]


def _execute(option: str, text: str, *arguments: str) -> None:
    sys.argv = [option, *arguments]
    if option == "-m":
        runpy.run_module(text, run_name="__main__", alter_sys=True)
        return
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    exec(compile(text, "<string>", "exec"), vars(main))


if __name__ == "__main__":
    serve_forks(socket.socket(fileno=int(sys.argv[1])))
