"""Accuracy along the depth of each backbone: which layer the head should sit on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...evaluate.confidence_intervals import wilson_ci
from ...evaluate.depth_curve import compute_depth_curve
from ...runs.finetuned_weights import is_finetuned
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MAX_LINES = 8  # that can be told apart
_MAX_WHISKER_LINES = 3  # lines up to which each point has its interval drawn
_MAX_ROWS = 30  # rows of a dot plot
_COST_TITLE = "share of the forward cost up to the tap"
_ROW_HEIGHT = 26  # pixels


def build_section(snapshot: RunSnapshot) -> Section:
    """The best setting of each head at each tap: drawn along the forward cost, and as a heat map of taps and heads."""
    return Section("depth", "Accuracy along the depth", list(_build_parts(snapshot)))


def collect_points(snapshot: RunSnapshot) -> list[dict[str, Any]]:
    """The best trial of each head on each tap, as `DepthPoint` has it, with `low` and `high` of its 95 % interval."""
    intervals = {} if snapshot.result is None else snapshot.result.accuracy_95
    n_images = count_selection_images(snapshot)
    depth_points = compute_depth_curve(snapshot.tap_depths, snapshot.scores) if snapshot.scores else ()
    curve_points = [dict(vars(point)) for point in depth_points]
    for point in curve_points:
        low, high = intervals.get(point["trial"]) or _compute_interval(point["accuracy"], n_images)
        point |= {"low": low, "high": high, "tap": " + ".join(f"{name}" for name in _format_taps(point))}
    return curve_points


def count_selection_images(snapshot: RunSnapshot) -> int:
    """How many images heads were chosen by; 0 where that is not known."""
    return 0 if snapshot.splits is None else snapshot.splits.n_selection


def build_depth_spec(curve_points: Sequence[Mapping[str, Any]], chosen_id: str | None) -> dict[str, Any]:
    """Vega-Lite: accuracy against the forward cost, a line for each value of `line`, the trial `chosen_id` marked."""
    lines = list(dict.fromkeys(point["line"] for point in curve_points))
    axis = wording.build_share_axis(point[name] for point in curve_points for name in ("low", "high"))
    y = {"field": "accuracy", "type": "quantitative", "scale": {"zero": False}, "axis": axis}
    x = {
        "field": "depth",
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%", "title": _COST_TITLE},
    }
    color = {"field": "line", "type": "nominal", "title": None, "scale": {"domain": lines}}
    line_color = color if len(lines) > 1 else {**color, "legend": None}
    whisker_points = [point for point in curve_points if len(lines) <= _MAX_WHISKER_LINES or point["trial"] == chosen_id]
    return {
        "data": {"values": [_build_datum(point) for point in curve_points]},
        "encoding": {"x": x, "color": line_color},
        "layer": [
            {
                "data": {"values": [_build_datum(point) for point in whisker_points]},
                "mark": {"type": "rule", "opacity": 0.35, "strokeWidth": 1.5, "aria": False},
                "encoding": {"y": {**y, "field": "low", "title": "accuracy"}, "y2": {"field": "high"}},
            },
            {"mark": {"type": "line"}, "encoding": {"y": y}},
            {
                "mark": {"type": "point"},
                "encoding": {"y": y, "shape": line_color, "description": {"field": "words", "type": "nominal"}},
            },
            *_build_chosen_layers([point for point in curve_points if point["trial"] == chosen_id], x, y),
        ],
    }


def _build_chosen_layers(
    chosen_points: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A ring around the chosen one, with the word."""
    data = {"values": [_build_datum(point) for point in chosen_points[:1]]}
    ring_mark = {"type": "point", "filled": False, "size": 260, "strokeWidth": 2, "color": "currentColor", "aria": False}
    word_mark = {"type": "text", "dy": -18, "align": "right", "dx": 14, "fontWeight": 600, "aria": False}
    plain_color = {"color": {"value": "currentColor"}}
    return [
        {"data": data, "mark": ring_mark, "encoding": {"x": x, "y": y, **plain_color}},
        {"data": data, "mark": word_mark, "encoding": {"x": x, "y": y, "text": {"value": "chosen"}, **plain_color}},
    ] * bool(chosen_points)


