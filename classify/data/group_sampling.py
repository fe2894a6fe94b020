"""Which of the images that were learnt from a report looks at: by class, groups whole, the same ones each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def encode_groups(groups: Sequence[str]) -> np.ndarray:
    """A number (n,) for each image, the same for those of one group; an image without one ("") stands for itself."""
    names = [(name, 0) if name else ("", index) for index, name in enumerate(groups)]
    ids = {name: group_id for group_id, name in enumerate(dict.fromkeys(names))}
    return np.array([ids[name] for name in names], np.intp)


def stratify(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """The rows (n,) in an order of which each beginning holds the classes as the whole does, groups one after the other.

    labels, groups (n,): numbers. A group counts as of the class of its first image. Of each class one group comes before
    the second of any.
    """
    _, first_rows, group_ids, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    shuffled_groups = rng.permutation(len(first_rows))
    group_labels = labels[first_rows]
    positions = np.empty(len(first_rows))
    for label in np.unique(group_labels).tolist():
        class_groups = shuffled_groups[group_labels[shuffled_groups] == label]
        class_sizes = sizes[class_groups].astype(np.float64)
        positions[class_groups] = (
            np.cumsum(class_sizes) - class_sizes
        ) / class_sizes.sum()  # the share of the class that comes before
    order = np.lexsort((shuffled_groups.argsort(), positions))
    rank = np.empty(len(first_rows), np.intp)
    rank[order] = np.arange(len(first_rows))
    return np.argsort(rank[group_ids], kind="stable")


def assign_folds(labels: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """The number (n,) of the part, below `n_folds`, that each row is in: of as equal size and classes as groups allow."""
    order = stratify(labels, groups, seed)
    ordered_labels = labels[order]
    fold_ids, fold_of_group = np.zeros(len(labels), np.intp), np.full(int(groups.max(initial=0)) + 1, -1)
    last_folds: dict[int, int] = {}
    for row, label in zip(order.tolist(), ordered_labels.tolist(), strict=True):
        if fold_of_group[groups[row]] < 0:
            last_folds[label] = last_folds.get(label, label) + 1  # classes begin with different parts
            fold_of_group[groups[row]] = last_folds[label] % n_folds
        fold_ids[row] = fold_of_group[groups[row]]
    return fold_ids


def sample(labels: np.ndarray, groups: np.ndarray, max_rows: int, seed: int) -> np.ndarray:
    """At most `max_rows` rows (about), ascending, in which the classes are as in all of them and groups are whole."""
    if len(labels) <= max_rows:
        return np.arange(len(labels))
    return np.sort(take_prefix(stratify(labels, groups, seed), groups, max_rows))


def take_prefix(order: np.ndarray, groups: np.ndarray, n_rows: int) -> np.ndarray:
    """The first rows of `order`, as many as come nearest to `n_rows` without a part of a group, and one group at least."""
    ends = np.nonzero(np.append(np.diff(groups[order]) != 0, True))[0] + 1
    return order[: ends[np.abs(ends - n_rows).argmin()]]
