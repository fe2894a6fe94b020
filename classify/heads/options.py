"""The options of head families, and the values that a user may give them: numbers or words, one or `a/b/c`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...cache.errors import HeadError


@dataclass(frozen=True)
class NumberOption:
    """An option whose values are numbers.

    Parameters
    ----------
    default
        The values that are tried if the option is not given.
    kind
        ``int`` or ``float``.
    minimum, maximum
        The bounds.
    exclusive
        Whether the bounds themselves are not allowed.
    allowed_words
        Texts that are allowed besides numbers.
    """

    default: tuple[Any, ...]
    kind: type = float
    minimum: float = 0.0
    maximum: float = float("inf")
    exclusive: bool = False
    allowed_words: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """Read a value; raises `ValueError`."""
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
    """An option whose values are some words, `choices`."""

    default: tuple[str, ...]
    choices: tuple[str, ...]

    def parse(self, text: str) -> str:
        """Read a word; raises `ValueError`."""
        if text not in self.choices:
            raise ValueError(text)
        return text

    def __str__(self) -> str:
        return f"{' or '.join(self.choices)}, one or as a/b/c"


@dataclass(frozen=True)
class ParsedOption:
    """An option read by a function, which raises `ValueError` or `KeyError`; `expected` says in words what it accepts."""

    default: tuple[Any, ...]
    parse: Callable[[str], Any]
    expected: str

    def __str__(self) -> str:
        return f"{self.expected}, or a/b/c for several"


Option: TypeAlias = NumberOption | ChoiceOption | ParsedOption


def expand_combinations(head: str, declared: Mapping[str, Option], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List every combination of the options' values once.

    Parameters
    ----------
    head
        The family's name, for messages.
    declared
        The options there are.
    options
        Option to a value, a list of values, or text such as ``"a/b/c"``. Values of `NumberOption` and `ChoiceOption` are
        sorted.

    Raises
    ------
    HeadError
        If there is no such option, or a value is not allowed.
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
