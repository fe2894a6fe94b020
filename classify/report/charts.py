"""A chart as SVG: Vega-Lite drawn while the page is made, so that it is seen without a script and fetches nothing."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.formatting import safe
from .blocks import Chart

WIDE, NARROW = 780, 340  # pixels of a chart, legends and axes included
HALF = 420  # up to which two charts stand side by side, and one is as good on a narrow screen
_HEIGHT, _LEAST = 360, 240
_TWICE = 400_000  # characters of a wide drawing up to which a narrow one is worth its bytes
_POINTS = {"point", "circle", "square"}
_COMPOSED = {"hconcat", "vconcat", "concat", "facet", "repeat"}
_ID = re.compile(r'\b(id="|url\(#)((?:clip|gradient|pattern)_?[0-9]+)')
# Okabe and Ito's colours, which the colour-blind tell apart; without black and yellow, of which one of the themes shows
# nothing. page.css makes them a little darker on white and lighter on black, by these very values.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c", "#7a5195")
_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 13, "titleFontSize": 13}
_CONFIG: dict[str, Any] = {
    "font": "Arial, Helvetica, sans-serif",
    "background": None,
    "padding": {"left": 4, "top": 4, "right": 14, "bottom": 4},
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
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
        **_TEXT,
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
    "header": {**_TEXT, "titleFontWeight": "normal"},
    "title": {"color": "currentColor", "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    "text": {"color": "currentColor", "fontSize": 13},
    "rule": {"color": "currentColor"},
    "line": {"strokeWidth": 2.5, "strokeCap": "round", "strokeJoin": "round", "aria": False},
    "point": {"filled": True, "size": 60, "opacity": 1},
    "range": {"category": list(PALETTE), "ramp": {"scheme": "cividis"}, "heatmap": {"scheme": "cividis"}},
}


@dataclass(frozen=True)
class Drawing:
    """The SVG of a chart for wide screens, and one for narrow ones where the chart has a width of its own to change."""

    wide: str
    narrow: str | None


def draw(chart: Chart, name: str) -> Drawing:
    """The chart as SVG; name: what the ids in it begin with, as ids in a page have to differ.

    A part of a mark's label up to the first "; " is the key of its thumbnail, where the chart has thumbnails. Raises
    `ValueError` for a chart that Vega-Lite does not understand.
    """
    spec = plain(chart.spec)
    if chart.thumbnails:
        spec = _described(spec)
    wide = _svg(_sized(spec, WIDE), f"{name}-w", safe(chart.title))
    if _COMPOSED & set(spec) or not isinstance(spec.get("width", WIDE), int | float) or is_half(chart) or len(wide) > _TWICE:
        return Drawing(wide, None)
    small = {**spec, "width": NARROW}
    if "width" in spec and isinstance(spec.get("height"), int | float):  # both were chosen, and so is their ratio
        small["height"] = max(_LEAST, round(spec["height"] * NARROW / spec["width"]))
    return Drawing(wide, _svg(_sized(small, NARROW), f"{name}-n", safe(chart.title)))


def is_half(chart: Chart) -> bool:
    """Whether the chart is so small that another one stands beside it where there is room."""
    width = chart.spec.get("width", WIDE)
    return isinstance(width, int | float) and width <= HALF


def plain(value: Any) -> Any:
    """`value` as JSON holds it: texts without what could reorder them, NumPy's numbers as Python's, None for NaN."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _sized(spec: Mapping[str, Any], width: int) -> dict[str, Any]:
    narrow = width == NARROW
    config = copy.deepcopy(_CONFIG)
    config["legend"] |= {"columns": 1 if narrow else 3}
    if narrow:
        config["legend"]["labelLimit"] = NARROW - 40
        config["axis"]["labelLimit"] = 140
    sized: dict[str, Any] = {**spec, "config": config}
    if not _COMPOSED & set(spec):
        sized = {"width": width, "height": _HEIGHT, **sized}
        if isinstance(sized["width"], int | float) and isinstance(sized["height"], int | float):
            sized["autosize"] = {"type": "fit", "contains": "padding"}
    return sized


def _svg(spec: Mapping[str, Any], name: str, title: str) -> str:
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(dict(spec), allowed_base_urls=[])
    known: dict[str, str] = {}  # ids that count on from drawing to drawing, in the order in which they are met in this one
    drawn = _ID.sub(lambda found: found[1] + known.setdefault(found[2], f"{name}{len(known)}"), drawn)
    head = f'<svg role="graphics-document" aria-label="{_attribute(title)}" '
    return drawn.replace("<svg ", head, 1).replace(' xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1"', "", 1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _described(spec: dict[str, Any]) -> dict[str, Any]:
    """The chart with the text of the field `image` as the label of every point, where it says no other."""
    layers = [_described(layer) for layer in spec.get("layer", [])]
    mark = spec.get("mark")
    kind = mark.get("type") if isinstance(mark, dict) else mark
    encoding = spec.get("encoding", {})
    if kind in _POINTS and "description" not in encoding:
        spec = {**spec, "encoding": {**encoding, "description": {"field": "image", "type": "nominal"}}}
    return {**spec, "layer": layers} if layers else spec
