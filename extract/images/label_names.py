"""Class names from labels in the usual forms: class numbers, names or one-hot rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...cache.errors import DataError


def to_label_names(labels: np.ndarray, classes: Sequence[str] | None, context: str) -> list[str]:
    """Return the class name of each label.

    Parameters
    ----------
    labels : np.ndarray
        Class numbers (n,) or (n, 1), class names (n,), or one-hot rows (n, k).
    classes : sequence of str, optional
        The names of the class numbers; the numbers themselves by default.
    context : str
        What the labels belong to, for errors.

    Returns
    -------
    list of str
        n class names; "" for a missing label, a row that is not one-hot, and a number without a name.

    Raises
    ------
    DataError
        If the array has another form.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    dtype_kind = labels.dtype.kind
    if labels.ndim == 2 and dtype_kind in "iuf":
        is_one_hot = ((labels != 0).sum(axis=1) == 1) & (labels.max(axis=1, initial=0) == 1)
        labels, classes = (
            np.where(is_one_hot, labels.argmax(axis=1), -1),
            classes or [str(k) for k in range(labels.shape[1])],
        )
    elif labels.ndim != 1 or dtype_kind not in "iufSU":
        raise DataError(
            f"{context}: {labels.dtype} {labels.shape} is not supported; "
            "give class numbers or names (n,), or one-hot rows (n, k)"
        )
    if dtype_kind in "SU":
        return [to_text(label) for label in labels.tolist()]
    numbers, indices = np.unique(labels, return_inverse=True)
    names = [_get_class_name(number, classes, context) for number in numbers.tolist()]
    return [names[index] for index in indices.tolist()]


def parse_class_names(values: np.ndarray | None, path: Path) -> list[str] | None:
    """Return the names (k,) of class numbers as text; raises `DataError`."""
    if values is None:
        return None
    if values.ndim != 1 or values.dtype.kind not in "SUiu":
        raise DataError(f"{path}: class names are {values.dtype} {values.shape}; give text (k,)")
    return [to_text(value) for value in values.tolist()]


def _get_class_name(number: float, classes: Sequence[str] | None, context: str) -> str:
    if not math.isfinite(number):
        return ""
    if number != int(number):
        raise DataError(f"{context}: {number} is not a class number; give whole numbers or names")
    if classes is None:
        return str(int(number))
    return classes[int(number)] if 0 <= number < len(classes) else ""


def to_text(value: str | bytes | float) -> str:
    """Return a label, name or number as text; "" for a missing one."""
    if isinstance(value, bytes):
        stripped = value.decode("utf-8", "surrogateescape").strip()
    else:
        stripped = str(value).strip().encode("utf-8", "backslashreplace").decode()
    return stripped
