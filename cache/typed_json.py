"""Frozen dataclasses to JSON values and back; reading is strict."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from .formatting import to_printable

_T = TypeVar("_T")
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
_PARSE = "parse"  # in the metadata of a field
_MAX_FOUND_LENGTH = 60  # letters of a wrong value that an error shows


def as_text(parse: Callable[[str], Any]) -> Mapping[str, Any]:
    """The metadata of a field that is written as text, "" for None, and read by `parse`, which may raise `ValueError`."""
    return {_PARSE: parse}


def to_json(value: Any) -> Any:
    """The JSON value of a dataclass, or of what one may hold.

    A field whose default is None is left out where it is None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        members = ((field, getattr(value, field.name)) for field in fields(value))
        return {
            field.name: str(member or "") if _PARSE in field.metadata else to_json(member)
            for field, member in members
            if member is not None or not _is_optional(field)
        }
    if isinstance(value, Mapping):
        return {name: to_json(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(member) for member in value]
    return value


def from_json(kind: type[_T], value: Any, where: str = "") -> _T:
    """The value of type `kind` that `to_json` wrote.

    Parameters
    ----------
    kind : type
        A dataclass whose fields are text, numbers, booleans, None, tuples, mappings from text, dataclasses, `Any`, or
        anything that is written `as_text`.
    value : object
        What `json.loads` gave.
    where : str
        The path to `value`, for errors: `result.test`.

    Returns
    -------
    object
        An instance of `kind`. Fields that are not arguments of its constructor are computed anew.

    Raises
    ------
    ValueError
        Where a key is missing or unknown, or a value has another type; in one line that says where, what was expected and
        what was found.
    """
    return typing.cast(_T, _parse(kind, value, where))


def _parse(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        (kind,) = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _parse(kind, value, where)
    if origin is tuple:
        return _parse_tuple(typing.get_args(hint), value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _mismatch(where, "an object", value)
        member_hint = typing.get_args(hint)[1]
        return {name: _parse(member_hint, member, _join(where, to_printable(name))) for name, member in value.items()}
    if is_dataclass(hint):
        return _parse_dataclass(hint, value, where)
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise _mismatch(where, "a number", value) from None
    if type(value) is not hint:
        raise _mismatch(where, _NAMES[hint], value)
    return value


def _parse_tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _mismatch(where, "a list", value)
    if hints[-1] is Ellipsis:
        if hints[0] in (str, int, float) and set(map(type, value)) <= {hints[0]}:  # large tables are read at once
            return tuple(value)
        hints = (hints[0],) * len(value)
    elif len(hints) != len(value):
        raise _mismatch(where, f"{len(hints)} values", value)
    return tuple(
        _parse(hint, member, f"{where}[{index}]") for index, (hint, member) in enumerate(zip(hints, value, strict=True))
    )


def _parse_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(where, "an object", value)
    known_fields, hints = _list_fields(kind)
    if unknown := value.keys() - hints.keys():
        raise ValueError(
            f"{where or 'the top level'}: expected the keys {', '.join(hints)}, found also {min(unknown)!r:.60}"
        )
    arguments: dict[str, Any] = {}
    for field in known_fields:
        if field.name in value:
            arguments |= {field.name: _parse_field(field, hints[field.name], value[field.name], _join(where, field.name))}
        elif not _is_optional(field):
            raise ValueError(f"{_join(where, field.name)}: expected {_describe(hints[field.name])}, found nothing")
    return kind(**{field.name: arguments[field.name] for field in known_fields if field.init and field.name in arguments})


def _parse_field(field: Field[Any], hint: Any, value: Any, where: str) -> Any:
    if _PARSE not in field.metadata:
        return _parse(hint, value, where)
    text = _parse(str, value, where)
    try:
        return field.metadata[_PARSE](text) if text else None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


@cache
def _list_fields(kind: Any) -> tuple[tuple[Field[Any], ...], dict[str, Any]]:
    """The fields of a dataclass, and their types by name."""
    hints = typing.get_type_hints(kind)
    return fields(kind), {field.name: hints[field.name] for field in fields(kind)}


def _is_optional(field: Field[Any]) -> bool:
    return field.default is None and _PARSE not in field.metadata


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    return "a list" if origin is tuple else _NAMES.get(hint, "an object")


def _mismatch(where: str, expected: str, value: Any) -> ValueError:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, or lists in lists in lists
        text = "something too long to show"
    shown = text if len(text) <= _MAX_FOUND_LENGTH else f"{text[:_MAX_FOUND_LENGTH]} …"
    return ValueError(f"{where or 'the top level'}: expected {expected}, found {shown}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
