"""Accuracy by depth of the tap: which layer of each backbone a head should be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...evaluate.confidence_intervals import wilson_ci
from ...evaluate.depth_curve import compute_depth_curve
from ...runs.finetuned_weights import is_finetuned
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MAX_LINES = 8  # lines in one chart
_MAX_WHISKER_LINES = 3  # lines up to which every point shows its interval
_MAX_ROWS = 30  # rows of a dot plot
_DEPTH_TITLE = "tap depth (fraction of the forward cost)"
_ROW_HEIGHT = 26  # pixels


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: the best trial of each head at each tap, by depth and as a heat map of taps and heads."""
    return Section("depth", "Accuracy by depth", list(_build_parts(snapshot)))


def collect_points(snapshot: RunSnapshot) -> list[dict[str, Any]]:
    """Return the fields of `DepthPoint` of the best trial of each head on each tap, with `low` and `high` of its 95 % CI."""
    intervals = {} if snapshot.result is None else snapshot.result.accuracy_95
    n_images = count_selection_images(snapshot)
    depth_points = compute_depth_curve(snapshot.tap_depths, snapshot.scores) if snapshot.scores else ()
    curve_points = [dict(vars(point)) for point in depth_points]
    for point in curve_points:
        low, high = intervals.get(point["trial"]) or _compute_interval(point["accuracy"], n_images)
        point |= {"low": low, "high": high, "tap": " + ".join(f"{name}" for name in _format_taps(point))}
    return curve_points


def count_selection_images(snapshot: RunSnapshot) -> int:
    """Return the number of images that trials were scored on for selection; 0 if unknown."""
    return 0 if snapshot.splits is None else snapshot.splits.n_selection


def build_depth_spec(curve_points: Sequence[Mapping[str, Any]], chosen_id: str | None) -> dict[str, Any]:
    """Build the Vega-Lite chart of accuracy by depth, one line per value of `line`, with the trial `chosen_id` marked."""
    lines = list(dict.fromkeys(point["line"] for point in curve_points))
    axis = wording.build_share_axis(point[name] for point in curve_points for name in ("low", "high"))
    y = {"field": "accuracy", "type": "quantitative", "scale": {"zero": False}, "axis": axis}
    x = {
        "field": "depth",
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%", "title": _DEPTH_TITLE},
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
                "encoding": {"y": y, "shape": line_color, "description": {"field": "label", "type": "nominal"}},
            },
            *_build_chosen_layers([point for point in curve_points if point["trial"] == chosen_id], x, y),
        ],
    }


