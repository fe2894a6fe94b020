"""Extractors whose network is a stand-in, in processes that begin in milliseconds.

As a program this is a nursery: it imports humeris once, without Keras, and forks a process for every order it reads. Such
a process runs the real `humeris` command: real image files, decoding, writer, store and memory. Only the network is
replaced, by rows drawn from the digest of the pixels, so that a row that is not its image's is told at once.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

BACKBONE = "nano,image_size=32"
SHAPES = {"early:map": (3, 3, 8), "late:avg": (48,)}
TAPS = tuple(SHAPES)

_log_descriptor = -1


def make_row(tap: str, pixels: np.ndarray) -> np.ndarray:
    """What the stand-in gives for one image, uint8 (height, width, 3): never zero, never twice the same."""
    seed = hashlib.sha256(tap.encode() + np.ascontiguousarray(pixels).tobytes()).digest()
    return np.random.default_rng(list(seed)).standard_normal(SHAPES[tap]).astype(np.float32)


def tell(event: Mapping[str, Any], write: Callable[[int, bytes], int] = os.write) -> None:
    """Append one line to this process's log; what was told stays told when the process is killed."""
    if _log_descriptor >= 0:
        write(_log_descriptor, json.dumps(event).encode() + b"\n")


class Forward:
    """In the place of `humeris.extract.backbones.forward.ForwardPass`."""

    def __init__(self, _graph: Any, taps: Sequence[Any], batch_size: int) -> None:
        self.taps, self.batch_size, self.passes = tuple(taps), batch_size, 0

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert 0 < len(images) <= self.batch_size
        self.passes += 1
        rows = [np.stack([make_row(str(tap), image) for image in images]) for tap in self.taps]
        tell({"computed": len(images)})
        return rows


def build(request: Any) -> Any:
    """In the place of `humeris.extract.backbones.build.build`."""
    from humeris.cache.spec import ExtractionSpec
    from humeris.extract.backbones.build import Backbone
    from humeris.extract.backbones.graph import Layer
    from humeris.extract.pixels import decode as pixels

    spec = ExtractionSpec(
        **request.to_descriptive_fields(),
        architecture="stand-in",
        weights_sha256="0" * 64,
        image_size=request.image_size,
        preprocessing="tf",
        pixels=pixels.get_version(),
    )
    layers = [
        Layer("early", "Conv2D", (3, 3, 8), 1000, 72, True, True, 10),
        Layer("late", "Conv2D", (2, 2, 48), 2000, 192, True, True, 20),
    ]
    return Backbone(spec, SimpleNamespace(layers=layers))  # type: ignore[arg-type]


def decode(
    _: Any, file: Path, size: tuple[int, int], digest: bytes | None = None, views: Sequence[int] = (0,), policy: Any = None
) -> np.ndarray:
    """In the place of `Decoders.decode` of `extract.pixels.decode_pool`: a process is slow to start."""
    from humeris.extract.pixels import decode as pixels
    from humeris.extract.pixels import read_file

    assert (tuple(views), policy) == ((0,), None)
    data = read_file.read_bytes(file)
    if read_file.compute_digest(data) != digest:
        raise pixels.ImageRejected("changed", "the file changed while it was used")
    return pixels.decode(data, size)[None]


def replace_network() -> None:
    """Put the stand-in wherever the package has the network, decode in this process, and tell of shards."""
    from humeris.extract.pixels.decode_pool import DecoderPool

    DecoderPool.decode = decode  # type: ignore[method-assign, assignment]
    import humeris.cli  # noqa: F401
    from humeris.commands.render import classify  # noqa: F401
    from humeris.extract.backbones import build as backbone
    from humeris.extract.backbones import forward
    from humeris.extract.engine import (
        export_hdf5,  # noqa: F401
    )

    replacements = {id(forward.ForwardPass): Forward, id(backbone.build): build}
    for module in [module for name, module in sys.modules.items() if name.startswith("humeris.")]:
        for name, value in list(vars(module).items()):
            if id(value) in replacements:
                setattr(module, name, replacements[id(value)])
    report_shards()


