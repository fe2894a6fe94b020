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

    def __init__(self, nursery: Nursery, pid: int, order: Mapping[str, Any]) -> None:
        self._nursery, self.pid, self.cache = nursery, pid, Path(order["env"]["HUMERIS_CACHE"])
        self._paths = {name: Path(order[name]) for name in ("log", "out", "err")}
        self._descriptor = os.pidfd_open(pid)
        self._code: int | None = None

    def ended(self, seconds: float) -> bool:
        """Whether it ends within `seconds`."""
        return bool(select.select([self._descriptor], [], [], max(seconds, 0))[0])

    def kill(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    @property
    def code(self) -> int:
        """Its exit code, or minus the signal that ended it, once it has ended; raises `AssertionError` after a minute."""
        if self._code is None:
            assert self.ended(60), f"{self.pid} still runs after a minute"
            os.close(self._descriptor)
            self._code = self._nursery.ask({"wait": self.pid})
        return self._code

    @property
    def err(self) -> str:
        return self._paths["err"].read_text() if self._paths["err"].exists() else ""

    @property
    def said(self) -> str:
        """Everything it printed."""
        return self.err + self._paths["out"].read_text()

    @property
    def json(self) -> Any:
        """What it printed, after it ended well."""
        assert self.code == 0, (self.code, self.err)
        return json.loads(self._paths["out"].read_text())

    @property
    def computed(self) -> tuple[int, int]:
        """Images and forward passes that it says it computed."""
        (done,) = self.json["extracted"]
        return done["computed"], done["forward_passes"]

    @property
    def told(self) -> list[dict[str, Any]]:
        """What it wrote into its log, up to a line that a kill cut off."""
        if not self._paths["log"].exists():
            return []
        lines = self._paths["log"].read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def acknowledged(self) -> dict[str, set[bytes]]:
        """The digests whose rows it was told are safe, for each tap."""
        found: dict[str, set[bytes]] = {tap: set() for tap in stand_in.TAPS}
        for event in self.told:
            if "tap" in event:
                found[event["tap"]] |= set(_digests(bytes.fromhex(event["keys"])))
        return found


class Nursery:
    """A process without TensorFlow that has humeris imported and forks an extractor in milliseconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock, self._count = threading.Lock(), 0

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, stand_in.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self.ask({"ready": True})
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def ask(self, order: Mapping[str, Any]) -> int:
        """The answer to one order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
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
        order = {
            "command": [str(word) for word in command],
            "env": {"HUMERIS_CACHE": str(cache), "COLUMNS": "200"},
            "folder": str(self.folder),
            **{name: f"{base}.{name}" for name in ("log", "out", "err")},
            "shard_bytes": shard_bytes,
            "faults": faults,
            "claims": claims,
        }
        return Extractor(self, self.ask(order), order)

    def extract(self, data: Path, cache: Path, *, batch_size: int = 4, **options: Any) -> Extractor:
        """A process that extracts both taps of the stand-in from `data`."""
        taps = [word for tap in stand_in.TAPS for word in ("-l", tap)]
        command = ["extract", data, "-b", stand_in.BACKBONE, *taps, "--batch-size", batch_size, "-j", 1, "--json"]
        return self.start(command, cache, **options)


def scribble(folder: Path, count: int, side: int = 12) -> Path:
    """`count` tiny images in two classes, no two alike."""
    random = np.random.default_rng(count)
    for number in range(count):
        path = folder / ("a", "b")[number % 2] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(path, compress_level=1)
    return folder


def due(data: Path) -> Reference:
    """The rows of both taps of the stand-in, computed here from the images, without the package's store or loops."""
    found: Reference = {tap: {} for tap in stand_in.TAPS}
    for path in sorted(data.glob("*/*")):
        content = path.read_bytes()
        for tap in stand_in.TAPS:
            value = stand_in.row(tap, decode.decode(content, (32, 32)))
            value = value.astype(np.float16) if tap.endswith(":map") else value
            found[tap][hashlib.sha256(content).digest()] = value.tobytes()
    return found


def as_keys(digests: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), "S32")


