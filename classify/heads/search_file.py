"""Head families with their options from a TOML file: `[[head]]` tables with a name and the options to try."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...cache.errors import HeadError
from .head_grid import HeadGrid, parse_options
from .registry import find_head_family, list_head_families
from .search import GridSearch, Search

_TYPE_NAMES = {dict: "a table", list: "a list", bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def load_head_grids(heads: Sequence[str], file: Path | None = None, search: Search | None = None) -> list[HeadGrid]:
    """Read the heads to try from the command line and from a file.

    Parameters
    ----------
    heads
        Texts `NAME[,option=a/b]`; logistic regression if there is no head in either place.
    file
        A TOML file of `[[head]]` tables.
    search
        How hyperparameters are selected; by default all combinations.

    Raises
    ------
    HeadError
        With file, table and key, if the error is in the file.
    """
    search = search or GridSearch()
    requests = [("", *parse_options(text)) for text in heads]
    requests += [] if file is None else read_toml(file)
    head_grids = []
    for location, name, options in requests or [("", "logreg", {})]:
        try:
            head_grids.append(search.build_grid(name, options))
        except HeadError as error:
            raise HeadError(f"{location}{error}") from error
    return head_grids


def read_toml(file: Path) -> list[tuple[str, str, dict[str, str]]]:
    """Read (location for errors, family name, options as text) of each `[[head]]` table; raises `HeadError`."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HeadError(f"{file}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise HeadError(f"{file}: is a folder; give the TOML file in it") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HeadError(f"{file}: cannot be read as TOML ({reason}); give a file of [[head]] tables") from error
    tables = document.pop("head", None)
    if document:
        raise HeadError(f"{file}: unknown key {next(iter(document))!r}; write [[head]] tables only")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        fault = "no [[head]] tables" if tables in (None, []) else f"head is {_describe_value(tables)}, not a list of tables"
        raise HeadError(f"{file}: {fault}; write [[head]] tables, each with a name and options")
    return [_parse_table(file, number, table) for number, table in enumerate(tables, start=1)]


def _parse_table(file: Path, number: int, table: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    location = f"{file}: [[head]] {number}"
    name = table.pop("name", None)
    if not isinstance(name, str) or find_head_family(name) is None:
        fault = "missing" if name is None else f"{name!r} is not a head family"
        names = ", ".join(family.name for family in list_head_families())
        raise HeadError(f"{location}, key name: {fault}; give one of {names}")
    return (
        f"{location}: ",
        name,
        {key: _format_option(f"{location} ({name}), key {key}", value) for key, value in table.items()},
    )


def _format_option(location: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise HeadError(f"{location}: empty list; give a value or a list of values")
    for item in values:
        if not isinstance(item, bool | int | float | str) or (isinstance(item, str) and (not item or "," in item)):
            raise HeadError(f"{location}: invalid value, {_describe_value(item)}; give a number, text, or a list of these")
    return "/".join(str(item).lower() if isinstance(item, bool) else str(item) for item in values)


def _describe_value(value: Any) -> str:
    return repr(value) if isinstance(value, str) else _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")
