"""What was learnt about files: path, size, mtime and ctime -> digest, format, and why it was refused if it was."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..cache.memo import Memo
from . import pixels

# A file changed within one tick of the clock after it was read could keep its timestamps. File systems that store whole
# seconds tick once or twice a second or slower, others every few milliseconds.
_TICK_NS = 20_000_000
_SLOW_TICK_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamp:
    """A file's inode, size, mtime and ctime (ns): equal stamps mean the same bytes."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path | str) -> Stamp:
        """The stamp of the file at `path`; raises `OSError`."""
        status = os.stat(path)
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def settled(self, now_ns: int) -> bool:
        """Whether a change after `now_ns` must show in the stamp."""
        tick = _SLOW_TICK_NS if self.ctime_ns % 1_000_000_000 == 0 else _TICK_NS
        return self.ctime_ns + tick < now_ns


@dataclass(frozen=True)
class Fact:
    """What one file holds: its digest (32 bytes), its format, and the reason and detail of a refusal ("" if none)."""

    digest: bytes
    format: str
    reason: str = ""
    detail: str = ""


class Known:
    """Facts about the files under one root, kept in the cache's memo from one run to the next.

    Refusals are remembered for the present pixels version only.
    """

    def __init__(self, memo: Memo, root: Path) -> None:
        self._memo, self._root, self._key = memo, root, f"{root.resolve()}\n{pixels.version()}"
        self._facts: dict[str, tuple[Stamp, Fact]] = {}
        self._changed = False
        if (stored := memo.get("images", self._key)) is not None:
            self._facts = _unpack(stored)

    def get(self, name: str, path: Path) -> Fact | None:
        """The fact about the file, if it is the very file that was seen."""
        stored = self._facts.get(name)
        if stored is None:
            return None
        try:
            return stored[1] if Stamp.of(path) == stored[0] else None
        except OSError:
            return None

    def put(self, name: str, stamp: Stamp, fact: Fact, taken_ns: int) -> None:
        """Remember `fact`, unless the file was so young when `stamp` was taken that a later change might not show."""
        if stamp.settled(taken_ns):
            self._facts[name] = (stamp, fact)
            self._changed = True

    def refuse(self, name: str, reason: str, detail: str) -> None:
        """Add to what is known of a file that it cannot be used; its stamp stays the one it was identified with."""
        if name in self._facts:
            stamp, fact = self._facts[name]
            self._facts[name] = (stamp, replace(fact, reason=reason, detail=detail))
            self._changed = True

    def save(self) -> None:
        """Write down what is known; files that are gone are forgotten."""
        if self._changed:
            one = self._root.is_file()  # whose rows are the images
            facts = {name: fact for name, fact in self._facts.items() if one or os.path.lexists(self._root / name)}
            self._changed = not self._memo.put("images", self._key, _pack(facts))


def _pack(facts: dict[str, tuple[Stamp, Fact]]) -> bytes:
    """The facts as a compressed-free `.npz`: text columns are joined by NUL, which no path and no message contains."""
    stamps = [(stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns) for stamp, _ in facts.values()]
    texts = [(name, fact.format, fact.reason, fact.detail.replace("\0", " ")) for name, (_, fact) in facts.items()]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        stamps=np.array(stamps, dtype=np.int64).reshape(-1, 4),
        digests=np.frombuffer(b"".join(fact.digest for _, fact in facts.values()), np.uint8),
        texts=np.frombuffer(os.fsencode("\0".join(cell for row in texts for cell in row)), np.uint8),
    )
    return buffer.getvalue()


def _unpack(data: bytes) -> dict[str, tuple[Stamp, Fact]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        stamps, digests, texts = arrays["stamps"].tolist(), arrays["digests"].tobytes(), arrays["texts"].tobytes()
    cells = os.fsdecode(texts).split("\0")
    return {
        cells[4 * i]: (
            Stamp(*stamp),
            Fact(digests[32 * i : 32 * i + 32], cells[4 * i + 1], cells[4 * i + 2], cells[4 * i + 3]),
        )
        for i, stamp in enumerate(stamps)
    }
