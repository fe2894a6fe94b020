"""The elements of a page as values: sections of paragraphs, charts, tables, galleries and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text.

    Parameters
    ----------
    text : str
    kind : {"plain", "warning", "missing"}
        Plain text, a caveat, or what could not be shown and why.
    """

    text: str
    kind: str = "plain"


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    line: str


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers.

    Parameters
    ----------
    caption : str
    header : sequence of str
    rows : sequence of sequences
    shades : sequence of sequences, optional
        For a heat map: of each cell a value from 0 to 1, or None.
    digits : int
        Decimals of floating-point numbers.
    sortable : bool
        With sort buttons in the header and a filter above.
    folded : bool
        Collapsed until opened.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    shades: Sequence[Sequence[float | None]] | None = None
    digits: int = 3
    sortable: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite chart with the table of its values.

    Parameters
    ----------
    title : str
        Also read by screen readers.
    spec : mapping
        Vega-Lite, without `$schema`, `config` and title.
    table : Table, optional
    thumbnails : mapping of str to bytes, optional
        WebP images by the `image` field of the datum, shown when the pointer is on a mark.
    """

    title: str
    spec: Mapping[str, Any]
    table: Table | None = None
    thumbnails: Mapping[str, bytes] | None = None


@dataclass(frozen=True)
class Picture:
    """An image with its captions. webp: encoded bytes, or None if the image is missing. alt: alternative text."""

    webp: bytes | None
    alt: str
    captions: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Images in rows."""

    title: str
    pictures: Sequence[Picture]


Part = Text | Command | Table | Chart | Gallery


@dataclass(frozen=True)
class Section:
    """A section of the page. id: its anchor."""

    id: str
    title: str
    parts: Sequence[Part]
