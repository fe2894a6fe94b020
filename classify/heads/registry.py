"""The head families, and what a user asks of one: `logreg`, `logreg,C=0.01/0.1`, `mlp,hidden=64/256`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ...cache.errors import HeadError
from .families import centroid, head2toe, knn, lda, logreg, mlp, ridge, supcon, svm, triplet

FAMILIES: Mapping[str, ModuleType] = {
    "logreg": logreg,
    "svm": svm,
    "ridge": ridge,
    "lda": lda,
    "knn": knn,
    "centroid": centroid,
    "mlp": mlp,
    "triplet": triplet,
    "supcon": supcon,
    "head2toe": head2toe,
}
_KERAS_FAMILIES = {"mlp", "triplet", "supcon"}


@dataclass(frozen=True)
class HeadFamily:
    """A head family with the settings to try.

    rungs: how many of the settings, best first, are tried for how many epochs, one after another; () tries all as they are.
    """

    name: str
    hyperparameter_sets: tuple[Mapping[str, Any], ...]
    halving_rounds: tuple[tuple[int, int], ...] = ()

    @property
    def module(self) -> ModuleType:
        """The module with the family's `cross_validate` and `fit`."""
        return FAMILIES[self.name]

    @property
    def uses_keras(self) -> bool:
        """Whether training it imports Keras, which then uses every core by itself."""
        return self.name in _KERAS_FAMILIES

    @property
    def over_all_taps(self) -> bool:
        """Whether it chooses among the columns of all taps side by side: `over_all_taps` of its module."""
        return bool(getattr(self.module, "over_all_taps", False))


def parse(text: str) -> HeadFamily:
    """The family written `NAME[,option=value…]`; raises `HeadError`."""
    name, options = parse_options(text)
    return expand_grid(name, options)


def expand_grid(name: str, options: Mapping[str, Any]) -> HeadFamily:
    """The family with every combination of its options; raises `HeadError`."""
    return HeadFamily(name, tuple(get_module(name).settings(options)))


def parse_options(text: str) -> tuple[str, dict[str, str]]:
    """The name and the options written `NAME[,option=value…]`; raises `HeadError`."""
    name, *pairs = [part.strip() for part in text.split(",")]
    get_module(name)
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key or not value:
            raise HeadError(f"head {text!r}: expected NAME,option=value,…, found {pair!r}, which is no option=value")
        if key in options:
            raise HeadError(f"head {text!r}: expected each option once, found {key} twice; write {key}=a/b for several")
        options[key] = value
    return name, options


def get_module(name: str) -> ModuleType:
    """The module of the family `name`; raises `HeadError`."""
    if name not in FAMILIES:
        close_matches = difflib.get_close_matches(name.lower(), FAMILIES, n=1)
        hint = f"; the closest is {close_matches[0]}" if close_matches else ""
        raise HeadError(f"head {name!r}: expected one of {', '.join(FAMILIES)}{hint}")
    return FAMILIES[name]
