"""Rows of a CSV, TSV, JSON lines or Parquet file that lists images, under the column names people use."""

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
_NEEDED = ("path", "label")
MISSING = {"nan", "NaN", "<NA>"}  # what pandas makes of a missing value when it is turned into text
_LONGEST = 1 << 20  # bytes of a line


class NoColumn(DataError):
    """A list lacks a `column` that is needed: `path` or `label`."""

    def __init__(self, column: str, text: str) -> None:
        super().__init__(text)
        self.column = column


class Row(NamedTuple):
    """One line or row, at `where`; a column that the file lacks is an empty string.

    fault: why nothing could be read of it, "" for a sound one.
    """

    where: str
    path: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    fault: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """Each row of the file; one that cannot be read is a row with a `fault`, and the next ones follow.

    Raises `DataError` for a file without the columns path and label.
    """
    read = {".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}.get(path.suffix.lower(), _csv)
    try:
        yield from read(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise DataError(f"{path}: expected CSV, found on line {reader.line_num}: {error}") from error
        path_at, label_at, split_at, group_at = _places(path, header)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(f"line {reader.line_num}", fault=f"expected CSV, found: {error}")
                continue
            if cells:
                where = f"line {reader.line_num}"
                yield Row(
                    where, _cell(cells, path_at), _cell(cells, label_at), _cell(cells, split_at), _cell(cells, group_at)
                )


def _cell(cells: Sequence[str], at: int | None) -> str:
    if at is None or at >= len(cells):
        return ""
    text = cells[at].strip()
    return "" if text in MISSING else text


def _json_lines(path: Path) -> Iterator[Row]:
    complete, seen = False, dict[str, None]()
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST):
            number += 1
            where = f"line {number}"
            if len(line) == _LONGEST and not line.endswith(b"\n"):
                while (rest := file.readline(_LONGEST)) and not rest.endswith(b"\n"):
                    pass
                yield Row(where, fault=f"expected a line of at most {_LONGEST:,} bytes, found a longer one")
                continue
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
            if not text.strip():
                continue
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield Row(where, fault=f"expected a JSON object, found: {error}")
                continue
            if not isinstance(value, dict):
                yield Row(where, fault=f"expected a JSON object, found {type(value).__name__}")
                continue
            named = {name.strip().lower(): cell for name, cell in value.items()}
            seen.update(dict.fromkeys(named))
            row = _typed(
                where, [next((named[name] for name in names if name in named), None) for names in _COLUMNS.values()]
            )
            complete = complete or bool(row.path and row.label) or bool(row.fault)
            yield row
    if seen and not complete:
        _places(path, list(seen))


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: expected pyarrow to read it, found none; run: pip install 'humeris[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, number = file.schema_arrow, 0
            places = _places(path, schema.names)
            for at in places:
                if at is not None and pyarrow.types.is_nested(schema.types[at]):
                    raise DataError(
                        f"{path}: expected text in the column {schema.names[at]}, found {str(schema.types[at])[:60]}; "
                        "write the images to files and list their paths"
                    )
            names = [None if at is None else schema.names[at] for at in places]
            for batch in file.iter_batches(batch_size=4096, columns=[name for name in names if name is not None]):
                columns = [[None] * len(batch) if name is None else batch.column(name).to_pylist() for name in names]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield _typed(f"row {number}", cells)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: expected Parquet, found: {' '.join(str(error).split())[:200]}") from error


def _places(path: Path, columns: Sequence[str]) -> list[int | None]:
    """Where each of our columns is; raises `DataError` when a needed one is nowhere."""
    header = [name.strip().lower() for name in columns]
    places = {}
    for field, names in _COLUMNS.items():
        places[field] = next((header.index(name) for name in names if name in header), None)
        if field in _NEEDED and places[field] is None:
            raise NoColumn(
                field,
                f"{path}: expected a column {' or '.join(_COLUMNS[field][:3])}, "
                f"found the columns {', '.join(header)[:200] or '(none)'}; name the columns as expected",
            )
    return list(places.values())


def _typed(where: str, cells: Sequence[Any]) -> Row:
    """A row of JSON or Parquet values: text, numbers (1.0 is 1), true and false; None and NaN are missing."""
    try:
        return Row(where, *map(_text, cells))
    except (TypeError, ValueError) as error:
        return Row(where, fault=str(error))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise TypeError(f"expected text or a number, found {type(value).__name__}")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError("expected text, found half of a character (a lone surrogate)") from error
    return _cell([value], 0)
