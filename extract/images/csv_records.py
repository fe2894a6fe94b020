"""Records of delimited text: CSV with commas, semicolons, tabs or bars, and quoted fields."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

_DELIMITERS = (",", ";", "\t", "|")
_MAX_LINES = 1000  # lines of a quoted field: one that goes on for longer was never closed


class CsvRecord(NamedTuple):
    """The fields of one record, which begins on line `line`; `fault` says why they cannot be used, "" for usable ones."""

    line: int
    fields: Sequence[str]
    fault: str = ""


class CsvRecords:
    """The records of a CSV file: each row of the list is one of them, whatever its quotes do.

    A quoted field may have line breaks. If it swallows other rows, because its quote is closed many rows later or never, the
    row in which it opens has a fault, and reading goes on with the next line.

    Parameters
    ----------
    file : TextIO
        The text, opened with ``newline=""``.
    path : Path
        Its path; the suffix `.tsv` means tabs where the header does not tell.
    count_known : callable
        Returns how many of the columns of a header are known; the delimiter with the most is used.

    Attributes
    ----------
    header : list of str
        The fields of the first record.
    """

    def __init__(self, file: TextIO, path: Path, count_known: Callable[[Sequence[str]], int]) -> None:
        self._lines, self._line_number = iter(file), 0
        self._pushed_back: list[str] = []
        first_line = self._take_line() or ""
        if first_line.lower().startswith("sep=") and len(first_line.rstrip("\r\n")) == len("sep=") + 1:  # Excel's
            delimiters: Sequence[str] = (first_line[len("sep=")],)
            first_line = self._take_line() or ""
        elif path.suffix.lower() == ".tsv":
            delimiters = ("\t", *(delimiter for delimiter in _DELIMITERS if delimiter != "\t"))
        else:
            delimiters = _DELIMITERS
        self._push_back([first_line] if first_line else [])
        headers = {delimiter: _split(first_line, delimiter) for delimiter in delimiters}
        self._delimiter = max(
            delimiters, key=lambda delimiter: (count_known(headers[delimiter]), len(headers[delimiter]) > 1)
        )
        header = next(self._iter_raw(), None)
        self.fault = header.fault if header is not None else ""
        self.header = list(header.fields) if header is not None else []

    def iter_rows(self, key_columns: Sequence[int]) -> Iterator[CsvRecord]:
        """Yield the records below the header; blank lines are none.

        Parameters
        ----------
        key_columns : sequence of int
            The columns that never have line breaks, that of the paths first.
        """
        for record in self._iter_raw(key_columns):
            extra = [field for field in record.fields[len(self.header) :] if field.strip()]
            if extra and not record.fault:
                fault = (
                    f"{len(record.fields)} fields, but the header has {len(self.header)}; put fields that contain "
                    f"{self._delimiter!r} in quotes"
                )
                yield record._replace(fault=fault)
            else:
                yield record

    def _iter_raw(self, key_columns: Sequence[int] | None = None) -> Iterator[CsvRecord]:
        while (line := self._take_line()) is not None:
            if (
                '"' not in line and len(line) < csv.field_size_limit()
            ):  # most lines, and much faster than to begin a reader for each
                if text := line.rstrip("\r\n"):
                    yield CsvRecord(self._line_number, text.split(self._delimiter))
                continue
            self._push_back([line])
            taken: list[str] = []
            start = self._line_number + 1
            reader = csv.reader(self._take_lines(taken), delimiter=self._delimiter, strict=True)
            try:
                fields = next(reader)
            except csv.Error as error:
                self._push_back(taken[1:])
                yield CsvRecord(start, (), f"invalid CSV: {_explain(error, taken)}")
                continue
            if not fields:
                continue
            if len(taken) > 1 and key_columns is not None and self._swallows_rows(fields, taken, key_columns):
                self._push_back([*taken[1:-1], _drop_last_quote(taken[-1])])
                yield CsvRecord(start, (), "invalid CSV: a quote opens here and is closed in a later row")
            else:
                yield CsvRecord(start, fields)

    def _swallows_rows(self, fields: Sequence[str], taken: Sequence[str], key_columns: Sequence[int]) -> bool:
        """Return whether a record of several lines contains other rows."""
        if any(index < len(fields) and ("\n" in fields[index] or "\r" in fields[index]) for index in key_columns):
            return True
        if len(fields) != len(self.header):
            return True
        path = fields[key_columns[0]]
        suffix = Path(path).suffix
        for line in taken[1:]:
            inner = _split(line, self._delimiter)
            if suffix and len(inner) >= len(self.header) and Path(inner[key_columns[0]].strip()).suffix == suffix:
                return True
        return False

    def _take_lines(self, taken: list[str]) -> Iterator[str]:
        while len(taken) < _MAX_LINES and (line := self._take_line()) is not None:
            taken.append(line)
            yield line

    def _take_line(self) -> str | None:
        line = self._pushed_back.pop() if self._pushed_back else next(self._lines, None)
        self._line_number += line is not None
        return line

    def _push_back(self, lines: Sequence[str]) -> None:
        self._pushed_back += reversed(lines)
        self._line_number -= len(lines)


def _split(line: str, delimiter: str) -> list[str]:
    """Return the fields of one line, whatever its quotes do."""
    try:
        return next(iter(csv.reader([line], delimiter=delimiter)), [])
    except csv.Error:
        return line.split(delimiter)


def _drop_last_quote(line: str) -> str:
    """Return the line without its last quote if it has an odd number: the one that closes a field of another row."""
    before, _, after = line.rpartition('"')
    return before + after if line.count('"') % 2 else line


def _explain(error: csv.Error, taken: Sequence[str]) -> str:
    if "unexpected end of data" in str(error):
        return "a quote opens here and is never closed"
    return f"{error} (line {len(taken)} of the record)" if len(taken) > 1 else str(error)
