"""What a user writes behind a head's name, as values: `a/b/c` lists of numbers or words, within bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...cache.errors import HeadError


@dataclass(frozen=True)
class Numbers:
    """Numbers of a kind (int or float), each within `least` and `most`, themselves allowed unless `open` says not.

    default: what is tried where the option is not given. words: texts that are allowed as well.
    """

    default: tuple[Any, ...]
    kind: type = float
    least: float = 0.0
    most: float = float("inf")
    open: bool = False
    words: tuple[str, ...] = ()

    def value(self, text: str) -> Any:
        """The value that a text says; raises `ValueError`."""
        if text in self.words:
            return text
        found = self.kind(text)
        inside = self.least < found < self.most if self.open else self.least <= found <= self.most
        if not inside or found in (float("inf"), float("-inf")):
            raise ValueError(text)
        return found

    def __str__(self) -> str:
        if self.most < float("inf"):
            bounds = f"between {self.least:g} and {self.most:g}{', both excluded' if self.open else ''}"
        else:
            bounds = f"{'above' if self.open else 'of at least'} {self.least:g}"
        kind = "whole numbers" if self.kind is int else "numbers"
        return f"{' or '.join([f'{kind} {bounds}', *self.words])}, one or as a/b/c"


@dataclass(frozen=True)
class Words:
    """One or more of the words `allowed`."""

    default: tuple[str, ...]
    allowed: tuple[str, ...]

    def value(self, text: str) -> str:
        """The word; raises `ValueError`."""
        if text not in self.allowed:
            raise ValueError(text)
        return text

    def __str__(self) -> str:
        return f"{' or '.join(self.allowed)}, one or as a/b/c"


@dataclass(frozen=True)
class Parsed:
    """What `value` makes of a text; it raises `ValueError` or `KeyError` where that is not what is `expected`."""

    default: tuple[Any, ...]
    value: Callable[[str], Any]
    expected: str

    def __str__(self) -> str:
        return f"{self.expected}, or a/b/c for several"


Option: TypeAlias = Numbers | Words | Parsed


def combinations(head: str, known: Mapping[str, Option], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the options' values, each once; raises `HeadError`.

    Values are given as one, a list, or `a/b/c`. Those of `Numbers` and `Words` are sorted.
    """
    if unknown := sorted(set(options) - set(known)):
        plural = "an option of " if len(known) > 1 else "the option "
        raise HeadError(f"head {head}: expected {plural}{', '.join(known)}; found {unknown[0]!r}")
    lists: list[Sequence[Any]] = []
    for name, option in known.items():
        if name not in options:
            lists.append(option.default)
            continue
        given = options[name]
        texts = [str(value) for value in given] if isinstance(given, list | tuple) else str(given).split("/")
        try:
            values = list(dict.fromkeys(option.value(text.strip()) for text in texts))
        except (ValueError, KeyError) as error:
            raise HeadError(f"head {head}: expected {name} as {option}; found {given!r}") from error
        if not isinstance(option, Parsed):
            values.sort(key=lambda value: (isinstance(value, str), value))
        lists.append(values)
    return [dict(zip(known, values, strict=True)) for values in itertools.product(*lists)]
