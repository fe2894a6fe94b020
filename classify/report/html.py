"""The parts of a page as HTML: whatever a name holds is escaped, kept apart from the words around it, and wrapped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.formatting import safe
from .blocks import Chart, Command, Gallery, Part, Table, Text
from .charts import draw, is_half, plain

if TYPE_CHECKING:
    from jinja2 import Environment

_ROWS = 1000  # of a table
_SHADES = 20  # steps of a heat map, `.s0` to `.s20` in page.css
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Drawn:
    """A part as HTML. what: the part in words, for a page that has no room for it.

    smaller: the same without the drawing for narrow screens, on which the other one then is small, or None.
    """

    html: str
    what: str
    smaller: str | None = None

    @property
    def spare(self) -> int:
        """How many characters fewer the smaller one has; 0 where there is none."""
        return 0 if self.smaller is None else len(self.html) - len(self.smaller)


def drawn(part: Part, name: str) -> Drawn:
    """The part as HTML; name: what the ids in it begin with. Raises `ValueError` for a chart that cannot be drawn."""
    parts: Any = environment().get_template("parts.html").module
    if isinstance(part, Text):
        return Drawn(parts.text(part), part.text)
    if isinstance(part, Command):
        return Drawn(parts.command(part.line), "a command")
    if isinstance(part, Gallery):
        return Drawn(parts.gallery(part), f"the pictures of {part.title!r}")
    if isinstance(part, Table):
        return Drawn(_table(parts, part), f"the table of {part.caption!r}")
    return _chart(parts, part, name)


def page(blocks: Sequence[Any], title: str, about: str, missing: Sequence[str], version: str) -> bytes:
    """The page of `blocks` in UTF-8, with its style and its script inside and a policy that allows nothing else.

    title, about: what it is of, and a line below that; missing: what it lacks, a line each.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    template = environment().get_template("page.html")
    return template.render(
        blocks=blocks, title=title, about=about, missing=missing, version=version, style=style, script=script, hash=_hash
    ).encode()


@cache
def environment() -> Environment:
    """The templates of this folder, in which everything is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {"words": safe, "webp": _webp}
    return found


def _chart(parts: Any, chart: Chart, name: str) -> Drawn:
    table = "" if chart.table is None else _table(parts, chart.table, inside=True)
    thumbnails = {plain(key): _webp(picture) for key, picture in (chart.thumbnails or {}).items()}
    held = json.dumps(thumbnails).replace("<", "\\u003c") if thumbnails else ""
    drawing = draw(chart, name)
    whole, smaller = (
        str(parts.chart(chart, each, table, held, is_half(chart))) for each in (drawing, replace(drawing, narrow=None))
    )
    return Drawn(whole, f"the chart {chart.title!r}", None if drawing.narrow is None else smaller)


def _table(parts: Any, table: Table, inside: bool = False) -> str:
    cells = [[_cell(cell, table.digits) for cell in row] for row in table.rows[:_ROWS]]
    shades = [[None if shade is None else _step(shade) for shade in row] for row in table.shades or ()]
    numeric = [
        all(row[column]["number"] is not None or row[column]["text"] == "–" for row in cells)
        for column in range(len(table.header))
    ]
    return str(parts.table(table, cells, shades, numeric, max(0, len(table.rows) - _ROWS), inside))


def _cell(value: Any, digits: int) -> dict[str, Any]:
    """What a cell shows, and the number that it is sorted by, if it is one."""
    value = plain(value)
    if isinstance(value, bool):
        return {"text": "yes" if value else "no", "number": None}
    if isinstance(value, float):
        return {"text": f"{value:.{digits}f}", "number": f"{value:.6g}"}
    if isinstance(value, int):
        return {"text": str(value), "number": value}
    return {"text": "–" if value is None else str(value), "number": None}


def _step(shade: float) -> int:
    return int(np.clip(round(shade * _SHADES), 0, _SHADES))


def _webp(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _hash(text: str) -> str:
    """What a page's policy names a style or a script by, which it then allows and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
