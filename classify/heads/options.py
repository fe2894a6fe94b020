"""Options of head families and their values: numbers or words, one or several as `a/b/c`."""

from __future__ import annotations

import difflib
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
        The values tried if the option is not given.
    kind
        ``int`` or ``float``.
    minimum, maximum
        The bounds.
    exclusive
        Whether the bounds themselves are excluded.
    allowed_words
        Words allowed besides numbers.
    """

    default: tuple[Any, ...]
    kind: type = float
    minimum: float = 0.0
    maximum: float = float("inf")
    exclusive: bool = False
    allowed_words: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """Parse a value; raises `ValueError`."""
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
        kind = "a whole number" if self.kind is int else "a number"
        return f"{' or '.join([f'{kind} {bounds}', *self.allowed_words])}, or several as a/b/c"


@dataclass(frozen=True)
class ChoiceOption:
    """An option whose values are words, `choices`."""

    default: tuple[str, ...]
    choices: tuple[str, ...]

    def parse(self, text: str) -> str:
        """Parse a word; raises `ValueError`."""
        if text not in self.choices:
            raise ValueError(text)
        return text

    def __str__(self) -> str:
        return f"one of {', '.join(self.choices)}, or several as a/b/c"


@dataclass(frozen=True)
class ParsedOption:
    """An option parsed by a function, which raises `ValueError` or `KeyError`; `expected` describes what it accepts."""

    default: tuple[Any, ...]
    parse: Callable[[str], Any]
    expected: str

    def __str__(self) -> str:
        return f"{self.expected}, or several as a/b/c"


Option: TypeAlias = NumberOption | ChoiceOption | ParsedOption


def expand_combinations(head: str, declared: Mapping[str, Option], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List every combination of the options' values once.

    Parameters
    ----------
    head
        The family's name, for messages.
    declared
        The options of the family.
    options
        Option to a value, a list of values, or text such as ``"a/b/c"``. Values of `NumberOption` and `ChoiceOption` are
        sorted.

    Raises
    ------
    HeadError
        If there is no such option, or a value is invalid.
    """
    if unknown := sorted(set(options) - set(declared)):
        raise HeadError(_describe_unknown(head, unknown[0], list(declared)))
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
            raise HeadError(f"head {head}: invalid {name} {raw_value!r}; give {option}") from error
        if not isinstance(option, ParsedOption):
            values.sort(key=lambda value: (isinstance(value, str), value))
        lists.append(values)
    return [dict(zip(declared, values, strict=True)) for values in itertools.product(*lists)]


def _describe_unknown(head: str, name: str, declared: Sequence[str]) -> str:
    if not declared:
        return f"head {head} has no option {name!r}, nor any other; leave it out"
    by_lowercase = {option.lower(): option for option in declared}
    close_matches = difflib.get_close_matches(name.lower(), by_lowercase, 1)
    remedy = f"did you mean {by_lowercase[close_matches[0]]}?" if close_matches else "use one of these"
    return f"head {head} has no option {name!r} (options: {', '.join(declared)}); {remedy}"
