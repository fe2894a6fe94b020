"""What the winner takes for what: the confusion matrix, each class's scores, and whether its certainty can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.confidence_intervals import wilson
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import Evidence

_COUNTED = 14  # classes up to which the cells hold their numbers
_IN_ORDER = 20  # classes up to which they stay in their own order
_NAMED = 40  # classes up to which the axes have names
_CELLS = 1500  # drawn at most, the fullest
_CLUSTERED = 1500  # classes up to which those alike are put side by side
_PAIRS = 20
_RIGHT, _WRONG = "#0072b2", "#d55e00"
_NOTABLE = 1.5  # times the calibration error that chance alone gives


def section(evidence: Evidence) -> Section:
    """The test images by true and answered class, the pairs most often confused, each class's scores, and calibration."""
    return Section("confusion", "What is taken for what", list(_parts(evidence)))


def _parts(evidence: Evidence) -> Iterator[Part]:
    test, classes = evidence.test, evidence.classes
    if not test:
        yield Text("No test image has been answered: there is no confusion matrix, no score of a class, no calibration.")
        return
    counts = np.asarray(test["confusion"], dtype=np.int64)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"expected a confusion matrix of {len(classes)} classes, found {counts.shape}")
    order = order_of(counts) if len(classes) > _IN_ORDER else np.arange(len(classes))
    yield from _matrix(counts, classes, order)
    if pairs := _pairs(counts, classes):
        yield pairs
    yield _per_class(test)
    yield from _calibration(test)


