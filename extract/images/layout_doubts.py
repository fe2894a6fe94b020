"""What a user may have meant otherwise by the folders of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...cache.formatting import format_names
from .item import Item
from .litter import is_list
from .split_names import parse_split


def describe_doubts(data: str, items: Sequence[Item], ignored: Sequence[str], class_depth: int) -> list[str]:
    """Return what in class folders may have been meant otherwise.

    Parameters
    ----------
    data : str
        DATA as the user gave it.
    items : sequence of Item
        The images.
    ignored : sequence of str
        The paths of documents and system files.
    class_depth : int
        The number of folders in the path of an image down to its class: 1 in class folders, 2 in split folders.

    Returns
    -------
    list of str
        A line for each doubt: lists that are not read, classes that are named like splits, classes whose names differ only
        in upper and lower case, classes that contain only further folders.
    """
    notes = []
    labels = list(dict.fromkeys(item.label for item in items if item.label is not None))
    if lists := [name for name in ignored if is_list(name) and name.count("/") < class_depth]:
        notes.append(
            f"{format_names(lists)} not read: labels are the names of the folders; to use the labels of the list, give "
            f"{data}/{lists[0]}"
        )
    if split_like := [label for label in labels if parse_split(label) is not None]:
        notes.append(f"{format_names(split_like)} used as a class, although it is named like a split")
    counts = Counter(label.casefold() for label in labels)
    if twins := [label for label in labels if counts[label.casefold()] > 1]:
        notes.append(f"the classes {' and '.join(twins[:2])} differ only in upper and lower case")
    if len(labels) > 1 and all(item.split is None and item.name.count("/") > class_depth for item in items):
        inner_folders = {item.name.split("/")[class_depth] for item in items}
        if len(inner_folders) > 1:
            notes.append(
                f"the classes {format_names(labels)} contain only further folders ({format_names(sorted(inner_folders))}); "
                f"if those are the classes, give {data}/{labels[0]}"
            )
    return notes
