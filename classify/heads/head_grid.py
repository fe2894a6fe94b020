"""A head family with the hyperparameters to try: `logreg`, `logreg,C=0.01/0.1`, `mlp,hidden=64/256`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...cache.errors import HeadError
from .head_family import HeadFamily
from .registry import get_head_family


@dataclass(frozen=True)
class HeadGrid:
    """A head family with the hyperparameters to try.

    Parameters
    ----------
    family
        The head family.
    hyperparameter_sets
        Sets of hyperparameters from ``HeadFamily.expand_grid``.
    halving_rounds
        For successive halving: (number of sets, epochs) of each round; the best sets of a round advance to the next.
        Empty to try all sets as they are.
    """

    family: HeadFamily
    hyperparameter_sets: tuple[Mapping[str, Any], ...]
    halving_rounds: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> HeadGrid:
        """Read `NAME[,option=value…]`, with several values as `a/b/c`; raises `HeadError`.

        Examples
        --------
        >>> HeadGrid.parse("logreg,C=0.1/1").hyperparameter_sets
        ({'C': 0.1}, {'C': 1.0})
        """
        name, options = parse_options(text)
        return cls.from_options(name, options)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> HeadGrid:
        """Return every combination of the options of the family called `name`; raises `HeadError`."""
        family = get_head_family(name)
        return cls(family, tuple(family.expand_grid(options)))


def parse_options(text: str) -> tuple[str, dict[str, str]]:
    """Split `NAME[,option=value…]` into the family's name and its options as text; raises `HeadError`."""
    name, *pairs = [part.strip() for part in text.split(",")]
    get_head_family(name)
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key or not value:
            raise HeadError(f"head {text!r}: {pair!r} is not option=value; write NAME,option=value,…")
        if key in options:
            raise HeadError(f"head {text!r}: {key} is given twice; write {key}=a/b for several values")
        options[key] = value
    return name, options
