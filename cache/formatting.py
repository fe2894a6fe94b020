"""Formatting of text output: tables, sizes, strings that are safe on a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])")
_FOREIGN_ADVICE = re.compile(r"safe_mode|unsafe_deserialization|custom_objects|run_eagerly|report this", re.IGNORECASE)


def to_printable(value: object) -> str:
    """Return `value` on one line, with control and bidirectional characters escaped (file names may hold any)."""
    text = str(value)
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "replace").decode()
        for character in text
    )


def to_utf8(value: Any) -> Any:
    """Return JSON values whose texts are valid Unicode; bytes of file names that are not UTF-8 are escaped."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return {to_utf8(key): to_utf8(each) for key, each in value.items()}
    return [to_utf8(each) for each in value] if isinstance(value, list | tuple) else value


def format_names(names: Sequence[object], n_shown: int = 3) -> str:
    """Return the first names of a list, such as a, b, c, …."""
    return ", ".join([*map(to_printable, names[:n_shown]), *(["…"] if len(names) > n_shown else [])])


def quote_argument(value: object) -> str:
    """Return `value` quoted as one word of a shell command, safe on a terminal."""
    return shlex.quote(to_printable(value))


def format_error(error: BaseException, max_length: int = 300) -> str:
    """Return the message of the innermost cause of an exception, on one line of at most `max_length` characters.

    Colors are removed, and so is advice about options of Keras that do not exist here.
    """
    innermost = error
    while (cause := innermost.__cause__ or (None if innermost.__suppress_context__ else innermost.__context__)) is not None:
        if not str(cause).strip() or isinstance(cause, KeyError | StopIteration | AttributeError):
            break  # how a library looked for something, and not why it failed
        innermost = cause
    text = " ".join(_COLOR.sub("", str(innermost)).split())
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if not _FOREIGN_ADVICE.search(sentence)]
    return (" ".join(sentences) or text)[:max_length]


def format_size(count: float) -> str:
    """Return a number of bytes with a unit, such as 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_percent(proportion: float, n_digits: int = 1) -> str:
    """Return a proportion as a percentage, such as 91.5 %."""
    return f"{100 * proportion:.{n_digits}f} %"


def format_interval(bounds: Sequence[float]) -> str:
    """Return an interval of proportions in percent, such as 86.0–95.0."""
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an aligned table; columns of numbers are right-aligned."""
    cells = [[to_printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    is_numeric = [all(_is_number(row[column]) for row in cells) and bool(cells) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if align_right else cell.ljust(width)
            for cell, width, align_right in zip(row, widths, is_numeric, strict=True)
        ).rstrip()
        for row in [list(header), *cells]
    ]
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "").replace(",", "").replace("%", "").replace(" ", "").replace("-", "").isdigit() or not cell


def join_paragraphs(*parts: str) -> str:
    """Join the parts that are not empty by newlines."""
    return "\n".join(part for part in parts if part)
