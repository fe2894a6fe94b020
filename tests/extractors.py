"""What the tests of a cache that many processes work on share: the nursery's other end, and what a sound cache is."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import stand_in
from PIL import Image

import humeris
from humeris.extract.pixels import decode

Reference = dict[str, dict[bytes, bytes]]  # tap -> image digest -> bytes of its row


class Extractor:
    """One running command of the nursery's; `pid` is its own, so that it can be sent signals."""

    def __init__(self, fork_server: ForkServer, pid: int, job: Mapping[str, Any]) -> None:
        self._fork_server, self.pid, self.cache = fork_server, pid, Path(job["env"]["HUMERIS_CACHE"])
        self._paths = {name: Path(job[name]) for name in ("log", "out", "err")}
        self._descriptor = os.pidfd_open(pid)
        self._code: int | None = None

    def has_ended(self, seconds: float) -> bool:
        """Whether it ends within `seconds`."""
        return bool(select.select([self._descriptor], [], [], max(seconds, 0))[0])

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    @property
    def exit_code(self) -> int:
        """Its exit code, or minus the signal that ended it, once it has ended; raises `AssertionError` after a minute."""
        if self._code is None:
            assert self.has_ended(60), f"{self.pid} still runs after a minute"
            os.close(self._descriptor)
            self._code = self._fork_server.send({"wait": self.pid})
        return self._code

    @property
    def err(self) -> str:
        return self._paths["err"].read_text() if self._paths["err"].exists() else ""

    @property
    def output(self) -> str:
        """Everything it printed."""
        return self.err + self._paths["out"].read_text()

    @property
    def json(self) -> Any:
        """What it printed, after it ended well."""
        assert self.exit_code == 0, (self.exit_code, self.err)
        return json.loads(self._paths["out"].read_text())

    @property
    def computed(self) -> tuple[int, int]:
        """Images and forward passes that it says it computed."""
        (extraction,) = self.json["extracted"]
        return extraction["computed"], extraction["forward_passes"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it wrote into its log, up to a line that a kill cut off."""
        if not self._paths["log"].exists():
            return []
        lines = self._paths["log"].read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def acknowledged(self) -> dict[str, set[bytes]]:
        """The digests whose rows it was told are safe, for each tap."""
        digests: dict[str, set[bytes]] = {tap: set() for tap in stand_in.TAPS}
        for event in self.events:
            if "tap" in event:
                digests[event["tap"]] |= set(_split_digests(bytes.fromhex(event["keys"])))
        return digests


class ForkServer:
    """A process without TensorFlow that has humeris imported and forks an extractor in milliseconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock, self._count = threading.Lock(), 0

    def __enter__(self) -> ForkServer:
        self._process = subprocess.Popen(
            [sys.executable, stand_in.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self.send({"ready": True})
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def send(self, job: Mapping[str, Any]) -> int:
        """The answer to one order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def start(
        self, command: Iterable[object], cache: Path, *,
        shard_bytes: int = 1, faults: Mapping[str, Any] | None = None, claims: bool = True,
    ) -> Extractor:  # fmt: skip
        """A process that runs `humeris` with `command`; see `stand_in.work` for the rest."""
        with self._lock:
            self._count += 1
            base = self.folder / str(self._count)
        job = {
            "command": [str(word) for word in command],
            "env": {"HUMERIS_CACHE": str(cache), "COLUMNS": "200"},
            "folder": str(self.folder),
            **{name: f"{base}.{name}" for name in ("log", "out", "err")},
            "shard_bytes": shard_bytes,
            "faults": faults,
            "claims": claims,
        }
        return Extractor(self, self.send(job), job)

    def extract(self, data: Path, cache: Path, *, batch_size: int = 4, **options: Any) -> Extractor:
        """A process that extracts both taps of the stand-in from `data`."""
        taps = [word for tap in stand_in.TAPS for word in ("-l", tap)]
        command = ["extract", data, "-b", stand_in.BACKBONE, *taps, "--batch-size", batch_size, "-j", 1, "--json"]
        return self.start(command, cache, **options)


def write_images(folder: Path, count: int, side: int = 12) -> Path:
    """`count` tiny images in two classes, no two alike."""
    random = np.random.default_rng(count)
    for number in range(count):
        path = folder / ("a", "b")[number % 2] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(path, compress_level=1)
    return folder


def compute_reference(data: Path) -> Reference:
    """The rows of both taps of the stand-in, computed here from the images, without the package's store or loops."""
    rows: Reference = {tap: {} for tap in stand_in.TAPS}
    for path in sorted(data.glob("*/*")):
        content = path.read_bytes()
        for tap in stand_in.TAPS:
            value = stand_in.make_row(tap, decode.decode(content, (32, 32)))
            value = value.astype(np.float16) if tap.endswith(":map") else value
            rows[tap][hashlib.sha256(content).digest()] = value.tobytes()
    return rows


def to_keys(digests: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), "S32")


def read_served(cache: Path, reference: Reference) -> Reference:
    """What the package serves from `cache` for the images of `reference`, read in this process as any user would."""
    served_rows: Reference = {tap: {} for tap in reference}
    with humeris.Store(cache) as store:
        for extraction in store.iter_extractions():
            for features in extraction.list_taps():
                tap_reference = reference[f"{features.layer}:{features.pool}"]
                keys = to_keys(tap_reference)
                is_stored = ~features.find_missing(keys)
                if is_stored.any():
                    rows = features.read(keys[is_stored])
                    digests = [digest for digest, stored in zip(tap_reference, is_stored, strict=True) if stored]
                    rows = zip(digests, rows, strict=True)
                    served_rows[f"{features.layer}:{features.pool}"] = {digest: row.tobytes() for digest, row in rows}
    return served_rows


class Tally(Counter[str]):
    """Counts of what must never be, and of what is worth printing."""

    WRONG = ("lost", "wrong", "filler", "foreign", "litter")

    def check(self, cache: Path, reference: Reference, acknowledged: Iterable[Mapping[str, set[bytes]]] = ()) -> Reference:
        """Count what is wrong in `cache`: as it is served, against what was acknowledged, and as the files lie there."""
        self.examine(cache, reference)
        return self.compare(read_served(cache, reference), reference, acknowledged)

    def compare(
        self, served_rows: Reference, reference: Reference, acknowledged: Iterable[Mapping[str, set[bytes]]] = ()
    ) -> Reference:
        """Count what is wrong with the rows that are served, and what was acknowledged before and is not among them."""
        for tap, rows in served_rows.items():
            self["served"] += len(rows)
            self["wrong"] += sum(reference[tap][digest] != row for digest, row in rows.items())
        for digests_by_tap in acknowledged:
            for tap, digests in digests_by_tap.items():
                self["acknowledged"] += len(digests)
                self["lost"] += len(digests - set(served_rows[tap]))
        return served_rows

    def examine(self, cache: Path, reference: Reference) -> None:
        """Count what is wrong with the published files, parsed by h5py alone: names, rows, and files out of place."""
        self["litter"] += len([path for path in cache.rglob("*") if path.is_file() and not _is_expected_file(path, cache)])
        for path in cache.glob("features/*/*/*.h5"):
            data = path.read_bytes()
            self["foreign"] += hashlib.sha256(data).hexdigest() != path.stem
            layer, _, pool = path.parent.name.rpartition(".")
            tap_reference = reference[f"{layer}:{pool}"]
            with h5py.File(path, "r", locking=False) as file:
                rows, keys = file["features"][:], _split_digests(file["keys"][:].tobytes())
            flat = rows.reshape(len(rows), -1)
            self["filler"] += int((~np.isfinite(flat).all(axis=1) | ~flat.any(axis=1)).sum())
            self["wrong"] += sum(tap_reference.get(key) != row.tobytes() for key, row in zip(keys, rows, strict=True))

    def assert_sound(self) -> None:
        assert {name: self[name] for name in self.WRONG} == dict.fromkeys(self.WRONG, 0)


def count_stored_rows(cache: Path) -> tuple[int, int]:
    """Rows in all shards, and how many different ones."""
    keys: Counter[tuple[str, bytes]] = Counter()
    for path in cache.glob("features/*/*/*.h5"):
        with h5py.File(path, "r", locking=False) as file:
            keys.update((path.parent.name, key) for key in _split_digests(file["keys"][:].tobytes()))
    return keys.total(), len(keys)


def _is_expected_file(path: Path, cache: Path) -> bool:
    """Whether a file is of a kind that a cache has there; drafts have theirs in `tmp`."""
    parts = path.relative_to(cache).parts
    if path.name.endswith(".corrupt"):
        return parts[0] == "features"
    if len(parts) == 1:
        return parts[0] in {"CACHEDIR.TAG", "humeris.json"}
    if parts[0] == "features":
        shard = len(parts) == 4 and len(path.name) == 67 and path.suffix == ".h5"
        return shard or (len(parts) == 3 and parts[2] in {"spec.json", "layers.json"})
    return parts[0] in {"tmp", "index"}


def _split_digests(data: bytes) -> list[bytes]:
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def format_seconds_since(start_time: float) -> str:
    return f"{time.monotonic() - start_time:.1f} s"
