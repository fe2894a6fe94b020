"""Memory needed to train a network of dense layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ....cache.errors import HeadError
from ....extract import memory


def parse_widths(hidden: int | str) -> list[int]:
    """Parse the widths of hidden layers: `128` or `256x128`."""
    return [int(width) for width in str(hidden).split("x")]


def estimate_training_bytes(widths: Sequence[int], n_folds: int) -> int:
    """Estimate the bytes needed to train dense layers of these widths, inputs first, on several folds in step.

    Counts weights, two moments and slow weights, for each fold and for the active training.
    """
    weights = sum((n_inputs + 1) * n_outputs for n_inputs, n_outputs in itertools.pairwise(widths))
    return 4 * weights * 4 * (n_folds + 3)


def check_memory(location: str, widths: Sequence[int], n_folds: int) -> None:
    """Raise `HeadError` if the layers need more memory than is free; `location` is the head, for the message."""
    required, available = estimate_training_bytes(widths, n_folds), memory.get_available_bytes()
    if required > available:
        raise HeadError(
            f"{location}: training needs {required / 1e9:,.1f} GB of memory, but {available / 1e9:.1f} GB "
            f"are free ({widths[0]} input columns); use a narrower network, or fewer columns"
        )
