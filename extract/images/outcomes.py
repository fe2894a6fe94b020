"""The outcome of each listed image: used, a duplicate of another, or rejected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np

from ...cache.shard import to_keys
from .dataset import Dataset
from .file_index import FileRecords
from .images import Duplicate, Image, Images
from .item import Item, Rejection

_SPLIT_PRIORITY = {"test": 0, "val": 1, "train": 2, None: 3}


def resolve_outcomes(dataset: Dataset, records: FileRecords) -> Images:
    """Decide which listed images are used, duplicates or rejected.

    Of images with the same bytes, one is used: that in the test split, else in val, else in train, else the first listed.
    Images with the same bytes and different labels are all rejected. If a group is in several splits, only its members in
    one of them are used, chosen in the same order.

    Parameters
    ----------
    dataset : Dataset
        n listed images.
    records : FileRecords
        The record of each of them.

    Returns
    -------
    Images
        Every listed path is used, a duplicate or rejected.
    """
    # Most digests occur once; only the others are grouped by digest in Python.
    items, digests = dataset.items, records.digests.tobytes()
    rejections = list(dataset.rejections)
    rejections += [
        Rejection(items[number].name, *reason_and_detail) for number, reason_and_detail in sorted(records.rejections.items())
    ]
    usable = np.setdiff1d(np.arange(len(items)), list(records.rejections))
    _, digest_ids, counts = np.unique(to_keys([digests])[usable], return_inverse=True, return_counts=True)
    is_unique = counts[digest_ids] == 1
    images = [
        Image(items[number], digests[32 * number : 32 * number + 32], records.formats[number])
        for number in usable[is_unique].tolist()
    ]
    copies: dict[bytes, list[int]] = defaultdict(list)
    for number in usable[~is_unique].tolist():
        copies[digests[32 * number : 32 * number + 32]].append(number)
    groups = _merge_groups([items[number] for number in numbers] for numbers in copies.values())
    if groups:
        images = [_assign_group(image, groups.get(image.item.group or "")) for image in images]
    duplicates = []
    for digest, numbers in copies.items():
        identical_items = [items[number] for number in numbers]
        if len({item.label for item in identical_items}) > 1:
            names = ", ".join(item.name for item in identical_items[:3])
            rejections.extend(
                Rejection(item.name, "conflicting_labels", f"same bytes, different labels: {names}")
                for item in identical_items
            )
            continue
        original = min(identical_items, key=lambda item: _SPLIT_PRIORITY[item.split])
        group = next((groups[item.group] for item in identical_items if item.group is not None), None)
        images.append(_assign_group(Image(original, digest, records.formats[numbers[0]]), group))
        duplicates += [
            Duplicate(item.name, original.name, item.split != original.split)
            for item in identical_items
            if item is not original
        ]
    used, group_rejections = _keep_groups_in_one_split(sorted(images, key=attrgetter("item.name")))
    return Images(dataset, tuple(used), tuple(duplicates), tuple(rejections + group_rejections))


def _assign_group(image: Image, group: str | None) -> Image:
    """Return the image as a member of `group`; unchanged if that is None."""
    return image if group in {None, image.item.group} else replace(image, item=replace(image.item, group=group))


def _merge_groups(copies: Iterable[Sequence[Item]]) -> dict[str, str]:
    """Return group -> merged group: groups that share an image are merged, although only one copy of it is used."""
    parent: dict[str, str] = {}

    def find_root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    for items in copies:
        roots = sorted({find_root(item.group) for item in items if item.group is not None})
        parent.update(dict.fromkeys(roots[1:], roots[0]) if roots else {})
    return {group: find_root(group) for group in list(parent)}


def _keep_groups_in_one_split(images: list[Image]) -> tuple[list[Image], list[Rejection]]:
    """Reject the members of each group that are outside its split, as they would leak into the evaluation."""
    if all(image.item.group is None for image in images):
        return images, []
    splits: dict[str, str | None] = {}
    for image in images:
        group, split = image.item.group, image.item.split
        if group is not None:
            splits[group] = min(splits.get(group, split), split, key=_SPLIT_PRIORITY.__getitem__)
    used, rejections = [], []
    for image in images:
        group = image.item.group
        if group is None or splits[group] == image.item.split:
            used.append(image)
        else:
            detail = f"group {group} is also in the {splits[group]} split"
            rejections.append(Rejection(image.name, "group_straddles_splits", detail))
    return used, rejections
