"""Accuracy along the depth of each backbone: which layer the head should sit on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...evaluate.confidence_intervals import wilson
from ...evaluate.depth_curve import depth_curve
from ...runs.finetuned_weights import is_tuned
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import Evidence

_LINES = 8  # that can be told apart
_WHISKERS = 3  # lines up to which each point has its interval drawn
_BARS = 30  # rows of a dot plot
_COST = "share of the forward cost up to the tap"
_ROW = 26  # pixels


def section(evidence: Evidence) -> Section:
    """The best setting of each head at each tap: drawn along the forward cost, and as a heat map of taps and heads."""
    return Section("depth", "Accuracy along the depth", list(_parts(evidence)))


def points(evidence: Evidence) -> list[dict[str, Any]]:
    """The best trial of each head on each tap, as `depth_curve` has them, with `low` and `high` of its 95 % interval."""
    sources = [{**vars(source), "depth": depth} for source, depth in evidence.depth.items()]
    known = evidence.description.get("accuracy_95") or {}
    scored = chosen_by(evidence)
    found = depth_curve(sources, evidence.scores) if evidence.scores else []
    for each in found:
        low, high = known.get(each["trial"]) or _wilson(each["accuracy"], scored)
        each |= {"low": low, "high": high, "tap": " + ".join(f"{name}" for name in _short(each))}
    return found


def chosen_by(evidence: Evidence) -> int:
    """How many images heads were chosen by; 0 where that is not known."""
    splits = evidence.splits
    if splits.get("select") == "val":
        return int(splits.get("val", 0))
    return int(splits.get("train", 0)) + int(splits.get("val", 0))


def along(found: Sequence[Mapping[str, Any]], chosen: str | None) -> dict[str, Any]:
    """Vega-Lite: accuracy against the forward cost, a line for each value of `line`, the trial `chosen` marked."""
    lines = list(dict.fromkeys(each["line"] for each in found))
    axis = wording.shares(each[name] for each in found for name in ("low", "high"))
    y = {"field": "accuracy", "type": "quantitative", "scale": {"zero": False}, "axis": axis}
    x = {"field": "depth", "type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"format": ".0%", "title": _COST}}
    color = {"field": "line", "type": "nominal", "title": None, "scale": {"domain": lines}}
    look = color if len(lines) > 1 else {**color, "legend": None}
    whiskers = [each for each in found if len(lines) <= _WHISKERS or each["trial"] == chosen]
    return {
        "data": {"values": [_datum(each) for each in found]},
        "encoding": {"x": x, "color": look},
        "layer": [
            {
                "data": {"values": [_datum(each) for each in whiskers]},
                "mark": {"type": "rule", "opacity": 0.35, "strokeWidth": 1.5, "aria": False},
                "encoding": {"y": {**y, "field": "low", "title": "accuracy"}, "y2": {"field": "high"}},
            },
            {"mark": {"type": "line"}, "encoding": {"y": y}},
            {
                "mark": {"type": "point"},
                "encoding": {"y": y, "shape": look, "description": {"field": "words", "type": "nominal"}},
            },
            *_chosen([each for each in found if each["trial"] == chosen], x, y),
        ],
    }


def _chosen(found: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A ring around the chosen one, with the word."""
    data = {"values": [_datum(each) for each in found[:1]]}
    ring = {"type": "point", "filled": False, "size": 260, "strokeWidth": 2, "color": "currentColor", "aria": False}
    word = {"type": "text", "dy": -18, "align": "right", "dx": 14, "fontWeight": 600, "aria": False}
    plain = {"color": {"value": "currentColor"}}
    return [
        {"data": data, "mark": ring, "encoding": {"x": x, "y": y, **plain}},
        {"data": data, "mark": word, "encoding": {"x": x, "y": y, "text": {"value": "chosen"}, **plain}},
    ] * bool(found)


def _datum(each: Mapping[str, Any]) -> dict[str, Any]:
    words = (
        f"{each['head']} on {each['tap']} of {each['backbone']}; accuracy {wording.percent(each['accuracy'])}; "
        f"95 % interval {wording.interval((each['low'], each['high']))}"
    )
    return {"words": words, **{name: each[name] for name in ("line", "depth", "accuracy", "low", "high")}}


def _parts(evidence: Evidence) -> Iterator[Part]:
    found = points(evidence)
    if not found:
        yield Text("There are no scores of trials to draw.", "missing")
        return
    yield Text(
        "These are accuracies on the images that heads were chosen by, each the best of its settings and so a little too "
        "good; the test images were met by the chosen one alone."
    )
    if evidence.best is not None and is_tuned(evidence.best):
        yield Text(
            "The fine-tuned network was scored on a part of those images only, so that its interval is the wider one, and "
            "its best epoch was chosen on them."
        )
    best = None if evidence.best is None else evidence.best.id
    heads, backbones = _distinct(found, "head"), _distinct(found, "backbone")
    for each in found:
        parts = [each["backbone"]] * (len(backbones) > 1) + [each["head"]] * (len(heads) > 1)
        each["line"] = ", ".join(parts) or each["head"]
    table = _table(found)
    single = [each for each in found if each["depth"] is not None]
    if any(len({each["depth"] for each in single if each["line"] == line}) > 1 for line in _distinct(single, "line")):
        shown, left_out = _best_lines(single)
        whose = "95 % intervals" if len(_distinct(shown, "line")) <= _WHISKERS else "the chosen one's 95 % interval"
        yield Chart(f"Accuracy by the depth of the tap, with {whose}", along(shown, best), table)
        yield from [Text(f"Of {left_out + _LINES} lines the best {_LINES} are drawn; the table has all.")] * bool(left_out)
        wide = [each for each in found if each["depth"] is None]
        if wide:
            yield Text("Several taps side by side have no depth of their own: " + "; ".join(map(_said, wide[:5])) + ".")
    else:
        best_first = sorted(found, key=lambda each: int(each["rank"]))
        yield Chart("Accuracy of each head on each tap, with 95 % intervals", _dots(best_first[:_BARS], best), table)
        if len(found) > _BARS:
            yield Text(f"Of {len(found)} the best {_BARS} are drawn; the table has all.")
    yield from _heat(found, heads)


