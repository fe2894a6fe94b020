"""CSV tables in which no cell is run as a formula by a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_FORMULA_PREFIXES = {"=", "+", "-", "@", "\t", "\r", "'"}


def format_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table as the bytes of a file, with an apostrophe before cells that a spreadsheet would run as a formula."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(header)
    writer.writerows([[escape_formula(value) for value in row] for row in rows])
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table as dictionaries; raises `OSError`, and `ValueError` if the file is not a table."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [{name: unescape_formula(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    except (csv.Error, TypeError, AttributeError) as error:  # a row is longer or shorter than the header
        raise ValueError(str(error)) from error


def escape_formula(value: Any) -> Any:
    """Return a cell with an apostrophe in front if a spreadsheet would run it as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA_PREFIXES else value


def unescape_formula(cell: str) -> str:
    """Return the cell that `escape_formula` escaped."""
    return cell[1:] if cell[:1] == "'" else cell
