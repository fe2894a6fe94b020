"""What a page is made of: sections of paragraphs, charts, tables, galleries and commands, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text.

    kind: "words", or "warning" for what a reader must not pass over, or "missing" for what could not be shown and why.
    """

    text: str
    kind: str = "words"


@dataclass(frozen=True)
class Command:
    """A command line that a reader may copy."""

    line: str


@dataclass(frozen=True)
class Table:
    """Rows of cells: texts, and numbers, which are shown with `digits` digits after the point.

    caption: what it is a table of. shades: of each cell 0 to 1, or None, for a heat map. sortable: with buttons in the
    header and a filter above. folded: behind a summary that is opened to read it.
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
    """A Vega-Lite chart with the table of what it shows.

    title: what it shows, which is also what a screen reader says. spec: Vega-Lite, without `$schema`, `config` and title.
    thumbnails: pictures by the text of the datum's `image` field, which are shown as a pointer rests on a mark.
    """

    title: str
    spec: Mapping[str, Any]
    table: Table | None = None
    thumbnails: Mapping[str, bytes] | None = None


@dataclass(frozen=True)
class Picture:
    """An image with its captions. webp: its bytes, or None where the image is gone. alt: what it shows."""

    webp: bytes | None
    alt: str
    captions: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Pictures in a row that wraps."""

    title: str
    pictures: Sequence[Picture]


Part = Text | Command | Table | Chart | Gallery


@dataclass(frozen=True)
class Section:
    """A section of the page. id: its anchor."""

    id: str
    title: str
    parts: Sequence[Part]
