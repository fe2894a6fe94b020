"""Headers of uncompressed TIFF files: a header followed by the pixels as they are in memory."""

from __future__ import annotations

import struct

_SHORT, _LONG = 3, 4


def build_header(height: int, width: int, channels: int = 1) -> bytes:
    """Return the TIFF header for (height, width[, channels]) uint8 pixels: gray, RGB, or RGB with alpha."""
    bits = struct.pack(f"<{channels}H", *[8] * channels)
    entries = 9 + (channels == 4)
    end = 8 + 2 + 12 * entries + 4
    start = end + (len(bits) if channels > 2 else 0)
    tags = [
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, channels, end if channels > 2 else 8),  # bits per sample
        (259, _SHORT, 1, 1),  # no compression
        (262, _SHORT, 1, 2 if channels > 2 else 1),  # RGB, or 0 is black
        (273, _LONG, 1, start),
        (277, _SHORT, 1, channels),
        (278, _LONG, 1, height),
        (279, _LONG, 1, height * width * channels),
        (338, _SHORT, 1, 2),  # the fourth is transparency, not multiplied in
    ][:entries]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, entries) + directory + bytes(4) + (bits if channels > 2 else b"")


def read_tag(data: bytes, tag: int) -> int | None:
    """Return the first value of a tag of whole numbers in the first directory of a TIFF file; None if there is none."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for number in range(count):
            name, kind, length, _ = struct.unpack_from(f"{order}HHII", data, start + 2 + 12 * number)
            if name == tag and length == 1 and kind in {_SHORT, _LONG}:
                form = "H" if kind == _SHORT else "I"
                value: int = struct.unpack_from(f"{order}{form}", data, start + 10 + 12 * number)[0]
                return value
    except struct.error:
        pass
    return None
