"""Head families with their options from a TOML file: `[[head]]` tables with a name and the options to try."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...cache.errors import HeadError
from .registry import FAMILIES, Family, options_of
from .search import Search

_KINDS = {dict: "a table", list: "a list", bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def families(heads: Sequence[str], file: Path | None = None, search: Search | None = None) -> list[Family]:
    """The families of `heads` (`NAME[,option=a/b]`) and of a TOML file; logistic regression where there are none.

    Raises `HeadError`, which for what the file says names the file, the table and the key.
    """
    search = search or Search()
    asked = [("", *options_of(text)) for text in heads]
    asked += [] if file is None else read(file)
    found = []
    for where, name, options in asked or [("", "logreg", {})]:
        try:
            found.append(search.family(name, options))
        except HeadError as error:
            raise HeadError(f"{where}{error}") from error
    return found


def read(file: Path) -> list[tuple[str, str, dict[str, str]]]:
    """(where it stands, name, options as `NAME,option=a/b` has them) of each table of a TOML file; raises `HeadError`."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HeadError(f"{file}: expected a TOML file of [[head]] tables, found no file there; check the path") from error
    except IsADirectoryError as error:
        raise HeadError(f"{file}: expected a TOML file of [[head]] tables, found a folder; name the file in it") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HeadError(f"{file}: expected a TOML file of [[head]] tables, found: {reason}") from error
    tables = found.pop("head", None)
    if found:
        raise HeadError(f"{file}: expected [[head]] tables only, found the key {next(iter(found))!r}")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        kind = "none" if tables in (None, []) else _kind(tables)
        raise HeadError(f"{file}: expected [[head]] tables, each with a name and options, found {kind} called head")
    return [_table(file, number, table) for number, table in enumerate(tables, start=1)]


def _table(file: Path, number: int, table: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    where = f"{file}: [[head]] {number}"
    name = table.pop("name", None)
    if not isinstance(name, str) or name not in FAMILIES:
        said = "none" if name is None else repr(name)
        raise HeadError(f"{where}, key name: expected one of {', '.join(FAMILIES)}, found {said}")
    return f"{where}: ", name, {key: _text(f"{where} ({name}), key {key}", value) for key, value in table.items()}


def _text(where: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise HeadError(f"{where}: expected a value or a list of them, found an empty list")
    for each in values:
        if not isinstance(each, bool | int | float | str) or (isinstance(each, str) and (not each or "," in each)):
            raise HeadError(f"{where}: expected a number, text, or a list of them, found {_kind(each)}")
    return "/".join(str(each).lower() if isinstance(each, bool) else str(each) for each in values)


def _kind(value: Any) -> str:
    return repr(value) if isinstance(value, str) else _KINDS.get(type(value), f"a {type(value).__name__}")
