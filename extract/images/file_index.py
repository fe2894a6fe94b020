"""What was learnt about files: path, size, mtime and ctime -> digest, format, and why it was refused if it was."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...cache.file_stamp import Stamp as Stamp
from ...cache.key_value_store import Memo
from ..pixels import decode
from .dataset import Item

_NO_STAMP = (-1, -1, -1, -1)


@dataclass(frozen=True)
class Fact:
    """What one file holds: its digest (32 bytes), its format, and the reason and detail of a refusal ("" if none)."""

    digest: bytes
    format: str
    reason: str = ""
    detail: str = ""


@dataclass
class Facts:
    """Facts about n files, by column.

    found: mask (n,) of those there is a fact of. digests: (n, 32) uint8. formats: n names.
    refused: number -> (reason, detail) of those that cannot be used.
    """

    found: np.ndarray
    digests: np.ndarray
    formats: list[str]
    refused: dict[int, tuple[str, str]]

    @classmethod
    def none(cls, count: int) -> Facts:
        """No fact about any of `count` files."""
        return cls(np.zeros(count, bool), np.zeros((count, 32), np.uint8), [""] * count, {})

    def put(self, number: int, fact: Fact) -> None:
        """Add what is known of one file."""
        self.found[number] = True
        self.digests[number] = np.frombuffer(fact.digest, np.uint8)
        self.formats[number] = fact.format
        if fact.reason:
            self.refused[number] = (fact.reason, fact.detail)

    def get(self, number: int) -> Fact:
        """What is known of one file."""
        return Fact(self.digests[number].tobytes(), self.formats[number], *self.refused.get(number, ()))


class Known:
    """Facts about the files under one root, kept in the cache's memo from one run to the next.

    Refusals are remembered for the present pixels version only.
    """

    def __init__(self, memo: Memo, root: Path) -> None:
        self._memo, self._root, self._key = memo, root, f"{root.resolve()}\n{decode.version()}"
        self._rows: dict[str, int] = {}
        self._stamps, self._facts = np.zeros((0, 4), np.int64), Facts.none(0)
        self._new: dict[str, tuple[Stamp, Fact]] = {}
        if (stored := memo.get("files", self._key)) is not None:
            self._rows, self._stamps, self._facts = _unpack(stored)

    def look_up(self, items: Sequence[Item]) -> Facts:
        """The facts about those of `items` whose file is the very one that was seen."""
        found = Facts.none(len(items))
        rows = np.fromiter((self._rows.get(item.name, -1) for item in items), np.int64, len(items))
        listed = np.nonzero(rows >= 0)[0]
        if not len(listed):
            return found
        rows = rows[listed]
        same = (_stamps([items[number] for number in listed.tolist()]) == self._stamps[rows]).all(axis=1)
        listed, rows = listed[same], rows[same]
        found.found[listed] = True
        found.digests[listed] = self._facts.digests[rows]
        formats, refused = self._facts.formats, self._facts.refused
        for number, row in zip(listed.tolist(), rows.tolist(), strict=True):
            found.formats[number] = formats[row]
        if refused:
            places = dict(zip(rows.tolist(), listed.tolist(), strict=True))
            found.refused = {places[row]: why for row, why in refused.items() if row in places}
        return found

    def put(self, name: str, stamp: Stamp, fact: Fact, taken_ns: int) -> None:
        """Remember `fact`, unless the file was so young when `stamp` was taken that a later change might not show."""
        if stamp.settled(taken_ns):
            self._new[name] = (stamp, fact)

    def refuse(self, name: str, reason: str, detail: str) -> None:
        """Add to what is known of a file that it cannot be used; its stamp stays the one it was identified with."""
        if name in self._new:
            stamp, fact = self._new[name]
        elif (row := self._rows.get(name)) is not None:
            stamp, fact = Stamp(*self._stamps[row].tolist()), self._facts.get(row)
        else:
            return
        self._new[name] = (stamp, replace(fact, reason=reason, detail=detail))

    def save(self) -> None:
        """Write down what is known; files that are gone are forgotten."""
        if not self._new:
            return
        one = self._root.is_file()  # whose rows are the images
        names = [*self._rows, *(name for name in self._new if name not in self._rows)]
        kept = [name for name in names if one or os.path.lexists(self._root / name)]
        stamps, facts = np.zeros((len(kept), 4), np.int64), Facts.none(len(kept))
        for number, name in enumerate(kept):
            if name in self._new:
                stamp, fact = self._new[name]
                stamps[number] = (stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns)
                facts.put(number, fact)
            else:
                row = self._rows[name]
                stamps[number] = self._stamps[row]
                facts.put(number, self._facts.get(row))
        self._rows, self._stamps, self._facts = {name: row for row, name in enumerate(kept)}, stamps, facts
        if self._memo.put("files", self._key, _pack(kept, stamps, facts)):
            self._new = {}


def _stamps(items: Sequence[Item]) -> np.ndarray:
    """Stamps (n, 4) of the items' files; one that is not there has none."""
    known: dict[Path | str, tuple[int, ...]] = {}  # rows of one array share a file
    stamps = []
    for item in items:
        location = item.location
        if item.encoded is not None and location in known:
            stamps.append(known[location])
            continue
        try:
            status = os.stat(location)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except (OSError, ValueError):
            stamp = _NO_STAMP
        stamps.append(stamp)
        if item.encoded is not None:
            known[location] = stamp
    return np.array(stamps, np.int64).reshape(-1, 4)


def _pack(names: Sequence[str], stamps: np.ndarray, facts: Facts) -> bytes:
    """The facts as an uncompressed `.npz`: names are joined by NUL, which no path contains."""
    formats = sorted(set(facts.formats))
    number = {name: place for place, name in enumerate(formats)}
    rest = {"formats": formats, "refused": [[row, *why] for row, why in facts.refused.items()]}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        stamps=stamps,
        digests=facts.digests,
        formats=np.array([number[name] for name in facts.formats], np.uint8),
        names=np.frombuffer(os.fsencode("\0".join(names)), np.uint8),
        rest=np.frombuffer(json.dumps(rest).encode(), np.uint8),
    )
    return buffer.getvalue()


def _unpack(data: bytes) -> tuple[dict[str, int], np.ndarray, Facts]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        stamps, digests, rest = arrays["stamps"], arrays["digests"], json.loads(arrays["rest"].tobytes())
        names = os.fsdecode(arrays["names"].tobytes()).split("\0") if len(stamps) else []
        formats = [rest["formats"][number] for number in arrays["formats"].tolist()]
    facts = Facts(np.ones(len(names), bool), digests, formats, {row: (why, detail) for row, why, detail in rest["refused"]})
    return dict(zip(names, range(len(names)), strict=True)), stamps, facts