def _build_datum(point: Mapping[str, Any]) -> dict[str, Any]:
    words = (
        f"{point['head']} on {point['tap']} of {point['backbone']}; accuracy {wording.format_percent(point['accuracy'])}; "
        f"95 % interval {wording.format_interval((point['low'], point['high']))}"
    )
    return {"words": words, **{name: point[name] for name in ("line", "depth", "accuracy", "low", "high")}}


def _build_parts(snapshot: RunSnapshot) -> Iterator[Part]:
    curve_points = collect_points(snapshot)
    if not curve_points:
        yield Text("There are no scores of trials to draw.", "missing")
        return
    yield Text(
        "These are accuracies on the images that heads were chosen by, each the best of its settings and so a little too "
        "good; the test images were met by the chosen one alone."
    )
    if snapshot.best is not None and is_finetuned(snapshot.best):
        yield Text(
            "The fine-tuned network was scored on a part of those images only, so that its interval is the wider one, and "
            "its best epoch was chosen on them."
        )
    best_id = None if snapshot.best is None else snapshot.best.id
    heads, backbones = _list_distinct(curve_points, "head"), _list_distinct(curve_points, "backbone")
    for point in curve_points:
        name_parts = [point["backbone"]] * (len(backbones) > 1) + [point["head"]] * (len(heads) > 1)
        point["line"] = ", ".join(name_parts) or point["head"]
    table = _build_table(curve_points)
    single_tap_points = [point for point in curve_points if point["depth"] is not None]
    if any(
        len({point["depth"] for point in single_tap_points if point["line"] == line}) > 1
        for line in _list_distinct(single_tap_points, "line")
    ):
        shown_points, n_left_out = _select_best_lines(single_tap_points)
        interval_note = (
            "95 % intervals"
            if len(_list_distinct(shown_points, "line")) <= _MAX_WHISKER_LINES
            else "the chosen one's 95 % interval"
        )
        yield Chart(
            f"Accuracy by the depth of the tap, with {interval_note}", build_depth_spec(shown_points, best_id), table
        )
        yield from [Text(f"Of {n_left_out + _MAX_LINES} lines the best {_MAX_LINES} are drawn; the table has all.")] * bool(
            n_left_out
        )
        multi_tap_points = [point for point in curve_points if point["depth"] is None]
        if multi_tap_points:
            yield Text(
                "Several taps side by side have no depth of their own: "
                + "; ".join(map(_describe_point, multi_tap_points[:5]))
                + "."
            )
    else:
        ranked_points = sorted(curve_points, key=lambda point: int(point["rank"]))
        yield Chart(
            "Accuracy of each head on each tap, with 95 % intervals",
            _build_dot_spec(ranked_points[:_MAX_ROWS], best_id),
            table,
        )
        if len(curve_points) > _MAX_ROWS:
            yield Text(f"Of {len(curve_points)} the best {_MAX_ROWS} are drawn; the table has all.")
    yield from _build_heatmaps(curve_points, heads)


def _describe_point(point: Mapping[str, Any]) -> str:
    return f"{point['head']} on {len(point['taps'])} taps, {wording.format_percent(point['accuracy'])}"


