"""Read the metadata of an ONNX file without reading the rest of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_METADATA, _KEY, _VALUE = 14, 1, 2  # field numbers of ModelProto and of StringStringEntryProto
_MAX_FIELD_BYTES = 1 << 24  # bytes
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types


def read_metadata_props(path: Path) -> dict[str, str]:
    """Read the properties of an ONNX file; empty if the file is not ONNX.

    The weights, one field of the outermost message, are skipped. See https://protobuf.dev/programming-guides/encoding.
    """
    properties = {}
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            for field_number, entry in _read_fields(file, size):
                if field_number == _METADATA:
                    pair = dict(_read_fields(io.BytesIO(entry), len(entry)))
                    properties[pair[_KEY].decode()] = pair[_VALUE].decode()
    except (OSError, ValueError, KeyError):
        return {}
    return properties


def _read_fields(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """The numbers and contents of the string and message fields of a message, except large ones; raises `ValueError`."""
    while file.tell() < size:
        tag = _read_varint(file)
        field_number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _read_varint(file)
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire_type, -1) if wire_type != _LENGTH else _read_varint(file)
        if not field_number or not 0 <= length <= size - file.tell():
            raise ValueError("not a message")
        if wire_type == _LENGTH and length < _MAX_FIELD_BYTES:
            yield field_number, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for position in range(10):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << (7 * position)
        if byte[0] < 128:
            return value
    raise ValueError("not a number")
