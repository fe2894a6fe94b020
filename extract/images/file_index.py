"""Index of the images of a source: name and stamp -> digest, format, and the reason of a rejection."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...cache.key_value_store import KeyValueStore
from ..pixels import decode
from .image_source import ImageSource, Stamp
from .item import Item


@dataclass(frozen=True)
class FileRecord:
    """The digest (32 bytes) and format of one image, and the reason and detail of its rejection ("" if none)."""

    digest: bytes
    format: str
    reason: str = ""
    detail: str = ""


@dataclass
class FileRecords:
    """The records of n images, by column.

    Parameters
    ----------
    has_record : np.ndarray
        Mask (n,) of the images that have a record.
    digests : np.ndarray
        (n, 32) uint8.
    formats : list of str
        n names of file formats.
    rejections : dict
        Image number -> (reason, detail) of the rejected images.
    """

    has_record: np.ndarray
    digests: np.ndarray
    formats: list[str]
    rejections: dict[int, tuple[str, str]]

    @classmethod
    def create_empty(cls, count: int) -> FileRecords:
        """Return `count` images without a record."""
        return cls(np.zeros(count, bool), np.zeros((count, 32), np.uint8), [""] * count, {})

    def put(self, number: int, record: FileRecord) -> None:
        """Set the record of one image."""
        self.has_record[number] = True
        self.digests[number] = np.frombuffer(record.digest, np.uint8)
        self.formats[number] = record.format
        if record.reason:
            self.rejections[number] = (record.reason, record.detail)

    def get(self, number: int) -> FileRecord:
        """Return the record of one image."""
        return FileRecord(self.digests[number].tobytes(), self.formats[number], *self.rejections.get(number, ()))


class FileIndex:
    """The records of the images of one source, stored in the cache between commands.

    The index is specific to the pixels version, because decoders differ in what they reject.

    Parameters
    ----------
    kv_store : KeyValueStore
        Stores the index.
    source : ImageSource
        The source, whose stamps tell whether an image has changed.
    """

    def __init__(self, kv_store: KeyValueStore, source: ImageSource) -> None:
        self._kv_store, self._source, self._key = kv_store, source, f"{source.index_key}\n{decode.get_version()}"
        self._rows: dict[str, int] = {}
        self._stamps, self._records = np.zeros((0, 4), np.int64), FileRecords.create_empty(0)
        self._updates: dict[str, tuple[np.ndarray, FileRecord]] = {}
        if (packed := kv_store.get("files", self._key)) is not None:
            self._rows, self._stamps, self._records = _unpack(packed)

    def look_up(self, items: Sequence[Item]) -> FileRecords:
        """Return the records of `items`; an item that is new, or whose stamp has changed, has none."""
        records = FileRecords.create_empty(len(items))
        rows = np.fromiter((self._rows.get(item.name, -1) for item in items), np.int64, len(items))
        indices = np.nonzero(rows >= 0)[0]
        if not len(indices):
            return records
        rows = rows[indices]
        stamps = self._source.read_stamps([items[number] for number in indices.tolist()])
        is_unchanged = (stamps == self._stamps[rows]).all(axis=1)
        indices, rows = indices[is_unchanged], rows[is_unchanged]
        records.has_record[indices] = True
        records.digests[indices] = self._records.digests[rows]
        formats, rejections = self._records.formats, self._records.rejections
        for number, row in zip(indices.tolist(), rows.tolist(), strict=True):
            records.formats[number] = formats[row]
        if rejections:
            index_by_row = dict(zip(rows.tolist(), indices.tolist(), strict=True))
            records.rejections = {
                index_by_row[row]: reason_and_detail for row, reason_and_detail in rejections.items() if row in index_by_row
            }
        return records

    def put(self, name: str, stamp: Stamp, record: FileRecord, stamped_at_ns: int) -> None:
        """Add a record, unless the stamp, taken at `stamped_at_ns`, is too recent to show a later change of the image."""
        if stamp.is_stable(stamped_at_ns):
            self._updates[name] = (np.frombuffer(stamp.to_bytes(), np.int64), record)

    def mark_rejected(self, name: str, reason: str, detail: str) -> None:
        """Add a rejection to the record of an image, which keeps its stamp; an image without a record is left out."""
        if name in self._updates:
            stamp, record = self._updates[name]
        elif (row := self._rows.get(name)) is not None:
            stamp, record = self._stamps[row], self._records.get(row)
        else:
            return
        self._updates[name] = (stamp, replace(record, reason=reason, detail=detail))

    def save(self) -> None:
        """Write the index; records of images that no longer exist are dropped."""
        if not self._updates:
            return
        names = [*self._rows, *(name for name in self._updates if name not in self._rows)]
        existing_names = [name for name in names if self._source.exists(name)]
        stamps, records = np.zeros((len(existing_names), 4), np.int64), FileRecords.create_empty(len(existing_names))
        for number, name in enumerate(existing_names):
            if name in self._updates:
                stamps[number], record = self._updates[name]
                records.put(number, record)
            else:
                row = self._rows[name]
                stamps[number] = self._stamps[row]
                records.put(number, self._records.get(row))
        self._rows, self._stamps, self._records = {name: row for row, name in enumerate(existing_names)}, stamps, records
        if self._kv_store.put("files", self._key, _pack(existing_names, stamps, records)):
            self._updates = {}


def _pack(names: Sequence[str], stamps: np.ndarray, records: FileRecords) -> bytes:
    """Return the index as an uncompressed `.npz`; names are joined by NUL, which no path contains."""
    formats = sorted(set(records.formats))
    format_ids = {name: index for index, name in enumerate(formats)}
    metadata = {
        "formats": formats,
        "refused": [[row, *reason_and_detail] for row, reason_and_detail in records.rejections.items()],
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        stamps=stamps,
        digests=records.digests,
        formats=np.array([format_ids[name] for name in records.formats], np.uint8),
        names=np.frombuffer(os.fsencode("\0".join(names)), np.uint8),
        rest=np.frombuffer(json.dumps(metadata).encode(), np.uint8),
    )
    return buffer.getvalue()


def _unpack(data: bytes) -> tuple[dict[str, int], np.ndarray, FileRecords]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        stamps, digests, metadata = arrays["stamps"], arrays["digests"], json.loads(arrays["rest"].tobytes())
        names = os.fsdecode(arrays["names"].tobytes()).split("\0") if len(stamps) else []
        formats = [metadata["formats"][format_id] for format_id in arrays["formats"].tolist()]
    records = FileRecords(
        np.ones(len(names), bool), digests, formats, {row: (reason, detail) for row, reason, detail in metadata["refused"]}
    )
    return dict(zip(names, range(len(names)), strict=True)), stamps, records