def _select_best_lines(curve_points: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """The points of the lines that reach highest, and how many lines are left out."""
    best_accuracies = {
        line: max(point["accuracy"] for point in curve_points if point["line"] == line)
        for line in _list_distinct(curve_points, "line")
    }
    kept_lines = sorted(best_accuracies, key=lambda line: -best_accuracies[line])[:_MAX_LINES]
    return [point for point in curve_points if point["line"] in kept_lines], len(best_accuracies) - len(kept_lines)


def _build_dot_spec(curve_points: Sequence[Mapping[str, Any]], chosen_id: str | None) -> dict[str, Any]:
    """Vega-Lite: a row for each head on each tap, where there is no line to draw."""
    values = []
    for point in curve_points:
        row_name = f"{point['rank']}. {point['head']}, {point['tap']}"
        values.append(
            {**_build_datum(point), "name": row_name, "chosen": "chosen" if point["trial"] == chosen_id else "others"}
        )
    names = [point["name"] for point in values]
    color = {
        "field": "chosen",
        "type": "nominal",
        "scale": {"domain": ["chosen", "others"], "range": ["#d55e00", "#0072b2"]},
        "legend": {"title": None},
    }
    y = {"field": "name", "type": "nominal", "sort": names, "title": None}
    axis = wording.build_share_axis(point[name] for point in curve_points for name in ("low", "high"))
    x = {"field": "accuracy", "type": "quantitative", "scale": {"zero": False}, "axis": axis}
    return {
        "height": _ROW_HEIGHT * len(values) + 90,
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


def _build_heatmaps(curve_points: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> Iterator[Table]:
    """Taps by heads, the cells shaded by accuracy: a table for each backbone, or one where they have a tap each."""
    cells: dict[str, dict[tuple[str, float | None], dict[str, float]]] = {}
    for point in curve_points:
        tap_cells = cells.setdefault(point["backbone"], {})
        tap_cells.setdefault((point["tap"], point["depth"]), {})[point["head"]] = point["accuracy"]
    low, high = min(point["accuracy"] for point in curve_points), max(point["accuracy"] for point in curve_points)
    span = (high - low) or 1.0
    caption = "accuracy of each head (best setting) at each tap; the lighter the better"
    if all(len(tap_cells) == 1 for tap_cells in cells.values()):
        single_tap_cells = {
            (tap if " + " in name else f"{tap} of {name}", depth): scores
            for name, tap_cells in cells.items()
            for (tap, depth), scores in tap_cells.items()
        }
        cells = {"": single_tap_cells} if len(single_tap_cells) > 1 else {}
    for backbone, tap_cells in cells.items():
        rows = [
            [tap, None if depth is None else wording.format_percent(depth, 0), *(scores.get(head) for head in heads)]
            for (tap, depth), scores in tap_cells.items()
        ]
        shades = [
            [None, None, *((scores[head] - low) / span if head in scores else None for head in heads)]
            for scores in tap_cells.values()
        ]
        yield Table(f"{backbone}: {caption}" if backbone else caption.capitalize(), ["tap", "cost", *heads], rows, shades)


def _build_table(curve_points: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            point["rank"],
            point["backbone"],
            point["tap"],
            None if point["depth"] is None else float(point["depth"]),
            point["head"],
            ", ".join(f"{name}={point['hyperparameters'][name]}" for name in point["varied"]),
            point["accuracy"],
            point["low"],
            point["high"],
            point["log_loss"],
        ]
        for point in curve_points
    ]
    header = ["rank", "backbone", "tap", "cost", "head", "best setting", "accuracy", "95 % from", "to", "log-loss"]
    return Table("The best setting of each head at each tap", header, rows, digits=4, sortable=True)


def _format_taps(point: Mapping[str, Any]) -> list[str]:
    """The taps without the backbone, which stands beside them; many by their number."""
    tap_names = [str(tap).removeprefix(f"{point['backbone']}/") for tap in point["taps"]]
    return tap_names if len(tap_names) <= 3 else [f"{len(tap_names)} taps side by side"]


def _list_distinct(curve_points: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(point[name] for point in curve_points))


def _compute_interval(accuracy: float, n_images: int) -> tuple[float, float]:
    return wilson_ci(round(accuracy * n_images), n_images) if n_images else (accuracy, accuracy)
