"""The registered kinds of labels, in the order in which they are tried on a data set."""

from __future__ import annotations

from collections.abc import Sequence

from ...cache.errors import DataError
from .single_label import SingleLabel
from .target import Target

_TARGETS: list[type[Target]] = [SingleLabel]


def register_target(target_class: type[Target]) -> type[Target]:
    """Register a kind of labels from outside the package, in this process; it is tried before those of the package.

    Parameters
    ----------
    target_class : type of Target
        The class.

    Returns
    -------
    type of Target
        The class, so that this can be used as a decorator.

    Raises
    ------
    ValueError
        If another class has its name.

    Examples
    --------
    >>> import humeris
    >>> from humeris.classify.evaluate.single_label import SingleLabel
    >>> @humeris.register_target
    ... class Grade(SingleLabel):
    ...     name = "grade"
    ...
    ...     @classmethod
    ...     def matches(cls, labels):
    ...         return set(labels) <= set("ABCDEF")
    >>> detect_target(["B", "A", "B"]).class_names
    ('A', 'B')
    """
    if any(other.name == target_class.name and other is not target_class for other in _TARGETS):
        raise ValueError(f"cannot register target {target_class.name!r}: the name is taken; give it another")
    if target_class not in _TARGETS:
        _TARGETS.insert(0, target_class)
    return target_class


def list_targets() -> tuple[type[Target], ...]:
    """Return the registered kinds of labels, in the order in which they are tried."""
    return tuple(_TARGETS)


def detect_target(labels: Sequence[str]) -> Target:
    """Return the target of a data set's labels: the first kind that matches them."""
    return next(each for each in _TARGETS if each.matches(labels)).from_labels(labels)


def restore_target(name: str, class_names: Sequence[str]) -> Target:
    """Return the target stored in a run or a model.

    Parameters
    ----------
    name : str
        `Target.name`.
    class_names : sequence of str
        Names of its outputs.

    Raises
    ------
    DataError
        If no registered kind has that name.
    """
    for target_class in _TARGETS:
        if target_class.name == name:
            return target_class(tuple(class_names))
    known_names = ", ".join(each.name for each in _TARGETS)
    raise DataError(f"target {name!r} is not known here (known: {known_names}); import the module that registers it")
