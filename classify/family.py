"""The head families, and what a user asks of one: `logreg`, `logreg,C=0.01/0.1`, `mlp,hidden=64/256`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..cache.errors import HeadError
from .heads import logreg, mlp

FAMILIES: Mapping[str, ModuleType] = {"logreg": logreg, "mlp": mlp}


@dataclass(frozen=True)
class Family:
    """A head family with the settings to try."""

    name: str
    settings: tuple[Mapping[str, Any], ...]

    @property
    def module(self) -> ModuleType:
        """The module with the family's `cross_validate` and `fit`."""
        return FAMILIES[self.name]

    @property
    def uses_keras(self) -> bool:
        """Whether training it imports Keras, which then uses every core by itself."""
        return self.name == "mlp"


def parse(text: str) -> Family:
    """The family written `NAME[,option=value…]`; raises `HeadError`."""
    name, *pairs = [part.strip() for part in text.split(",")]
    if name not in FAMILIES:
        raise HeadError(f"head {name!r}: expected one of {', '.join(FAMILIES)}")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise HeadError(f"head {text!r}: expected NAME,option=value,…, found {pair!r} without '='")
        options[key.strip()] = value.strip()
    return Family(name, tuple(FAMILIES[name].settings(options)))
