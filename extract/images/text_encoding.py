"""The encoding of a text file, from its bytes."""

from __future__ import annotations

import codecs
from pathlib import Path

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 4096
_CHUNK_BYTES = 1 << 20


def detect_encoding(path: Path) -> str:
    """Return the encoding of a text file.

    Parameters
    ----------
    path : Path
        The file; all of it is read unless its first bytes tell.

    Returns
    -------
    str
        That of its byte order mark; else ``utf-16-le`` or ``utf-16-be`` if every other byte is zero, ``utf-8`` if it is
        valid UTF-8, and ``cp1252`` or ``latin-1``, in which any bytes are text.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
        for mark, encoding in _BYTE_ORDER_MARKS:
            if sample.startswith(mark):
                return encoding
        if (zeros := _find_zero_bytes(sample)) is not None:
            return "utf-16-be" if zeros == 0 else "utf-16-le"
        decoders = {name: codecs.getincrementaldecoder(name)() for name in ("utf-8", "cp1252")}
        chunk = sample
        while chunk:
            for name, decoder in list(decoders.items()):
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    del decoders[name]
            chunk = file.read(_CHUNK_BYTES)
        if "utf-8" in decoders:
            try:
                decoders["utf-8"].decode(b"", final=True)
            except UnicodeDecodeError:
                del decoders["utf-8"]
    return next(iter(decoders), "latin-1")


def is_unicode(encoding: str) -> bool:
    """Return whether the encoding is a form of Unicode, and so not a guess."""
    return encoding.startswith("utf")


def _find_zero_bytes(sample: bytes) -> int | None:
    """Return 0 or 1 if nearly all bytes at even or odd offsets are zero and no others are, as in UTF-16; None otherwise."""
    if len(sample) < 4:
        return None
    counts = [sample[offset::2].count(0) for offset in (0, 1)]
    for offset in (0, 1):
        if counts[offset] > 0.7 * (len(sample) // 2) and counts[1 - offset] == 0:
            return offset
    return None