def served(cache: Path, reference: Reference) -> Reference:
    """What the package serves from `cache` for the images of `reference`, read in this process as any user would."""
    found: Reference = {tap: {} for tap in reference}
    with humeris.Store(cache) as store:
        for extraction in store.extractions():
            for features in extraction.taps():
                known = reference[f"{features.layer}:{features.pool}"]
                keys = as_keys(known)
                here = ~features.missing(keys)
                if here.any():
                    rows = features.read(keys[here])
                    digests = [digest for digest, there in zip(known, here, strict=True) if there]
                    rows = zip(digests, rows, strict=True)
                    found[f"{features.layer}:{features.pool}"] = {digest: row.tobytes() for digest, row in rows}
    return found


class Tally(Counter[str]):
    """Counts of what must never be, and of what is worth printing."""

    WRONG = ("lost", "wrong", "filler", "foreign", "litter")

    def check(self, cache: Path, reference: Reference, acknowledged: Iterable[Mapping[str, set[bytes]]] = ()) -> Reference:
        """Count what is wrong in `cache`: as it is served, against what was acknowledged, and as the files lie there."""
        self.examine(cache, reference)
        return self.compare(served(cache, reference), reference, acknowledged)

    def compare(
        self, found: Reference, reference: Reference, acknowledged: Iterable[Mapping[str, set[bytes]]] = ()
    ) -> Reference:
        """Count what is wrong with the rows that are served, and what was acknowledged before and is not among them."""
        for tap, rows in found.items():
            self["served"] += len(rows)
            self["wrong"] += sum(reference[tap][digest] != row for digest, row in rows.items())
        for each in acknowledged:
            for tap, digests in each.items():
                self["acknowledged"] += len(digests)
                self["lost"] += len(digests - set(found[tap]))
        return found

    def examine(self, cache: Path, reference: Reference) -> None:
        """Count what is wrong with the published files, parsed by h5py alone: names, rows, and files out of place."""
        self["litter"] += len([path for path in cache.rglob("*") if path.is_file() and not _has_a_place(path, cache)])
        for path in cache.glob("features/*/*/*.h5"):
            data = path.read_bytes()
            self["foreign"] += hashlib.sha256(data).hexdigest() != path.stem
            layer, _, pool = path.parent.name.rpartition(".")
            known = reference[f"{layer}:{pool}"]
            with h5py.File(path, "r", locking=False) as file:
                rows, keys = file["features"][:], _digests(file["keys"][:].tobytes())
            flat = rows.reshape(len(rows), -1)
            self["filler"] += int((~np.isfinite(flat).all(axis=1) | ~flat.any(axis=1)).sum())
            self["wrong"] += sum(known.get(key) != row.tobytes() for key, row in zip(keys, rows, strict=True))

    def assert_sound(self) -> None:
        assert {name: self[name] for name in self.WRONG} == dict.fromkeys(self.WRONG, 0)


def rows_stored(cache: Path) -> tuple[int, int]:
    """Rows in all shards, and how many different ones."""
    keys: Counter[tuple[str, bytes]] = Counter()
    for path in cache.glob("features/*/*/*.h5"):
        with h5py.File(path, "r", locking=False) as file:
            keys.update((path.parent.name, key) for key in _digests(file["keys"][:].tobytes()))
    return keys.total(), len(keys)


def _has_a_place(path: Path, cache: Path) -> bool:
    """Whether a file is of a kind that a cache has there; drafts have theirs in `tmp`."""
    parts = path.relative_to(cache).parts
    if path.name.endswith(".damaged"):
        return parts[0] == "features"
    if len(parts) == 1:
        return parts[0] in {"CACHEDIR.TAG", "humeris.json"}
    if parts[0] == "features":
        shard = len(parts) == 4 and len(path.name) == 67 and path.suffix == ".h5"
        return shard or (len(parts) == 3 and parts[2] in {"spec.json", "layers.json"})
    return parts[0] in {"tmp", "known"}


def _digests(data: bytes) -> list[bytes]:
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def seconds_since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
