"""The metadata of an ONNX file, found without reading the rest of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_METADATA, _KEY, _VALUE = 14, 1, 2  # field numbers of ModelProto and of StringStringEntryProto
_LARGE = 1 << 24  # bytes
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types


def metadata(path: Path) -> dict[str, str]:
    """Values by their keys; none where the file is no ONNX.

    The weights, one field of the outermost message, are passed over. See https://protobuf.dev/programming-guides/encoding.
    """
    found = {}
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            for number, entry in _fields(file, size):
                if number == _METADATA:
                    pair = dict(_fields(io.BytesIO(entry), len(entry)))
                    found[pair[_KEY].decode()] = pair[_VALUE].decode()
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _fields(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of a message's strings and messages, but for large ones; raises `ValueError` where it is none."""
    while file.tell() < size:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, -1) if kind != _LENGTH else _varint(file)
        if not number or not 0 <= length <= size - file.tell():
            raise ValueError("not a message")
        if kind == _LENGTH and length < _LARGE:
            yield number, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    value = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << (7 * place)
        if byte[0] < 128:
            return value
    raise ValueError("not a number")