def report_shards() -> None:
    """Tell of every shard once it is acknowledged."""
    from humeris.cache.extraction import Extraction

    add = Extraction.add

    def add_and_tell(self: Extraction, layer: str, pool: str, keys: np.ndarray, features: np.ndarray, **options: Any) -> int:
        n_bytes = add(self, layer, pool, keys, features, **options)
        tell({"tap": f"{layer}:{pool}", "keys": np.ascontiguousarray(keys).tobytes().hex()})
        return n_bytes

    Extraction.add = add_and_tell  # type: ignore[method-assign]


def grant_every_lease() -> None:
    """Let this process do what others have claimed, as where claims cannot be written."""
    from humeris.cache import leases

    leases.Leases.acquire = lambda _, name: leases.Lease(Path(name))  # type: ignore[method-assign]


def run_job(job: Mapping[str, Any]) -> int:
    """Run the command of `job` and return its exit code.

    shard_bytes: how much the writer gathers before it stores. faults: what `faulty_files.install` takes.
    claims: whether what others have claimed is theirs; if not, every claim is granted. Locks of files are told.
    """
    from humeris.cli import main
    from humeris.extract.engine import row_writer

    global _log_descriptor
    _log_descriptor = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.environ.update(job["env"])
    os.chdir(job["folder"])
    row_writer._BYTES = job["shard_bytes"]
    sys.addaudithook(lambda event, _: tell({"lock": event}) if event in {"fcntl.flock", "fcntl.lockf"} else None)
    if not job["claims"]:
        grant_every_lease()
    if job["faults"]:
        import faulty_files

        faulty_files.install(**job["faults"], tell=tell)
    sys.argv = ["humeris", *job["command"]]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except SystemExit as exit_error:
        return int(exit_error.code or 0)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what comes later no longer reaches the command
    return 0


def run_child(job: Mapping[str, Any]) -> None:
    """The whole life of a forked process; like an interpreter's, an exception that nobody caught is printed."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command runs: an interpreter that starts is no matter
        for stream, path in ((1, job["out"]), (2, job["err"])):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, stream)
            os.close(file)
        code = run_job(job)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def warm_up() -> None:
    """Run the command once here, so that whatever it imports late is imported before the first fork.

    Typer puts the whole command line together each time that a command runs, which takes as long as the command: here once.
    """
    from PIL import Image
    from typer import main as typer_main

    from humeris.cli import main

    typer_main.get_command = functools.cache(typer_main.get_command)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        (Path(folder) / "data" / "a").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path(folder) / "data" / "a" / "0.png")
        taps = [word for tap in TAPS for word in ("-l", tap)]
        sys.argv = ["humeris", "extract", f"{folder}/data", "-b", BACKBONE, *taps, "--cache", f"{folder}/cache", "--json"]
        for _ in range(2):
            with contextlib.suppress(SystemExit):
                main()


def serve_forks() -> None:
    """Fork a process for every line that says how; answer with its id, or with the exit code of one that has ended."""
    replace_network()
    warm_up()
    assert not {"keras", "tensorflow"} & set(sys.modules), "a process with TensorFlow's threads must not fork"
    assert len(os.listdir("/proc/self/task")) == 1
    gc.freeze()  # a child that collects would copy every page
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin.buffer:
        job = json.loads(line)
        if "ready" in job:
            answer = 0
        elif "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                run_child(job)
        print(answer, file=answers, flush=True)


def run_real_command() -> None:
    """The real command with Keras, in this process; it tells of its batches and shards on the descriptor in `TOLD`.

    It respects no claim, so that several work at the same moment.
    """
    from humeris.cli import main
    from humeris.extract.backbones import forward
    from humeris.extract.engine import row_writer

    global _log_descriptor
    _log_descriptor, row_writer._BYTES = int(os.environ["TOLD"]), 1
    call = forward.ForwardPass.__call__

    def call_and_tell(self: forward.ForwardPass, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        rows = call(self, images)
        tell({"computed": len(images)})
        return rows

    forward.ForwardPass.__call__ = call_and_tell  # type: ignore[method-assign]
    grant_every_lease()
    report_shards()
    main()


if __name__ == "__main__":
    sys.modules["stand_in"] = sys.modules["__main__"]
    run_real_command() if "TOLD" in os.environ else serve_forks()
