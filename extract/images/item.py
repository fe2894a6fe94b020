"""Listed images and rejected paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One listed image.

    Parameters
    ----------
    name : str
        The path relative to the root of the data, or a substitute such as ``x_train/00017``. It is unique in its source;
        a run stores only the name to find the image again.
    location : object
        Where the source reads the image: a file, the row of an array, a range of bytes. Only the source interprets it.
    label : str or None
        The class.
    split : str or None
        ``train``, ``val``, ``test`` or None.
    group : str or None
        Images of one group are kept in the same split and fold.
    """

    name: str
    location: Any = None
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Rejection:
    """A path that is not used, with a stable reason code and an explanation (`detail`)."""

    name: str
    reason: str
    detail: str


def describe_rejections(rejections: Sequence[Rejection], n_reasons: int = 3) -> str:
    """Return how many paths are rejected, and the first of each of the commonest reasons; "" for none.

    Examples
    --------
    >>> describe_rejections([Rejection("a.jpg", "empty", "file is empty"), Rejection("b.jpg", "empty", "file is empty")])
    '2 rejected (2 empty, such as a.jpg: file is empty)'
    """
    counts = Counter(rejection.reason for rejection in rejections)
    if not counts:
        return ""
    firsts = {rejection.reason: rejection for rejection in reversed(rejections)}
    reasons = [
        f"{count:,} {reason}, such as {firsts[reason].name}: {firsts[reason].detail}"
        for reason, count in counts.most_common(n_reasons)
    ]
    return f"{len(rejections):,} rejected ({'; '.join(reasons)})"
