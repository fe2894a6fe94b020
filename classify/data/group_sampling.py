"""Stratified samples and folds that keep groups whole and are the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def encode_groups(groups: Sequence[str]) -> np.ndarray:
    """Return group numbers (n,), equal within a group; an image without a group ("") is its own group."""
    names = [(name, 0) if name else ("", index) for index, name in enumerate(groups)]
    ids = {name: group_id for group_id, name in enumerate(dict.fromkeys(names))}
    return np.array([ids[name] for name in names], np.intp)


def stratify(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows (n,) in an order in which every prefix is stratified by class and groups are contiguous.

    labels, groups (n,): numbers. A group takes the class of its first image. The first group of every class comes before
    the second group of any.
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
        ) / class_sizes.sum()  # fraction of the class that comes before
    order = np.lexsort((shuffled_groups.argsort(), positions))
    rank = np.empty(len(first_rows), np.intp)
    rank[order] = np.arange(len(first_rows))
    return np.argsort(rank[group_ids], kind="stable")


def assign_folds(labels: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold number (n,), below `n_folds`, of each row: sizes and classes as balanced as whole groups allow."""
    order = stratify(labels, groups, seed)
    ordered_labels = labels[order]
    fold_ids, fold_of_group = np.zeros(len(labels), np.intp), np.full(int(groups.max(initial=0)) + 1, -1)
    last_folds: dict[int, int] = {}
    for row, label in zip(order.tolist(), ordered_labels.tolist(), strict=True):
        if fold_of_group[groups[row]] < 0:
            last_folds[label] = last_folds.get(label, label) + 1  # each class starts at a different fold
            fold_of_group[groups[row]] = last_folds[label] % n_folds
        fold_ids[row] = fold_of_group[groups[row]]
    return fold_ids


def sample(labels: np.ndarray, groups: np.ndarray, max_rows: int, seed: int) -> np.ndarray:
    """Return about `max_rows` rows, ascending, stratified by class, with groups kept whole."""
    if len(labels) <= max_rows:
        return np.arange(len(labels))
    return np.sort(take_prefix(stratify(labels, groups, seed), groups, max_rows))


def take_prefix(order: np.ndarray, groups: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the prefix of `order` closest to `n_rows` rows that ends at a group boundary; at least one group."""
    ends = np.nonzero(np.append(np.diff(groups[order]) != 0, True))[0] + 1
    return order[: ends[np.abs(ends - n_rows).argmin()]]
