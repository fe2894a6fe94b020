"""Rendering of a page and its parts as HTML: names are escaped, isolated in bidirectional text, and wrapped."""

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

from ...cache.formatting import to_printable
from .blocks import Chart, Command, Gallery, Part, Table, Text
from .charts import draw, is_half_width, to_plain

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_ROWS = 1000  # rows of a table
_N_SHADES = 20  # steps of a heat map, `.s0` to `.s20` in page.css
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class RenderedPart:
    """A part as HTML.

    Parameters
    ----------
    html : str
    summary : str
        The name of the part, for a page that has to omit it.
    compact_html : str, optional
        The same without the drawing for narrow screens, if there is one.
    """

    html: str
    summary: str
    compact_html: str | None = None

    @property
    def savings(self) -> int:
        """The number of characters that `compact_html` saves; 0 without one."""
        return 0 if self.compact_html is None else len(self.html) - len(self.compact_html)


def render_part(part: Part, id_prefix: str) -> RenderedPart:
    """Render a part, with ids that begin with `id_prefix`; raise `ValueError` for a chart that cannot be drawn."""
    macros: Any = get_environment().get_template("parts.html").module
    if isinstance(part, Text):
        return RenderedPart(macros.text(part), part.text)
    if isinstance(part, Command):
        return RenderedPart(macros.command(part.line), "command")
    if isinstance(part, Gallery):
        return RenderedPart(macros.gallery(part), f"gallery {part.title!r}")
    if isinstance(part, Table):
        return RenderedPart(_render_table(macros, part), f"table {part.caption!r}")
    return _render_chart(macros, part, id_prefix)


def render_page(blocks: Sequence[Any], title: str, subtitle: str, omissions: Sequence[str], version: str) -> bytes:
    """Render the page in UTF-8, with its style and script inline and a content security policy that allows only these.

    Parameters
    ----------
    blocks : sequence
        Sections, or runs with sections.
    title, subtitle : str
        The heading, and the line below it.
    omissions : sequence of str
        A line for each part that is missing.
    version : str
        Of humeris.
    """
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    template = get_environment().get_template("page.html")
    return template.render(
        blocks=blocks,
        title=title,
        subtitle=subtitle,
        omissions=omissions,
        version=version,
        style=style,
        script=script,
        hash=_format_csp_hash,
    ).encode()


@cache
def get_environment() -> Environment:
    """Return the Jinja environment of the templates in this folder, with autoescape on."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja_environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja_environment.filters |= {"printable": to_printable, "webp": _to_data_url}
    return jinja_environment


def _render_chart(macros: Any, chart: Chart, id_prefix: str) -> RenderedPart:
    table = "" if chart.table is None else _render_table(macros, chart.table, is_nested=True)
    thumbnails = {to_plain(key): _to_data_url(picture) for key, picture in (chart.thumbnails or {}).items()}
    thumbnails_json = json.dumps(thumbnails).replace("<", "\\u003c") if thumbnails else ""
    drawing = draw(chart, id_prefix)
    full_html, compact_html = (
        str(macros.chart(chart, variant, table, thumbnails_json, is_half_width(chart)))
        for variant in (drawing, replace(drawing, narrow=None))
    )
    return RenderedPart(full_html, f"chart {chart.title!r}", None if drawing.narrow is None else compact_html)


def _render_table(macros: Any, table: Table, is_nested: bool = False) -> str:
    cells = [[_format_cell(cell, table.digits) for cell in row] for row in table.rows[:_MAX_ROWS]]
    shades = [[None if shade is None else _to_shade_step(shade) for shade in row] for row in table.shades or ()]
    numeric = [
        all(row[column]["number"] is not None or row[column]["text"] == "–" for row in cells)
        for column in range(len(table.header))
    ]
    return str(macros.table(table, cells, shades, numeric, max(0, len(table.rows) - _MAX_ROWS), is_nested))


def _format_cell(value: Any, digits: int) -> dict[str, Any]:
    """Return the text of a cell, and the number it is sorted by, if it is one."""
    value = to_plain(value)
    if isinstance(value, bool):
        return {"text": "yes" if value else "no", "number": None}
    if isinstance(value, float):
        return {"text": f"{value:.{digits}f}", "number": f"{value:.6g}"}
    if isinstance(value, int):
        return {"text": str(value), "number": value}
    return {"text": "–" if value is None else str(value), "number": None}


def _to_shade_step(shade: float) -> int:
    return int(np.clip(round(shade * _N_SHADES), 0, _N_SHADES))


def _to_data_url(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _format_csp_hash(text: str) -> str:
    """Return the source expression that allows an inline style or script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
