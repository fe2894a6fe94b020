"""The widths of a network of dense layers, and the memory that training it takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ....cache.errors import HeadError
from ....extract import memory


def widths_of(hidden: int | str) -> list[int]:
    """The widths of hidden layers: `128` or `256x128`."""
    return [int(width) for width in str(hidden).split("x")]


def needed(widths: Sequence[int], folds: int) -> int:
    """Bytes for dense layers from the first of `widths` to the last, trained on so many folds in step.

    Of weights, two moments and slow weights there are each fold's, and the work on them.
    """
    weights = sum((inward + 1) * outward for inward, outward in itertools.pairwise(widths))
    return 4 * weights * 4 * (folds + 3)


def fits_memory(where: str, widths: Sequence[int], folds: int) -> None:
    """Raise `HeadError` where the layers need more memory than there is."""
    bytes_, there = needed(widths, folds), memory.available()
    if bytes_ > there:
        raise HeadError(
            f"{where}: expected a network that {there / 1e9:.1f} GB of free memory can train, found one that needs "
            f"{bytes_ / 1e9:,.1f} GB on rows of {widths[0]} columns; take a narrower one, or fewer columns"
        )
