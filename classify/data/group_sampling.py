"""Which of the images that were learnt from a report looks at: by class, groups whole, the same ones each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def group_numbers(groups: Sequence[str]) -> np.ndarray:
    """A number (n,) for each image, the same for those of one group; an image without one ("") stands for itself."""
    names = [(name, 0) if name else ("", place) for place, name in enumerate(groups)]
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], np.intp)


def stratified(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """The rows (n,) in an order of which each beginning holds the classes as the whole does, groups one after the other.

    labels, groups (n,): numbers. A group counts as of the class of its first image. Of each class one group comes before
    the second of any.
    """
    _, first, of_row, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(first))
    kinds = labels[first]
    place = np.empty(len(first))
    for kind in np.unique(kinds).tolist():
        here = shuffled[kinds[shuffled] == kind]
        count = sizes[here].astype(np.float64)
        place[here] = (np.cumsum(count) - count) / count.sum()  # the share of the class that comes before
    order = np.lexsort((shuffled.argsort(), place))
    rank = np.empty(len(first), np.intp)
    rank[order] = np.arange(len(first))
    return np.argsort(rank[of_row], kind="stable")


def parts(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The number (n,) of the part, below `count`, that each row is in: of as equal size and classes as groups allow."""
    order = stratified(labels, groups, seed)
    kinds = labels[order]
    found, seen = np.zeros(len(labels), np.intp), np.full(int(groups.max(initial=0)) + 1, -1)
    dealt: dict[int, int] = {}
    for row, kind in zip(order.tolist(), kinds.tolist(), strict=True):
        if seen[groups[row]] < 0:
            dealt[kind] = dealt.get(kind, kind) + 1  # classes begin with different parts
            seen[groups[row]] = dealt[kind] % count
        found[row] = seen[groups[row]]
    return found


def sample(labels: np.ndarray, groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` rows (about), ascending, in which the classes are as in all of them and groups are whole."""
    if len(labels) <= most:
        return np.arange(len(labels))
    return np.sort(beginning(stratified(labels, groups, seed), groups, most))


def beginning(order: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """The first rows of `order`, as many as come nearest to `count` without a part of a group, and one group at least."""
    ends = np.nonzero(np.append(np.diff(groups[order]) != 0, True))[0] + 1
    return order[: ends[np.abs(ends - count).argmin()]]
