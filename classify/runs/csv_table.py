"""CSV tables whose cells no spreadsheet runs as formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_FORMULA_PREFIXES = {"=", "+", "-", "@", "\t", "\r", "'"}


def format_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as the bytes of a file. A cell that a spreadsheet would run as a formula gets a leading apostrophe."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(header)
    writer.writerows([[escape_formula(value) for value in row] for row in rows])
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns; raises `OSError`, and `ValueError` for anything that is no table."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [{name: unescape_formula(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    except (csv.Error, TypeError, AttributeError) as error:  # rows that are longer or shorter than the header
        raise ValueError(str(error)) from error


def escape_formula(value: Any) -> Any:
    """The cell of a table, with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA_PREFIXES else value


def unescape_formula(cell: str) -> str:
    """The cell that `escape_formula` escaped."""
    return cell[1:] if cell[:1] == "'" else cell
