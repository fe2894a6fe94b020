"""The columns of a list of images: which holds the paths, the labels, the splits and the groups."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import DataError
from ...cache.formatting import format_names
from .image_list import ImageList
from .split_names import to_nfc

_USUAL_NAMES = {
    "path": (
        "path", "file_name", "filename", "file", "image", "filepath", "file_path", "image_path", "image_name", "image_file",
        "image_id", "img", "img_path", "img_name",
    ),
    "label": ("label", "class", "target", "category", "class_name", "label_name", "classname", "labels"),
    "split": ("split", "subset", "set"),
    "group": ("group",),
}  # fmt: skip
TRUE, FALSE = {"1", "1.0", "true", "yes", "x"}, {"0", "0.0", "", "false", "no"}
_N_SAMPLED = 50  # rows that tell whether columns are one-hot


class MissingColumn(DataError):
    """A list has no column of paths or labels; `column` is ``path`` or ``label``."""

    def __init__(self, column: str, text: str) -> None:
        super().__init__(text)
        self.column = column


@dataclass(frozen=True)
class ListColumns:
    """The index of each column, None for one that is not there; `one_hot` maps the indices of one-hot columns to classes."""

    path: int | None
    label: int | None
    split: int | None
    group: int | None
    one_hot: dict[int, str]

    @property
    def keys(self) -> list[int]:
        """The columns whose cells are used, that of the paths first."""
        indices = (self.path, self.label, self.split, self.group)
        return [*(index for index in indices if index is not None), *self.one_hot]


def find_columns(image_list: ImageList, names: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> ListColumns:
    """Return the columns of a list; there are those of the paths and the labels.

    Parameters
    ----------
    image_list : ImageList
        The list, which may name columns; the others have their usual names.
    names : sequence of str
        The names of all columns.
    rows : iterable of sequence of str
        Rows, to tell in an error whether columns look like one-hot labels.

    Raises
    ------
    MissingColumn
        If there is no column of paths, or none of labels.
    DataError
        If a column that the user named is missing.
    """
    for name in (*image_list.label_columns, *_list_named(image_list)):
        _check_name(image_list, names, name)
    columns = match_columns(image_list, names)
    if columns.path is None:
        raise MissingColumn("path", f"{_explain_missing(image_list, names, 'path')}; give its name with --path-column")
    if columns.label is None and not columns.one_hot:
        candidates = [name for index, name in enumerate(names) if index != columns.path]
        remedy = "give its name with --label-column"
        if classes := _find_one_hot(names, candidates, rows):
            remedy = f"if {format_names(classes)} are one-hot labels, give --label-columns {','.join(classes)}"
        raise MissingColumn("label", f"{_explain_missing(image_list, names, 'label')}; {remedy}")
    return columns


def match_columns(image_list: ImageList, names: Sequence[str]) -> ListColumns:
    """Return the columns among `names`, such as the keys of one JSON object, which may lack any."""
    normalized = [_normalize(name) for name in names]

    def find_index(field: str, given_name: str | None) -> int | None:
        candidates = _USUAL_NAMES[field] if given_name is None else (_normalize(given_name),)
        return next((normalized.index(name) for name in candidates if name in normalized), None)

    one_hot = {
        normalized.index(_normalize(name)): name for name in image_list.label_columns if _normalize(name) in normalized
    }
    return ListColumns(
        find_index("path", image_list.path_column),
        None if image_list.label_columns else find_index("label", image_list.label_column),
        find_index("split", image_list.split_column),
        find_index("group", image_list.group_column),
        one_hot,
    )


def count_known_columns(image_list: ImageList, names: Sequence[str]) -> int:
    """Return how many columns are those that the list names, or have a usual name of a path or a label."""
    normalized = {_normalize(name) for name in names}
    n_usual = sum(not normalized.isdisjoint(_USUAL_NAMES[field]) for field in ("path", "label"))
    return n_usual + sum(_normalize(name) in normalized for name in (*image_list.label_columns, *_list_named(image_list)))


def _list_named(image_list: ImageList) -> list[str]:
    """Return the names of single columns that the user gave."""
    columns = (image_list.path_column, image_list.label_column, image_list.split_column, image_list.group_column)
    return [name for name in columns if name is not None]


def _check_name(image_list: ImageList, names: Sequence[str], name: str) -> None:
    """Raise `DataError` unless a column has the name that the user gave."""
    if _normalize(name) in map(_normalize, names):
        return
    closest = difflib.get_close_matches(name, [each.strip() for each in names], n=1, cutoff=0.6)
    raise DataError(
        f"{Path(image_list)}: no column named {name} (columns: {_format_columns(names)}); "
        + (f"did you mean {closest[0]}?" if closest else "give one of these")
    )


def _find_one_hot(names: Sequence[str], candidates: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the candidates whose cells are all 0 or 1, if there are at least two and a cell is 1."""
    sample = [row for row, _ in zip(rows, range(_N_SAMPLED), strict=False)]
    columns = {
        name: {row[index].strip().lower() for row in sample if index < len(row)}
        for index, name in enumerate(names)
        if name in candidates
    }
    one_hot = [name.strip() for name, cells in columns.items() if cells and cells <= {"0", "1", "0.0", "1.0"}]
    has_one = any(cells & {"1", "1.0"} for cells in columns.values())
    return one_hot if len(one_hot) > 1 and has_one else []


def _explain_missing(image_list: ImageList, names: Sequence[str], field: str) -> str:
    usual = _USUAL_NAMES[field]
    return f"{Path(image_list)}: no column named {', '.join(usual[:2])} or {usual[2]} (columns: {_format_columns(names)})"


def _format_columns(names: Sequence[str]) -> str:
    return ", ".join(name.strip() for name in names)[:200] or "none"


def _normalize(name: str) -> str:
    return to_nfc(name).strip().strip('"').lower().replace(" ", "_").replace("-", "_")
