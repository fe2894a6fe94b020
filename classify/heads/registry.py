"""The registered head families, by name."""

from __future__ import annotations

import difflib
import re

from ...cache.errors import HeadError
from .families.centroid import NearestCentroid
from .families.head2toe import Head2Toe
from .families.knn import KNearestNeighbors
from .families.lda import LinearDiscriminantAnalysis
from .families.logreg import LogisticRegression
from .families.metric_learning import SUPCON, TRIPLET
from .families.mlp import MultilayerPerceptron
from .families.ridge import RidgeClassifier
from .families.svm import LinearSVM
from .head_family import HeadFamily

_FAMILIES: dict[str, HeadFamily] = {
    family.name: family
    for family in (
        LogisticRegression(),
        LinearSVM(),
        RidgeClassifier(),
        LinearDiscriminantAnalysis(),
        KNearestNeighbors(),
        NearestCentroid(),
        MultilayerPerceptron(),
        TRIPLET,
        SUPCON,
        Head2Toe(),
    )
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def register_head_family(family: HeadFamily) -> None:
    """Make a head family from outside the package available under its name, in this process.

    Parameters
    ----------
    family
        An instance of a subclass of `HeadFamily`. Sweeps, reports and exports then accept it like any other.

    Raises
    ------
    HeadError
        If the name is taken, or has characters other than lowercase letters, digits and underscores.

    Examples
    --------
    >>> import humeris
    >>> from humeris.classify.heads.families.ridge import RidgeClassifier
    >>> class StrongRidge(RidgeClassifier):
    ...     name = "strong_ridge"
    >>> humeris.register_head_family(StrongRidge())
    >>> humeris.SweepConfig("strong_ridge,alpha=10").head_grids[0].hyperparameter_sets
    ({'alpha': 10.0},)
    """
    if not _NAME.fullmatch(family.name):
        raise HeadError(
            f"cannot register head {family.name!r}: the name has other characters than lowercase letters, "
            "digits and underscores; rename it"
        )
    if family.name in _FAMILIES:
        raise HeadError(f"cannot register head {family.name!r}: the name is taken; give another")
    _FAMILIES[family.name] = family


def list_head_families() -> tuple[HeadFamily, ...]:
    """Return all registered families, in the order of registration."""
    return tuple(_FAMILIES.values())


def find_head_family(name: str) -> HeadFamily | None:
    """Return the family called `name`, or None: a run may hold heads of a family that is not registered here."""
    return _FAMILIES.get(name)


def get_head_family(name: str) -> HeadFamily:
    """Return the family called `name`; raises `HeadError` with the closest name."""
    if name not in _FAMILIES:
        close_matches = difflib.get_close_matches(name.lower(), _FAMILIES, n=1)
        hint = f"; did you mean {close_matches[0]}?" if close_matches else ""
        raise HeadError(f"head {name!r}: unknown head family; use one of {', '.join(_FAMILIES)}{hint}")
    return _FAMILIES[name]