def order_of(counts: np.ndarray) -> np.ndarray:
    """The classes (k,) in an order that puts those side by side which are taken for each other; counts (k, k), rows true.

    Leaves of the tree that average linkage grows (Sokal and Michener, 1958) over one less the share of either class's images
    that is taken for the other.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(counts) > _CLUSTERED:
        return np.arange(len(counts))
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    distance = 1 - np.clip((share + share.T) / 2, 0, 1)
    np.fill_diagonal(distance, 0)
    return np.asarray(leaves_list(linkage(squareform(distance, checks=False), "average")))


def _matrix(counts: np.ndarray, classes: Sequence[str], order: np.ndarray) -> Iterator[Part]:
    total = counts.sum(axis=1)
    rows, columns = np.nonzero(counts)
    fullest = np.argsort(-counts[rows, columns], kind="stable")[:_CELLS]
    place = np.argsort(order)
    values = [
        {
            "row": int(place[row]),
            "column": int(place[column]),
            "true": classes[row],
            "answered": classes[column],
            "count": int(counts[row, column]),
            "share": float(counts[row, column] / total[row]),
            "kind": "right" if row == column else "wrong",
            "words": f"{classes[row]} taken for {classes[column]}; {counts[row, column]} of {total[row]} images",
        }
        for row, column in zip(rows[fullest].tolist(), columns[fullest].tolist(), strict=True)
    ]
    names = [classes[number] for number in order]
    table = _counts(counts, classes) if len(classes) <= _COUNTED else None
    yield Chart("Confusion matrix of the test images: true classes by row", _cells(values, names, len(classes)), table)
    words = "Blue is answered rightly, orange wrongly; the stronger, the larger the share of the true class's images."
    if len(classes) > _IN_ORDER:
        words += " Classes that are taken for each other stand side by side, so that groups of them show as blocks."
    if len(classes) > _NAMED:
        words += " There is no room for the names: they are in the tables below, and beside the pointer."
    if len(rows) > _CELLS:
        words += f" Of {len(rows)} cells that are not empty the fullest {_CELLS} are drawn."
    yield Text(words)


def _cells(values: Sequence[Mapping[str, Any]], names: Sequence[str], count: int) -> dict[str, Any]:
    """Vega-Lite: a square for every cell that is not empty, with its number where there is room."""
    named = count <= _NAMED
    axis = {"labelOverlap": count > _COUNTED, "grid": False, "ticks": False, "domain": False, "labelLimit": 130}
    unnamed = {"labels": False, **axis}
    scale = {"domain": list(names), "paddingInner": 0.04 if named else 0, "paddingOuter": 0}
    y = {"field": "true", "type": "nominal", "scale": scale, "title": "true class", "axis": axis if named else unnamed}
    slanted = {"labelAngle": -55, "labelAlign": "left"} if count > 4 else {"labelAngle": 0}
    above = {**(axis if named else unnamed), "orient": "top", **slanted}
    x = {"field": "answered", "type": "nominal", "scale": scale, "title": "answered class", "axis": above}
    counted = count <= _COUNTED
    encoding = {
        "fill": {
            "field": "kind",
            "type": "nominal",
            "scale": {"domain": ["right", "wrong"], "range": [_RIGHT, _WRONG]},
            "legend": None,
        },
        # Behind a number the colour stays so pale that text is read on it in both themes.
        "fillOpacity": {
            "field": "share",
            "type": "quantitative",
            "scale": {"domain": [0, 1], "range": [0.12, 0.55] if counted else [0.45, 1.0]},
            "legend": None,
        },
        "description": {"field": "words", "type": "nominal"},
    }
    side = min(640, 150 + 64 * count)
    layers: list[dict[str, Any]] = [{"mark": {"type": "rect"}, "encoding": encoding}]
    if counted:
        layers.append({"mark": {"type": "text", "aria": False}, "encoding": {"text": {"field": "count"}}})
    return {
        "width": side + 60,
        "height": side,
        "data": {"values": [dict(value) for value in values]},
        "encoding": {"x": x, "y": y},
        "layer": layers,
        "view": {"fill": "currentColor", "fillOpacity": 0.03, "stroke": None},
    }


def _counts(counts: np.ndarray, classes: Sequence[str]) -> Table:
    rows = [[name, *row] for name, row in zip(classes, counts.tolist(), strict=True)]
    return Table("Test images by true class (rows) and answered class (columns)", ["true class", *classes], rows)


def _pairs(counts: np.ndarray, classes: Sequence[str]) -> Table | None:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    most = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    rows: list[list[Any]] = []
    for row, column in zip(*np.unravel_index(most, wrong.shape), strict=True):
        if wrong[row, column]:
            total = int(counts[row].sum())
            rows.append([classes[row], classes[column], int(wrong[row, column]), total, wrong[row, column] / total])
    if not rows or len(classes) < 3:
        return None
    header = ["true class", "taken for", "images", "of", "share"]
    return Table("The pairs that are most often confused", header, rows, sortable=True)


def _per_class(test: Mapping[str, Any]) -> Table:
    rows = []
    for each in test["per_class"]:
        hits, images = round(each["recall"] * each["images"]), each["images"]
        low, high = wilson(hits, images) if images else (None, None)
        scores = [each["precision"], each["recall"] if images else None, low, high, each["f1"] if images else None]
        rows.append([each["class"], images, *scores])
    header = ["class", "test images", "precision", "recall", "recall 95 % from", "to", "F1"]
    return Table("Each class on the test images", header, rows, sortable=True)


def _calibration(test: Mapping[str, Any]) -> Iterator[Part]:
    bins = test.get("reliability")
    if not bins:
        return
    error, by_chance = test["calibration_error"], test["calibration_error_by_chance"]
    over = sum(each["images"] * (each["confidence"] - each["accuracy"]) for each in bins) / test["images"]
    if error <= _NOTABLE * by_chance:
        verdict = "which is about what chance gives: nothing speaks against its probabilities"
    else:
        lean = "more sure than it is right" if over > 0 else "less sure than it could be"
        verdict = f"which is more than chance gives: on the whole it is {lean}, by {100 * abs(over):.1f} points"
    yield Text(
        f"Calibration: on average its certainty is {100 * error:.1f} points off its accuracy; wholly honest probabilities "
        f"would seem {100 * by_chance:.1f} points off for want of images, {verdict}."
    )
    rows = [[each["images"], each["confidence"], each["accuracy"], *each["accuracy_95"]] for each in bins]
    header = ["images", "mean certainty", "accuracy", "95 % from", "to"]
    table = Table("Accuracy by certainty", header, rows)
    yield Chart("Calibration: accuracy by how sure the answers are, with 95 % intervals", _reliability(bins), table)


def _reliability(bins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [
        {
            "confidence": each["confidence"],
            "accuracy": each["accuracy"],
            "low": each["accuracy_95"][0],
            "high": each["accuracy_95"][1],
            "words": f"{each['images']} images; certainty {wording.percent(each['confidence'])}; "
            f"accuracy {wording.percent(each['accuracy'])}",
        }
        for each in bins
    ]
    low = min(0.1 * int(10 * min(min(each["confidence"], each["low"]) for each in values)), 0.9)
    scale, axis = {"domain": [low, 1]}, {"format": ".0%"}
    x = {"field": "confidence", "type": "quantitative", "scale": scale, "axis": axis, "title": "certainty of the answer"}
    y = {"field": "accuracy", "type": "quantitative", "scale": scale, "axis": axis, "title": "accuracy"}
    honest = {"data": {"values": [{"confidence": low, "accuracy": low}, {"confidence": 1, "accuracy": 1}]}}
    dashed = {"type": "line", "strokeDash": [5, 4], "color": "currentColor", "opacity": 0.5, "strokeWidth": 1.5}
    return {
        "width": 420,
        "height": 380,
        "layer": [
            {**honest, "mark": dashed, "encoding": {"x": x, "y": y}},
            {
                "data": {"values": values},
                "mark": {"type": "rule", "color": _RIGHT, "opacity": 0.6, "strokeWidth": 2, "aria": False},
                "encoding": {"x": x, "y": {**y, "field": "low", "title": "accuracy"}, "y2": {"field": "high"}},
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "color": _RIGHT, "size": 70},
                "encoding": {"x": x, "y": y, "description": {"field": "words", "type": "nominal"}},
            },
        ],
    }
