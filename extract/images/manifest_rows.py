"""Rows of a CSV, TSV, JSON Lines or Parquet file that lists images, with the usual names of columns."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...cache.errors import DataError

_COLUMNS = {
    "path": ("path", "file_name", "filename", "file", "image", "filepath", "image_path"),
    "label": ("label", "class", "target", "category"),
    "split": ("split", "subset", "set"),
    "group": ("group",),
}
_REQUIRED = ("path", "label")
MISSING = {"nan", "NaN", "<NA>"}  # how pandas writes a missing value as text
_MAX_LINE_BYTES = 1 << 20


class MissingColumn(DataError):
    """A manifest has no column of paths or labels; `column` is ``path`` or ``label``."""

    def __init__(self, column: str, text: str) -> None:
        super().__init__(text)
        self.column = column


class ManifestRow(NamedTuple):
    """One row of a manifest; an empty cell, or a column that the file does not have, is "".

    Parameters
    ----------
    position : str
        ``line 3`` or ``row 3``.
    path, label, split, group : str
        The cells.
    fault : str
        Why the row cannot be read; "" for a valid one.
    """

    position: str
    path: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    fault: str = ""


def read_rows(path: Path) -> Iterator[ManifestRow]:
    """Yield each row of a manifest; a row that cannot be read has a `fault`, and reading goes on with the next.

    Parameters
    ----------
    path : Path
        The file; its suffix tells the format.

    Raises
    ------
    MissingColumn
        If there is no column of paths, or none of labels.
    DataError
        If the file cannot be read.
    """
    read_format = {".jsonl": _read_json_lines, ".ndjson": _read_json_lines, ".parquet": _read_parquet}.get(
        path.suffix.lower(), _read_csv
    )
    try:
        yield from read_format(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_csv(path: Path) -> Iterator[ManifestRow]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise DataError(f"{path}: invalid CSV on line {reader.line_num}: {error}") from error
        path_index, label_index, split_index, group_index = _find_columns(path, header)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield ManifestRow(f"line {reader.line_num}", fault=f"invalid CSV: {error}")
                continue
            if cells:
                position = f"line {reader.line_num}"
                yield ManifestRow(
                    position,
                    _get_cell(cells, path_index),
                    _get_cell(cells, label_index),
                    _get_cell(cells, split_index),
                    _get_cell(cells, group_index),
                )


def _get_cell(cells: Sequence[str], index: int | None) -> str:
    if index is None or index >= len(cells):
        return ""
    text = cells[index].strip()
    return "" if text in MISSING else text


def _read_json_lines(path: Path) -> Iterator[ManifestRow]:
    has_complete_row, column_names = False, dict[str, None]()
    with path.open("rb") as file:
        line_number = 0
        while line := file.readline(_MAX_LINE_BYTES):
            line_number += 1
            position = f"line {line_number}"
            if len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (chunk := file.readline(_MAX_LINE_BYTES)) and not chunk.endswith(b"\n"):
                    pass
                yield ManifestRow(position, fault=f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
                continue
            text = line.decode("utf-8-sig" if line_number == 1 else "utf-8", "surrogateescape")
            if not text.strip():
                continue
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield ManifestRow(position, fault=f"invalid JSON: {error}")
                continue
            if not isinstance(value, dict):
                yield ManifestRow(position, fault=f"expected a JSON object, got {type(value).__name__}")
                continue
            cells = {name.strip().lower(): cell for name, cell in value.items()}
            column_names.update(dict.fromkeys(cells))
            row = _parse_row(
                position, [next((cells[name] for name in names if name in cells), None) for names in _COLUMNS.values()]
            )
            has_complete_row = has_complete_row or bool(row.path and row.label) or bool(row.fault)
            yield row
    if column_names and not has_complete_row:
        _find_columns(path, list(column_names))


def _read_parquet(path: Path) -> Iterator[ManifestRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: the package pyarrow is not installed; run `pip install 'humeris[parquet]'`") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, row_number = file.schema_arrow, 0
            indices = _find_columns(path, schema.names)
            for index in indices:
                if index is not None and pyarrow.types.is_nested(schema.types[index]):
                    raise DataError(
                        f"{path}: column {schema.names[index]} is of the nested type {str(schema.types[index])[:60]}; "
                        "write the images to files and list their paths as text"
                    )
            names = [None if index is None else schema.names[index] for index in indices]
            for batch in file.iter_batches(batch_size=4096, columns=[name for name in names if name is not None]):
                columns = [[None] * len(batch) if name is None else batch.column(name).to_pylist() for name in names]
                for cells in zip(*columns, strict=True):
                    row_number += 1
                    yield _parse_row(f"row {row_number}", cells)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: invalid Parquet file: {' '.join(str(error).split())[:200]}") from error


def _find_columns(path: Path, columns: Sequence[str]) -> list[int | None]:
    """Return the index of the column of each field, None if there is none; raises `MissingColumn`."""
    header = [name.strip().lower() for name in columns]
    indices = {}
    for field, names in _COLUMNS.items():
        indices[field] = next((header.index(name) for name in names if name in header), None)
        if field in _REQUIRED and indices[field] is None:
            raise MissingColumn(
                field,
                f"{path}: no column named {', '.join(names[:2])} or {names[2]} "
                f"(columns: {', '.join(header)[:200] or 'none'}); rename the columns",
            )
    return list(indices.values())


def _parse_row(position: str, cells: Sequence[Any]) -> ManifestRow:
    """Return a row of JSON or Parquet values: text, numbers (1.0 is 1), true and false; None and NaN are missing."""
    try:
        return ManifestRow(position, *map(_to_text, cells))
    except (TypeError, ValueError) as error:
        return ManifestRow(position, fault=str(error))


def _to_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise TypeError(f"expected text or a number, got {type(value).__name__}")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError("invalid text: it has a lone surrogate") from error
    return _get_cell([value], 0)