def _said(each: Mapping[str, Any]) -> str:
    return f"{each['head']} on {len(each['taps'])} taps, {wording.percent(each['accuracy'])}"


def _best_lines(found: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """The points of the lines that reach highest, and how many lines are left out."""
    top = {line: max(each["accuracy"] for each in found if each["line"] == line) for line in _distinct(found, "line")}
    kept = sorted(top, key=lambda line: -top[line])[:_LINES]
    return [each for each in found if each["line"] in kept], len(top) - len(kept)


def _dots(found: Sequence[Mapping[str, Any]], chosen: str | None) -> dict[str, Any]:
    """Vega-Lite: a row for each head on each tap, where there is no line to draw."""
    values = []
    for each in found:
        named = f"{each['rank']}. {each['head']}, {each['tap']}"
        values.append({**_datum(each), "name": named, "chosen": "chosen" if each["trial"] == chosen else "others"})
    names = [each["name"] for each in values]
    color = {
        "field": "chosen",
        "type": "nominal",
        "scale": {"domain": ["chosen", "others"], "range": ["#d55e00", "#0072b2"]},
        "legend": {"title": None},
    }
    y = {"field": "name", "type": "nominal", "sort": names, "title": None}
    axis = wording.shares(each[name] for each in found for name in ("low", "high"))
    x = {"field": "accuracy", "type": "quantitative", "scale": {"zero": False}, "axis": axis}
    return {
        "height": _ROW * len(values) + 90,
        "data": {"values": values},
        "encoding": {"y": y, "color": color},
        "layer": [
            {
                "mark": {"type": "rule", "opacity": 0.5, "strokeWidth": 2, "aria": False},
                "encoding": {"x": {**x, "field": "low", "title": "accuracy"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "size": 90},
                "encoding": {"x": x, "description": {"field": "words", "type": "nominal"}},
            },
        ],
    }


def _heat(found: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> Iterator[Table]:
    """Taps by heads, the cells shaded by accuracy: a table for each backbone, or one where they have a tap each."""
    cells: dict[str, dict[tuple[str, float | None], dict[str, float]]] = {}
    for each in found:
        taps = cells.setdefault(each["backbone"], {})
        taps.setdefault((each["tap"], each["depth"]), {})[each["head"]] = each["accuracy"]
    low, high = min(each["accuracy"] for each in found), max(each["accuracy"] for each in found)
    span = (high - low) or 1.0
    what = "accuracy of each head (best setting) at each tap; the lighter the better"
    if all(len(taps) == 1 for taps in cells.values()):
        alone = {
            (tap if " + " in name else f"{tap} of {name}", depth): scores
            for name, taps in cells.items()
            for (tap, depth), scores in taps.items()
        }
        cells = {"": alone} if len(alone) > 1 else {}
    for backbone, taps in cells.items():
        rows = [
            [tap, None if depth is None else wording.percent(depth, 0), *(scores.get(head) for head in heads)]
            for (tap, depth), scores in taps.items()
        ]
        shades = [
            [None, None, *((scores[head] - low) / span if head in scores else None for head in heads)]
            for scores in taps.values()
        ]
        yield Table(f"{backbone}: {what}" if backbone else what.capitalize(), ["tap", "cost", *heads], rows, shades)


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            each["rank"],
            each["backbone"],
            each["tap"],
            None if each["depth"] is None else float(each["depth"]),
            each["head"],
            ", ".join(f"{name}={each['setting'][name]}" for name in each["varied"]),
            each["accuracy"],
            each["low"],
            each["high"],
            each["log_loss"],
        ]
        for each in found
    ]
    header = ["rank", "backbone", "tap", "cost", "head", "best setting", "accuracy", "95 % from", "to", "log-loss"]
    return Table("The best setting of each head at each tap", header, rows, digits=4, sortable=True)


def _short(each: Mapping[str, Any]) -> list[str]:
    """The taps without the backbone, which stands beside them; many by their number."""
    found = [str(tap).removeprefix(f"{each['backbone']}/") for tap in each["taps"]]
    return found if len(found) <= 3 else [f"{len(found)} taps side by side"]


def _distinct(found: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(each[name] for each in found))


def _wilson(accuracy: float, scored: int) -> tuple[float, float]:
    return wilson(round(accuracy * scored), scored) if scored else (accuracy, accuracy)
