"""Rows of a CSV or TSV file that lists images, under the column names people use."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..cache.errors import DataError

_COLUMNS = {
    "path": ("path", "file_name", "filename", "file", "image", "filepath", "image_path"),
    "label": ("label", "class", "target", "category"),
    "split": ("split", "subset", "set"),
    "group": ("group",),
}


@dataclass(frozen=True)
class Row:
    """One line; a column that the file lacks is an empty string."""

    path: str
    label: str
    split: str
    group: str


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, row) of each line; raises `DataError` for a file without the columns path and label."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            where = {field: _find(header, names) for field, names in _COLUMNS.items()}
            for field in ("path", "label"):
                if where[field] is None:
                    raise DataError(
                        f"{path}: expected a column {' or '.join(_COLUMNS[field][:3])}, "
                        f"found the columns {', '.join(header)[:200] or '(none)'}; name the columns in the first line"
                    )
            for cells in reader:
                if cells:
                    yield reader.line_num, Row(**{name: _cell(cells, at) for name, at in where.items()})
    except csv.Error as error:
        raise DataError(f"{path}: expected CSV, found on line {reader.line_num}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _find(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _cell(cells: list[str], at: int | None) -> str:
    return cells[at].strip() if at is not None and at < len(cells) else ""
