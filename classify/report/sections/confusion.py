"""The confusion matrix on the test split, per-class metrics, and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.calibration import ReliabilityBin
from ...evaluate.confidence_intervals import wilson_ci
from ...evaluate.metrics import ClassificationScores
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MAX_CLASSES_WITH_COUNTS = 14  # classes up to which the cells show their counts
_MAX_CLASSES_IN_ORDER = 20  # classes up to which they are not reordered
_MAX_CLASSES_WITH_NAMES = 40  # classes up to which the axes show names
_MAX_CELLS = 1500  # cells drawn, the largest counts first
_MAX_CLASSES_CLUSTERED = 1500  # classes up to which those often confused are made adjacent
_MAX_PAIRS = 20
_CORRECT_COLOR, _WRONG_COLOR = "#0072b2", "#d55e00"
_NOTABLE_RATIO = 1.5  # calibration error, relative to that of perfectly calibrated probabilities


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: the confusion matrix, the most confused pairs, per-class metrics and calibration."""
    return Section("confusion", "Confusion matrix", list(_build_parts(snapshot)))


def _build_parts(snapshot: RunSnapshot) -> Iterator[Part]:
    test, class_names = snapshot.test, snapshot.class_names
    if test is None:
        yield Text("The test split has not been scored, so there are no confusion matrix, per-class metrics or calibration.")
        return
    counts = np.asarray(test.confusion, dtype=np.int64)
    if counts.shape != (len(class_names), len(class_names)):
        raise ValueError(f"the confusion matrix has shape {counts.shape}, but there are {len(class_names)} classes")
    order = order_classes(counts) if len(class_names) > _MAX_CLASSES_IN_ORDER else np.arange(len(class_names))
    yield from _build_matrix(counts, class_names, order)
    if pairs_table := _build_pairs_table(counts, class_names):
        yield pairs_table
    yield _build_class_table(test)
    yield from _build_calibration(test)


