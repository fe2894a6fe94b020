"""Labels of a list that are no single class of a few: numbers to regress on, and combinations of classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ...cache.errors import DataError
from ...cache.formatting import format_names

_MAX_NUMERIC_CLASSES, _MIN_ROWS = 20, 8
_SEPARATORS = ("|", ";", ",", " ")


def check_labels(labels: Sequence[str], context: str) -> list[str]:
    """Return what in the labels may have been meant otherwise.

    Parameters
    ----------
    labels : sequence of str
        The label of each image.
    context : str
        The list, for the messages.

    Returns
    -------
    list of str
        A line for each doubt: combinations of classes, many different whole numbers, a class called nan.

    Raises
    ------
    DataError
        If the labels are decimal numbers, most of them different, or are lists.
    """
    counts = Counter(labels)
    numbers = _parse_numbers(counts)
    are_mostly_different = len(labels) >= _MIN_ROWS and len(counts) > len(labels) / 2
    if numbers is not None and (len(counts) > _MAX_NUMERIC_CLASSES or are_mostly_different):
        if any(not number.is_integer() for number in numbers):
            raise DataError(
                f"{context}: labels are {len(counts):,} different decimal numbers, such as {next(iter(counts))}: regression "
                "targets are not supported; give classes, such as ranges of the numbers"
            )
        if len(counts) > _MAX_NUMERIC_CLASSES and len(counts) > len(labels) / 10:
            return [f"labels are {len(counts):,} different whole numbers, each used as a class of its own"]
    if lists := [label for label in counts if label.startswith("[") and label.endswith("]") and "," in label]:
        raise DataError(
            f"{context}: labels are lists, such as {lists[0][:80]}: multi-label targets are not supported; give one label "
            "per image"
        )
    doubts = []
    if combinations := _find_combinations(counts):
        doubts.append(
            f"{len(combinations)} labels combine others, such as {combinations[0]!r}: each is used as a class of its own "
            "(multi-label targets are not supported)"
        )
    if missing := [label for label in counts if label.lower() in {"nan", "<na>", "null", "none"}]:
        doubts.append(f"{format_names(missing)} used as a class; leave the cell empty where the label is unknown")
    return doubts


def _parse_numbers(counts: Mapping[str, int]) -> list[float] | None:
    """Return the labels as numbers; None if one is not a finite number."""
    try:
        numbers = [float(label) for label in counts]
    except ValueError:
        return None
    return numbers if all(math.isfinite(number) for number in numbers) else None


def _find_combinations(counts: Mapping[str, int]) -> list[str]:
    """Return the labels that are several others with a separator between."""
    for separator in _SEPARATORS:
        combinations = [
            label
            for label in counts
            if separator in label.strip() and all(part.strip() in counts for part in label.split(separator))
        ]
        if combinations:
            return combinations
    return []
