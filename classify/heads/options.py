"""What a user writes behind a head's name, as values: `a/b/c` lists of numbers or words, within bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...cache.errors import HeadError


@dataclass(frozen=True)
class NumberOption:
    """Numbers of a kind (int or float), each within `minimum` and `maximum`, themselves allowed unless `exclusive` says not.

    default: what is tried where the option is not given. allowed_words: texts that are allowed as well.
    """

    default: tuple[Any, ...]
    kind: type = float
    minimum: float = 0.0
    maximum: float = float("inf")
    exclusive: bool = False
    allowed_words: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """The value that a text says; raises `ValueError`."""
        if text in self.allowed_words:
            return text
        number = self.kind(text)
        is_inside = self.minimum < number < self.maximum if self.exclusive else self.minimum <= number <= self.maximum
        if not is_inside or number in (float("inf"), float("-inf")):
            raise ValueError(text)
        return number

    def __str__(self) -> str:
        if self.maximum < float("inf"):
            bounds = f"between {self.minimum:g} and {self.maximum:g}{', both excluded' if self.exclusive else ''}"
        else:
            bounds = f"{'above' if self.exclusive else 'of at least'} {self.minimum:g}"
        kind = "whole numbers" if self.kind is int else "numbers"
        return f"{' or '.join([f'{kind} {bounds}', *self.allowed_words])}, one or as a/b/c"


@dataclass(frozen=True)
class ChoiceOption:
    """One or more of the words `choices`."""

    default: tuple[str, ...]
    choices: tuple[str, ...]

    def parse(self, text: str) -> str:
        """The word; raises `ValueError`."""
        if text not in self.choices:
            raise ValueError(text)
        return text

    def __str__(self) -> str:
        return f"{' or '.join(self.choices)}, one or as a/b/c"


@dataclass(frozen=True)
class ParsedOption:
    """What `parse` makes of a text; it raises `ValueError` or `KeyError` where that is not what is `expected`."""

    default: tuple[Any, ...]
    parse: Callable[[str], Any]
    expected: str

    def __str__(self) -> str:
        return f"{self.expected}, or a/b/c for several"


Option: TypeAlias = NumberOption | ChoiceOption | ParsedOption


def expand_combinations(head: str, declared: Mapping[str, Option], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the options' values, each once; raises `HeadError`.

    Values are given as one, a list, or `a/b/c`. Those of `NumberOption` and `ChoiceOption` are sorted.
    """
    if unknown := sorted(set(options) - set(declared)):
        if not declared:
            raise HeadError(f"head {head}: it takes no options; found {unknown[0]!r}")
        plural = "an option of " if len(declared) > 1 else "the option "
        raise HeadError(f"head {head}: expected {plural}{', '.join(declared)}; found {unknown[0]!r}")
    lists: list[Sequence[Any]] = []
    for name, option in declared.items():
        if name not in options:
            lists.append(option.default)
            continue
        raw_value = options[name]
        texts = [str(value) for value in raw_value] if isinstance(raw_value, list | tuple) else str(raw_value).split("/")
        try:
            values = list(dict.fromkeys(option.parse(text.strip()) for text in texts))
        except (ValueError, KeyError) as error:
            raise HeadError(f"head {head}: expected {name} as {option}; found {raw_value!r}") from error
        if not isinstance(option, ParsedOption):
            values.sort(key=lambda value: (isinstance(value, str), value))
        lists.append(values)
    return [dict(zip(declared, values, strict=True)) for values in itertools.product(*lists)]