def _build_chosen_layers(
    chosen_points: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Build a ring and a label around the selected trial."""
    data = {"values": [_build_datum(point) for point in chosen_points[:1]]}
    ring_mark = {"type": "point", "filled": False, "size": 260, "strokeWidth": 2, "color": "currentColor", "aria": False}
    word_mark = {"type": "text", "dy": -18, "align": "right", "dx": 14, "fontWeight": 600, "aria": False}
    plain_color = {"color": {"value": "currentColor"}}
    return [
        {"data": data, "mark": ring_mark, "encoding": {"x": x, "y": y, **plain_color}},
        {"data": data, "mark": word_mark, "encoding": {"x": x, "y": y, "text": {"value": "selected"}, **plain_color}},
    ] * bool(chosen_points)


def _build_datum(point: Mapping[str, Any]) -> dict[str, Any]:
    label = (
        f"{point['head']} on {point['tap']} of {point['backbone']}; accuracy {wording.format_percent(point['accuracy'])}; "
        f"95 % CI {wording.format_interval((point['low'], point['high']))}"
    )
    return {"label": label, **{name: point[name] for name in ("line", "depth", "accuracy", "low", "high")}}


def _build_parts(snapshot: RunSnapshot) -> Iterator[Part]:
    curve_points = collect_points(snapshot)
    if not curve_points:
        yield Text("No trial has finished, so there are no scores to show.", "missing")
        return
    yield Text(
        f"Accuracy {wording.format_selection(snapshot)}, with the best hyperparameters of each head at each tap. As the "
        "best of several trials they are slightly optimistic; the test split is used only for the winner."
    )
    if snapshot.best is not None and is_finetuned(snapshot.best):
        yield Text(
            "The fine-tuned network was scored on a subset of these images, so its interval is wider; its best epoch was "
            "selected on the same subset."
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
            "95 % CIs"
            if len(_list_distinct(shown_points, "line")) <= _MAX_WHISKER_LINES
            else "the 95 % CI of the selected trial"
        )
        yield Chart(f"Accuracy by depth of the tap, with {interval_note}", build_depth_spec(shown_points, best_id), table)
        yield from [
            Text(f"The best {_MAX_LINES} of {n_left_out + _MAX_LINES} lines are shown; the table has all of them.")
        ] * bool(n_left_out)
        multi_tap_points = [point for point in curve_points if point["depth"] is None]
        if multi_tap_points:
            yield Text(
                "Concatenated taps have no single depth and are not in the chart: "
                + "; ".join(map(_describe_point, multi_tap_points[:5]))
                + "."
            )
    else:
        ranked_points = sorted(curve_points, key=lambda point: int(point["rank"]))
        yield Chart(
            "Accuracy of each head on each tap, with 95 % CIs",
            _build_dot_spec(ranked_points[:_MAX_ROWS], best_id),
            table,
        )
        if len(curve_points) > _MAX_ROWS:
            yield Text(f"The best {_MAX_ROWS} of {len(curve_points)} rows are shown; the table has all of them.")
    yield from _build_heatmaps(curve_points, heads)


def _describe_point(point: Mapping[str, Any]) -> str:
    return f"{point['head']} on {len(point['taps'])} taps, {wording.format_percent(point['accuracy'])}"


def _select_best_lines(curve_points: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """Return the points of the lines with the highest maxima, and the number of lines left out."""
    best_accuracies = {
        line: max(point["accuracy"] for point in curve_points if point["line"] == line)
        for line in _list_distinct(curve_points, "line")
    }
    kept_lines = sorted(best_accuracies, key=lambda line: -best_accuracies[line])[:_MAX_LINES]
    return [point for point in curve_points if point["line"] in kept_lines], len(best_accuracies) - len(kept_lines)


def _build_dot_spec(curve_points: Sequence[Mapping[str, Any]], chosen_id: str | None) -> dict[str, Any]:
    """Build the Vega-Lite chart with one row per head and tap, for taps that do not form lines."""
    values = []
    for point in curve_points:
        row_name = f"{point['rank']}. {point['head']}, {point['tap']}"
        values.append(
            {**_build_datum(point), "name": row_name, "role": "selected" if point["trial"] == chosen_id else "others"}
        )
    names = [point["name"] for point in values]
    color = {
        "field": "role",
        "type": "nominal",
        "scale": {"domain": ["selected", "others"], "range": ["#d55e00", "#0072b2"]},
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
                "encoding": {"x": x, "description": {"field": "label", "type": "nominal"}},
            },
        ],
    }


def _build_heatmaps(curve_points: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> Iterator[Table]:
    """Build heat maps of accuracy, taps by heads: one per backbone, or a single one if each backbone has one tap."""
    cells: dict[str, dict[tuple[str, float | None], dict[str, float]]] = {}
    for point in curve_points:
        tap_cells = cells.setdefault(point["backbone"], {})
        tap_cells.setdefault((point["tap"], point["depth"]), {})[point["head"]] = point["accuracy"]
    low, high = min(point["accuracy"] for point in curve_points), max(point["accuracy"] for point in curve_points)
    span = (high - low) or 1.0
    caption = "accuracy of each head at each tap (best hyperparameters; lighter is better)"
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
        yield Table(f"{backbone}: {caption}" if backbone else caption.capitalize(), ["tap", "depth", *heads], rows, shades)


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
    header = ["rank", "backbone", "tap", "depth", "head", "hyperparameters", "accuracy"]
    header += ["95 % CI low", "95 % CI high", "log-loss"]
    return Table("Best hyperparameters of each head at each tap", header, rows, digits=4, sortable=True)


def _format_taps(point: Mapping[str, Any]) -> list[str]:
    """Format taps without the backbone, which has a column of its own; more than three are only counted."""
    tap_names = [str(tap).removeprefix(f"{point['backbone']}/") for tap in point["taps"]]
    return tap_names if len(tap_names) <= 3 else [f"{len(tap_names)} concatenated taps"]


def _list_distinct(curve_points: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(point[name] for point in curve_points))


def _compute_interval(accuracy: float, n_images: int) -> tuple[float, float]:
    return wilson_ci(round(accuracy * n_images), n_images) if n_images else (accuracy, accuracy)
