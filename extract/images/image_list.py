"""A list of images and how it is to be read: the columns, and the folder that its paths are relative to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from ...cache.errors import ConfigError
from ..config import Config, format_option


@dataclass(frozen=True)
class ImageList(Config):
    """A CSV, TSV, JSON Lines or Parquet file that lists images; it can be given wherever DATA is.

    Parameters
    ----------
    path : Path or str
        The file, or a folder with metadata files.
    path_column : str, optional
        The column of paths; by default one with a usual name, such as ``path``, ``file_name`` or ``image``.
    label_column : str, optional
        The column of labels; by default one with a usual name, such as ``label`` or ``class``.
    label_columns : sequence of str
        One-hot columns, named after their classes, in place of a column of labels.
    split_column, group_column : str, optional
        The columns of splits and groups; by default those called ``split``, ``subset`` or ``set``, and ``group``.
    images : Path or str, optional
        The folder that paths are relative to; by default that of the list. A path that does not exist is looked for there by
        its last parts, so a list that was written on another machine can be used.

    Raises
    ------
    ConfigError
        For a setting that is no text, and if both kinds of label columns are given.

    Examples
    --------
    >>> ImageList("list.csv", path_column="id", label_columns=["cat", "dog"], images="photos").label_columns
    ('cat', 'dog')
    """

    path: Path | str
    _: KW_ONLY
    path_column: str | None = None
    label_column: str | None = None
    label_columns: Sequence[str] | str = ()
    split_column: str | None = None
    group_column: str | None = None
    images: Path | str | None = None

    def __post_init__(self) -> None:
        self._set_paths("path", "images")
        self._set_tuples("label_columns")
        names = [name.strip() for text in self.label_columns for name in str(text).split(",")]
        self._set("label_columns", tuple(name for name in names if name))
        for name in ("path_column", "label_column", "split_column", "group_column"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ConfigError(f"{format_option(name)} {value!r}: not the name of a column; give its name as text")
        if self.label_column is not None and self.label_columns:
            raise ConfigError("--label-column and --label-columns are both given; give one of them")
        if len(self.label_columns) == 1:
            raise ConfigError(
                f"--label-columns {self.label_columns[0]}: one column cannot tell classes apart; give one for each class, "
                "or --label-column for a column of class names"
            )

    def _get_default(self) -> ImageList:
        return ImageList(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)
