"""Rows of a CSV, TSV, JSON Lines or Parquet file that lists images."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...cache.errors import DataError
from ...cache.formatting import format_names
from .csv_records import CsvRecords
from .image_list import ImageList
from .list_columns import FALSE, TRUE, ListColumns, count_known_columns, find_columns, match_columns
from .text_encoding import detect_encoding

_MAX_LINE_BYTES = 1 << 20
_SINGLE_LABEL = "multi-label targets are not supported; give one label per image"


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


def read_rows(image_list: ImageList, encoding: str) -> Iterator[ManifestRow]:
    """Yield each row of a manifest; a row that cannot be read has a `fault`, and reading goes on with the next.

    Parameters
    ----------
    image_list : ImageList
        The file, whose suffix tells the format, and its columns.
    encoding : str
        The encoding of CSV, TSV and JSON Lines, from `detect_encoding`.

    Raises
    ------
    MissingColumn
        If there is no column of paths, or none of labels.
    DataError
        If the file cannot be read, or a row has several labels.
    """
    path = Path(image_list)
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _read_parquet(image_list)
        elif suffix in {".jsonl", ".ndjson"}:
            yield from _read_json_lines(image_list, encoding)
        else:
            yield from _read_csv(image_list, encoding)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def get_encoding(image_list: ImageList) -> str:
    """Return the encoding of the text of a list, ``utf-8`` for Parquet; raises `DataError` if it cannot be read."""
    path = Path(image_list)
    try:
        return "utf-8" if path.suffix.lower() == ".parquet" else detect_encoding(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_csv(image_list: ImageList, encoding: str) -> Iterator[ManifestRow]:
    path = Path(image_list)
    with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
        records = CsvRecords(file, path, lambda names: count_known_columns(image_list, names))
        if records.fault:
            raise DataError(f"{path}: {records.fault} in the header; correct its first line")
        rows = records.iter_rows([0])
        sample = list(itertools.islice(rows, 50))
        columns = find_columns(image_list, records.header, (record.fields for record in sample))
    with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
        records = CsvRecords(file, path, lambda names: count_known_columns(image_list, names))
        for record in records.iter_rows(columns.keys):
            position = f"line {record.line}"
            yield (
                ManifestRow(position, fault=record.fault)
                if record.fault
                else _parse_row(position, record.fields, columns, path)
            )


def _read_json_lines(image_list: ImageList, encoding: str) -> Iterator[ManifestRow]:
    path = Path(image_list)
    has_complete_row, column_names = False, dict[str, None]()
    columns_of_keys: dict[tuple[str, ...], ListColumns] = {}
    for line_number, text in enumerate(_iter_lines(path, encoding), 1):
        position = f"line {line_number}"
        if text is None:
            yield ManifestRow(position, fault=f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
            continue
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield ManifestRow(position, fault=f"invalid JSON: {error}")
            continue
        if not isinstance(value, dict):
            yield ManifestRow(position, fault=f"{type(value).__name__} in place of a JSON object")
            continue
        keys = tuple(value)
        if keys not in columns_of_keys:
            column_names.update(dict.fromkeys(keys))
            columns_of_keys[keys] = match_columns(image_list, keys)
        row = _parse_row(position, list(value.values()), columns_of_keys[keys], path)
        has_complete_row = has_complete_row or bool(row.path and row.label) or bool(row.fault)
        yield row
    if column_names and not has_complete_row:
        find_columns(image_list, list(column_names))


def _iter_lines(path: Path, encoding: str) -> Iterator[str | None]:
    """Yield the lines of a text file; None for one that is too long."""
    with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            if len(line) < _MAX_LINE_BYTES or line.endswith("\n"):
                yield line
                continue
            while (chunk := file.readline(_MAX_LINE_BYTES)) and not chunk.endswith("\n"):
                pass
            yield None


def _read_parquet(image_list: ImageList) -> Iterator[ManifestRow]:
    path = Path(image_list)
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: the package pyarrow is not installed; run `pip install 'humeris[parquet]'`") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, row_number = file.schema_arrow, 0
            columns = find_columns(image_list, schema.names)
            for index in columns.keys:
                if pyarrow.types.is_nested(schema.types[index]):
                    raise DataError(
                        f"{path}: column {schema.names[index]} is of the nested type {str(schema.types[index])[:60]}; "
                        "write the images to files and list their paths as text"
                    )
            for batch in file.iter_batches(batch_size=4096, columns=[schema.names[index] for index in columns.keys]):
                cells = {index: batch.column(schema.names[index]).to_pylist() for index in columns.keys}
                for number in range(len(batch)):
                    row_number += 1
                    row = [cells[index][number] if index in cells else None for index in range(len(schema.names))]
                    yield _parse_row(f"row {row_number}", row, columns, path)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: invalid Parquet file: {' '.join(str(error).split())[:200]}") from error


def _parse_row(position: str, cells: Sequence[Any], columns: ListColumns, path: Path) -> ManifestRow:
    """Return a row of text, JSON or Parquet values: text, numbers (1.0 is 1), true and false; None and NaN are missing.

    Raises
    ------
    DataError
        If it has several labels.
    """
    indices = (columns.path, columns.label, columns.split, columns.group)
    values = [None if index is None or index >= len(cells) else cells[index] for index in indices]
    try:
        if columns.one_hot:
            values[1] = _get_one_hot_label(position, cells, columns.one_hot, path)
        elif isinstance(values[1], list):
            values[1] = _get_only_label(position, values[1], path)
        return ManifestRow(position, *map(_to_text, values))
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        return ManifestRow(position, fault=str(error))


def _get_one_hot_label(position: str, cells: Sequence[Any], one_hot: Mapping[int, str], path: Path) -> str:
    """Return the class whose column is 1, "" if none is; raises `ValueError`, and `DataError` if several are."""
    labels = []
    for index, name in one_hot.items():
        cell = _to_text(cells[index] if index < len(cells) else None).lower()
        if cell in TRUE:
            labels.append(name)
        elif cell not in FALSE:
            raise ValueError(f"column {name}: {cell[:40]!r} is neither 0 nor 1")
    if len(labels) > 1:
        raise DataError(f"{path}: {position} has several labels ({format_names(labels)}): {_SINGLE_LABEL}")
    return labels[0] if labels else ""


def _get_only_label(position: str, labels: Sequence[Any], path: Path) -> Any:
    if len(labels) > 1:
        raise DataError(f"{path}: {position} has several labels ({format_names(labels)}): {_SINGLE_LABEL}")
    return labels[0] if labels else None


def _to_text(value: Any) -> str:
    if type(value) is str and value.isascii():  # nearly all
        return value.strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text or a number")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError("invalid text: it has a lone surrogate") from error
    return value.strip()