def order_classes(counts: np.ndarray) -> np.ndarray:
    """Order the classes so that those often confused are adjacent.

    The order is that of the leaves of average-linkage clustering, with one minus the mean of the two confusion rates as the
    distance between classes.

    Parameters
    ----------
    counts : ndarray of shape (k, k)
        The confusion matrix, true classes by row.

    Returns
    -------
    order : ndarray of shape (k,)
        Class indices.

    References
    ----------
    Sokal and Michener, "A statistical method for evaluating systematic relationships", 1958.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(counts) > _MAX_CLASSES_CLUSTERED:
        return np.arange(len(counts))
    confusion_rates = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    distance = 1 - np.clip((confusion_rates + confusion_rates.T) / 2, 0, 1)
    np.fill_diagonal(distance, 0)
    return np.asarray(leaves_list(linkage(squareform(distance, checks=False), "average")))


def _build_matrix(counts: np.ndarray, class_names: Sequence[str], order: np.ndarray) -> Iterator[Part]:
    row_totals = counts.sum(axis=1)
    rows, columns = np.nonzero(counts)
    fullest_cells = np.argsort(-counts[rows, columns], kind="stable")[:_MAX_CELLS]
    positions = np.argsort(order)
    values = [
        {
            "row": int(positions[row]),
            "column": int(positions[column]),
            "true": class_names[row],
            "predicted": class_names[column],
            "count": int(counts[row, column]),
            "share": float(counts[row, column] / row_totals[row]),
            "kind": "correct" if row == column else "error",
            "label": (
                f"{class_names[row]} predicted as {class_names[column]}; {counts[row, column]} of {row_totals[row]} images"
            ),
        }
        for row, column in zip(rows[fullest_cells].tolist(), columns[fullest_cells].tolist(), strict=True)
    ]
    names = [class_names[class_index] for class_index in order]
    table = _build_counts_table(counts, class_names) if len(class_names) <= _MAX_CLASSES_WITH_COUNTS else None
    yield Chart(
        "Confusion matrix on the test split: true classes by row, predicted classes by column",
        _build_matrix_spec(values, names, len(class_names)),
        table,
    )
    legend = "Blue cells are correct predictions, orange cells are errors. Color intensity shows the share of the "
    legend += "images of the true class."
    if len(class_names) > _MAX_CLASSES_IN_ORDER:
        legend += " Classes that are often confused are adjacent, so groups of them show as blocks."
    if len(class_names) > _MAX_CLASSES_WITH_NAMES:
        legend += " Class names do not fit on the axes; see the tables below, or point at a cell."
    if len(rows) > _MAX_CELLS:
        legend += f" Only the {_MAX_CELLS} largest of {len(rows)} non-empty cells are drawn."
    yield Text(legend)


def _build_matrix_spec(values: Sequence[Mapping[str, Any]], names: Sequence[str], n_classes: int) -> dict[str, Any]:
    """Build the Vega-Lite chart: a square per non-empty cell, with its count if there is room."""
    has_names = n_classes <= _MAX_CLASSES_WITH_NAMES
    axis = {
        "labelOverlap": n_classes > _MAX_CLASSES_WITH_COUNTS,
        "grid": False,
        "ticks": False,
        "domain": False,
        "labelLimit": 130,
    }
    unnamed_axis = {"labels": False, **axis}
    scale = {"domain": list(names), "paddingInner": 0.04 if has_names else 0, "paddingOuter": 0}
    y = {
        "field": "true",
        "type": "nominal",
        "scale": scale,
        "title": "true class",
        "axis": axis if has_names else unnamed_axis,
    }
    label_angle = {"labelAngle": -55, "labelAlign": "left"} if n_classes > 4 else {"labelAngle": 0}
    top_axis = {**(axis if has_names else unnamed_axis), "orient": "top", **label_angle}
    x = {"field": "predicted", "type": "nominal", "scale": scale, "title": "predicted class", "axis": top_axis}
    has_counts = n_classes <= _MAX_CLASSES_WITH_COUNTS
    encoding = {
        "fill": {
            "field": "kind",
            "type": "nominal",
            "scale": {"domain": ["correct", "error"], "range": [_CORRECT_COLOR, _WRONG_COLOR]},
            "legend": None,
        },
        # Pale behind a count, so that the text is readable in both themes.
        "fillOpacity": {
            "field": "share",
            "type": "quantitative",
            "scale": {"domain": [0, 1], "range": [0.12, 0.55] if has_counts else [0.45, 1.0]},
            "legend": None,
        },
        "description": {"field": "label", "type": "nominal"},
    }
    side = min(640, 150 + 64 * n_classes)
    layers: list[dict[str, Any]] = [{"mark": {"type": "rect"}, "encoding": encoding}]
    if has_counts:
        layers.append({"mark": {"type": "text", "aria": False}, "encoding": {"text": {"field": "count"}}})
    return {
        "width": side + 60,
        "height": side,
        "data": {"values": [dict(value) for value in values]},
        "encoding": {"x": x, "y": y},
        "layer": layers,
        "view": {"fill": "currentColor", "fillOpacity": 0.03, "stroke": None},
    }


def _build_counts_table(counts: np.ndarray, class_names: Sequence[str]) -> Table:
    rows = [[name, *row] for name, row in zip(class_names, counts.tolist(), strict=True)]
    return Table("Test images by true class (rows) and predicted class (columns)", ["true class", *class_names], rows)


def _build_pairs_table(counts: np.ndarray, class_names: Sequence[str]) -> Table | None:
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    largest_cells = np.argsort(-errors, axis=None, kind="stable")[:_MAX_PAIRS]
    rows: list[list[Any]] = []
    for row, column in zip(*np.unravel_index(largest_cells, errors.shape), strict=True):
        if errors[row, column]:
            n_images = int(counts[row].sum())
            rows.append(
                [class_names[row], class_names[column], int(errors[row, column]), n_images, errors[row, column] / n_images]
            )
    if not rows or len(class_names) < 3:
        return None
    header = ["true class", "predicted class", "errors", "images of the class", "error rate"]
    return Table("Most confused pairs of classes", header, rows, sortable=True)


def _build_class_table(test: ClassificationScores) -> Table:
    rows = []
    for class_scores in test.per_class:
        n_correct, n_images = round(class_scores.recall * class_scores.images), class_scores.images
        low, high = wilson_ci(n_correct, n_images) if n_images else (None, None)
        scores = [
            class_scores.precision,
            class_scores.recall if n_images else None,
            low,
            high,
            class_scores.f1 if n_images else None,
        ]
        rows.append([class_scores.class_name, n_images, *scores])
    header = ["class", "test images", "precision", "recall", "recall 95 % CI low", "recall 95 % CI high", "F1"]
    return Table("Per-class metrics on the test split", header, rows, sortable=True)


def _build_calibration(test: ClassificationScores) -> Iterator[Part]:
    bins, error, chance_error = test.reliability, test.calibration_error, test.calibration_error_by_chance
    overconfidence = (
        sum(bin_scores.images * (bin_scores.confidence - bin_scores.accuracy) for bin_scores in bins) / test.images
    )
    if error <= _NOTABLE_RATIO * chance_error:
        verdict = "There is no evidence of miscalibration."
    else:
        tendency = "overconfident" if overconfidence > 0 else "underconfident"
        verdict = f"On average the probabilities are {tendency} by {100 * abs(overconfidence):.1f} points."
    yield Text(
        f"Calibration: the expected calibration error is {100 * error:.1f} points; with this many images, perfectly "
        f"calibrated probabilities would show {100 * chance_error:.1f} points. {verdict}"
    )
    rows = [[bin_scores.images, bin_scores.confidence, bin_scores.accuracy, *bin_scores.accuracy_95] for bin_scores in bins]
    header = ["images", "mean confidence", "accuracy", "95 % CI low", "95 % CI high"]
    table = Table("Accuracy by confidence", header, rows)
    yield Chart("Calibration: accuracy by confidence, with 95 % CIs", _build_reliability_spec(bins), table)


def _build_reliability_spec(bins: Sequence[ReliabilityBin]) -> dict[str, Any]:
    values: list[dict[str, Any]] = [
        {
            "confidence": bin_scores.confidence,
            "accuracy": bin_scores.accuracy,
            "low": bin_scores.accuracy_95[0],
            "high": bin_scores.accuracy_95[1],
            "label": f"{bin_scores.images} images; mean confidence {wording.format_percent(bin_scores.confidence)}; "
            f"accuracy {wording.format_percent(bin_scores.accuracy)}",
        }
        for bin_scores in bins
    ]
    low = min(0.1 * int(10 * min(min(value["confidence"], value["low"]) for value in values)), 0.9)
    scale, axis = {"domain": [low, 1]}, {"format": ".0%"}
    x = {
        "field": "confidence",
        "type": "quantitative",
        "scale": scale,
        "axis": axis,
        "title": "mean confidence (probability of the predicted class)",
    }
    y = {"field": "accuracy", "type": "quantitative", "scale": scale, "axis": axis, "title": "accuracy"}
    diagonal = {"data": {"values": [{"confidence": low, "accuracy": low}, {"confidence": 1, "accuracy": 1}]}}
    diagonal_mark = {"type": "line", "strokeDash": [5, 4], "color": "currentColor", "opacity": 0.5, "strokeWidth": 1.5}
    return {
        "width": 420,
        "height": 380,
        "layer": [
            {**diagonal, "mark": diagonal_mark, "encoding": {"x": x, "y": y}},
            {
                "data": {"values": values},
                "mark": {"type": "rule", "color": _CORRECT_COLOR, "opacity": 0.6, "strokeWidth": 2, "aria": False},
                "encoding": {"x": x, "y": {**y, "field": "low", "title": "accuracy"}, "y2": {"field": "high"}},
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "color": _CORRECT_COLOR, "size": 70},
                "encoding": {"x": x, "y": y, "description": {"field": "label", "type": "nominal"}},
            },
        ],
    }
