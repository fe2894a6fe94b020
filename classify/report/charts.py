"""Charts as SVG: Vega-Lite is rendered when the page is written, so that it needs no script and no network."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.formatting import to_printable
from .blocks import Chart

WIDE_WIDTH, NARROW_WIDTH = 780, 340  # pixels, with legends and axes
HALF_WIDTH = 420  # width up to which two charts fit in a row, and no narrow version is needed
_HEIGHT, _MIN_HEIGHT = 360, 240
_MAX_WIDE_CHARACTERS = 400_000  # characters of a wide drawing above which there is no narrow one
_POINT_MARKS = {"point", "circle", "square"}
_COMPOSED_KEYS = {"hconcat", "vconcat", "concat", "facet", "repeat"}
_ID_PATTERN = re.compile(r'\b(id="|url\(#)((?:clip|gradient|pattern)_?[0-9]+)')
# Okabe and Ito's color-blind safe palette, without black and yellow, which are invisible in one of the themes. page.css
# matches these exact values to darken them on white and lighten them on black.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c", "#7a5195")
_TEXT_CONFIG = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 13, "titleFontSize": 13}
_CONFIG: dict[str, Any] = {
    "font": "Arial, Helvetica, sans-serif",
    "background": None,
    "padding": {"left": 4, "top": 4, "right": 14, "bottom": 4},
    "view": {"stroke": None},
    "axis": {
        **_TEXT_CONFIG,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 4,
        "domainColor": "currentColor",
        "domainOpacity": 0.4,
        "tickColor": "currentColor",
        "tickOpacity": 0.4,
        "gridColor": "currentColor",
        "gridOpacity": 0.12,
        "labelLimit": 240,
    },
    "legend": {
        **_TEXT_CONFIG,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolSize": 80,
        "symbolOpacity": 1,
        "symbolBaseFillColor": "currentColor",
        "symbolBaseStrokeColor": "currentColor",
        "labelLimit": 280,
        "rowPadding": 5,
        "columnPadding": 28,
    },
    "header": {**_TEXT_CONFIG, "titleFontWeight": "normal"},
    "title": {"color": "currentColor", "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    "text": {"color": "currentColor", "fontSize": 13},
    "rule": {"color": "currentColor"},
    "line": {"strokeWidth": 2.5, "strokeCap": "round", "strokeJoin": "round", "aria": False},
    "point": {"filled": True, "size": 60, "opacity": 1},
    "range": {"category": list(PALETTE), "ramp": {"scheme": "cividis"}, "heatmap": {"scheme": "cividis"}},
}


@dataclass(frozen=True)
class Drawing:
    """The SVG of a chart for wide screens, and one for narrow screens if the chart can be resized."""

    wide: str
    narrow: str | None


def draw(chart: Chart, id_prefix: str) -> Drawing:
    """Render a chart as SVG.

    In a chart with thumbnails, the label of a mark up to the first "; " is the key of its thumbnail.

    Parameters
    ----------
    chart : Chart
        What to draw.
    id_prefix : str
        Prefix of the ids in the SVG, unique in the page.

    Returns
    -------
    Drawing

    Raises
    ------
    ValueError
        If the spec is not valid Vega-Lite.
    """
    spec = to_plain(chart.spec)
    if chart.thumbnails:
        spec = _add_descriptions(spec)
    wide = _render_svg(_apply_size(spec, WIDE_WIDTH), f"{id_prefix}-w", to_printable(chart.title))
    if (
        _COMPOSED_KEYS & set(spec)
        or not isinstance(spec.get("width", WIDE_WIDTH), int | float)
        or is_half_width(chart)
        or len(wide) > _MAX_WIDE_CHARACTERS
    ):
        return Drawing(wide, None)
    narrow_spec = {**spec, "width": NARROW_WIDTH}
    if "width" in spec and isinstance(spec.get("height"), int | float):  # keep the aspect ratio
        narrow_spec["height"] = max(_MIN_HEIGHT, round(spec["height"] * NARROW_WIDTH / spec["width"]))
    return Drawing(wide, _render_svg(_apply_size(narrow_spec, NARROW_WIDTH), f"{id_prefix}-n", to_printable(chart.title)))


def is_half_width(chart: Chart) -> bool:
    """Return whether the chart is narrow enough for two in a row."""
    width = chart.spec.get("width", WIDE_WIDTH)
    return isinstance(width, int | float) and width <= HALF_WIDTH


def to_plain(value: Any) -> Any:
    """Convert to JSON values: printable text, Python numbers, None for NaN and infinities."""
    if isinstance(value, str):
        return to_printable(value)
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _apply_size(spec: Mapping[str, Any], width: int) -> dict[str, Any]:
    is_narrow = width == NARROW_WIDTH
    config = copy.deepcopy(_CONFIG)
    config["legend"] |= {"columns": 1 if is_narrow else 3}
    if is_narrow:
        config["legend"]["labelLimit"] = NARROW_WIDTH - 40
        config["axis"]["labelLimit"] = 140
    sized_spec: dict[str, Any] = {**spec, "config": config}
    if not _COMPOSED_KEYS & set(spec):
        sized_spec = {"width": width, "height": _HEIGHT, **sized_spec}
        if isinstance(sized_spec["width"], int | float) and isinstance(sized_spec["height"], int | float):
            sized_spec["autosize"] = {"type": "fit", "contains": "padding"}
    return sized_spec


def _render_svg(spec: Mapping[str, Any], id_prefix: str, title: str) -> str:
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(dict(spec), allowed_base_urls=[])
    ids: dict[str, str] = {}  # the renderer's ids are numbered across drawings; ours restart in each, for reproducible pages
    svg = _ID_PATTERN.sub(lambda match: match[1] + ids.setdefault(match[2], f"{id_prefix}{len(ids)}"), svg)
    opening_tag = f'<svg role="graphics-document" aria-label="{_escape_attribute(title)}" '
    return svg.replace("<svg ", opening_tag, 1).replace(' xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1"', "", 1)


def _escape_attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _add_descriptions(spec: dict[str, Any]) -> dict[str, Any]:
    """Use the field `image` as the label of every point that has no description."""
    layers = [_add_descriptions(layer) for layer in spec.get("layer", [])]
    mark = spec.get("mark")
    kind = mark.get("type") if isinstance(mark, dict) else mark
    encoding = spec.get("encoding", {})
    if kind in _POINT_MARKS and "description" not in encoding:
        spec = {**spec, "encoding": {**encoding, "description": {"field": "image", "type": "nominal"}}}
    return {**spec, "layer": layers} if layers else spec
