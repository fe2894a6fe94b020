"""Comparison of runs: their test accuracies, and paired comparisons on the test images they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.confidence_intervals import grouped_difference_ci, paired_difference_ci
from ...evaluate.metrics import ClassificationScores
from ...evaluate.significance import sign_flip_test
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot
from . import summary
from .depth import build_depth_spec, collect_points

_SIGNIFICANCE_LEVEL = 0.05
_BLUE = "#0072b2"
_TestedRun = tuple[str, RunSnapshot, ClassificationScores]  # its name, and its scores on the test split


def build_section(snapshots: Sequence[RunSnapshot]) -> Section:
    """Build the section: summaries, a chart of test accuracies, paired comparisons, and a chart of accuracy by depth."""
    return Section("comparison", "Comparison", list(_build_parts(snapshots)))


def name_runs(snapshots: Sequence[RunSnapshot]) -> list[str]:
    """Return a name for each run: its folder's name, or its path if that name is not unique."""
    path_counts = Counter(str(snapshot.path) for snapshot in snapshots)
    paths_by_title: dict[str, set[str]] = {}
    for snapshot in snapshots:
        paths_by_title.setdefault(snapshot.title, set()).add(str(snapshot.path))
    base_names = [
        snapshot.title if len(paths_by_title[snapshot.title]) == 1 else str(snapshot.path) for snapshot in snapshots
    ]
    return [
        f"{name} ({number})" if path_counts[str(snapshot.path)] > 1 else name
        for number, (name, snapshot) in enumerate(zip(base_names, snapshots, strict=True), start=1)
    ]


def _build_parts(snapshots: Sequence[RunSnapshot]) -> Iterator[Part]:
    run_names = name_runs(snapshots)
    yield from (Text(f"{name}: {summary.summarize(snapshot)}") for name, snapshot in zip(run_names, snapshots, strict=True))
    tested_runs = [
        (name, snapshot, snapshot.test)
        for name, snapshot in zip(run_names, snapshots, strict=True)
        if snapshot.test is not None
    ]
    if tested_runs:
        yield Chart("Test accuracy of each run, with 95 % CIs", _build_accuracy_spec(tested_runs), _build_table(tested_runs))
    for other_name, snapshot in zip(run_names[1:], snapshots[1:], strict=True):
        yield from _compare_pair(run_names[0], snapshots[0], other_name, snapshot)
    yield from _build_depth_parts(run_names, snapshots)


def _build_table(tested_runs: Sequence[_TestedRun]) -> Table:
    rows = []
    for name, snapshot, test in tested_runs:
        best = snapshot.best
        head, tap_names = (None, None) if best is None else (best.head, wording.format_taps(best.tap_refs))
        scores = [test.accuracy, *test.accuracy_95, test.balanced_accuracy, test.log_loss]
        rows.append([name, head, tap_names, len(snapshot.scores), test.images, *scores])
    header = ["run", "head", "tap", "trials", "test images", "accuracy", "95 % CI low", "95 % CI high"]
    header += ["balanced accuracy", "log-loss"]
    return Table("Test scores of the winner of each run", header, rows, digits=4, sortable=True)


def _build_accuracy_spec(tested_runs: Sequence[_TestedRun]) -> dict[str, Any]:
    """Build the Vega-Lite chart with one row per run."""
    values = [
        {
            "run": name,
            "accuracy": test.accuracy,
            "low": test.accuracy_95[0],
            "high": test.accuracy_95[1],
            "label": f"{name}; test accuracy {wording.format_percent(test.accuracy)}; "
            f"95 % CI {wording.format_interval(test.accuracy_95)}",
        }
        for name, _, test in tested_runs
    ]
    y = {"field": "run", "type": "nominal", "sort": [name for name, _, _ in tested_runs], "title": None}
    axis = wording.build_share_axis(bound for _, _, test in tested_runs for bound in test.accuracy_95)
    x = {"field": "accuracy", "type": "quantitative", "scale": {"zero": False}, "axis": axis}
    return {
        "height": 30 * len(values) + 60,
        "data": {"values": values},
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "rule", "color": _BLUE, "opacity": 0.6, "strokeWidth": 2, "aria": False},
                "encoding": {"x": {**x, "field": "low", "title": "test accuracy"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "color": _BLUE, "size": 110},
                "encoding": {"x": x, "description": {"field": "label", "type": "nominal"}},
            },
        ],
    }


def _compare_pair(
    first_name: str, first_snapshot: RunSnapshot, second_name: str, second_snapshot: RunSnapshot
) -> Iterator[Text]:
    """Compare two winners on the test images that both runs have."""
    first_results, second_results = _collect_results(first_snapshot), _collect_results(second_snapshot)
    common_keys = sorted(first_results.keys() & second_results.keys())
    if not common_keys:
        yield Text(f"{first_name} and {second_name} have no test images in common: compare their intervals only.")
        return
    if any(first_results[key][0] != second_results[key][0] for key in common_keys):
        yield Text(f"{first_name} and {second_name} label their common test images differently: no paired comparison.")
        return
    correct = np.array([[first_results[key][1], second_results[key][1]] for key in common_keys])
    n_only_first, n_only_second = int((correct[:, 0] & ~correct[:, 1]).sum()), int((correct[:, 1] & ~correct[:, 0]).sum())
    has_groups = any(first_results[key][2] for key in common_keys)
    groups = (
        np.unique([first_results[key][2] or f"\0{key.hex()}" for key in common_keys], return_inverse=True)[1]
        if has_groups
        else None
    )
    difference = (n_only_first - n_only_second) / len(common_keys)
    (low, high), p_value = _compute_significance(correct, groups)
    better_name = first_name if difference > 0 else second_name
    verdict = f"{better_name} is significantly better" if p_value <= _SIGNIFICANCE_LEVEL else "not significant"
    image_scope = (
        "the same test images"
        if len(common_keys) == len(first_results) == len(second_results)
        else "the test images in both"
    )
    sample_size = f"{len(common_keys)}" if groups is None else f"{len(common_keys)} in {groups.max() + 1} groups"
    yield Text(
        f"{first_name} vs {second_name}, on {image_scope} ({sample_size}): {n_only_first} correct only in {first_name}, "
        f"{n_only_second} only in {second_name}; difference {100 * difference:+.1f} points (95 % CI {100 * low:+.1f} to "
        f"{100 * high:+.1f}, p = {p_value:.2g}): {verdict}."
    )
    if groups is None and any(test and test.groups for test in (first_snapshot.test, second_snapshot.test)):
        yield Text(
            "The test images are grouped, but images.csv does not name the groups, so the interval above is too narrow.",
            "warning",
        )


def _compute_significance(correct: np.ndarray, groups: np.ndarray | None) -> tuple[tuple[float, float], float]:
    """Return the 95 % CI of the difference and its p-value, as `compare_with_runner_up`; correct (n, 2), groups (n,)."""
    from scipy.stats import binomtest

    differences = correct[:, 0].astype(np.int64) - correct[:, 1]
    if groups is not None:
        sums = np.bincount(groups, weights=differences).round().astype(np.int64)
        return grouped_difference_ci(sums, np.bincount(groups)), sign_flip_test(sums)
    n_only_first, n_only_second = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = float(binomtest(n_only_first, n_only_first + n_only_second).pvalue) if n_only_first + n_only_second else 1.0
    return paired_difference_ci(n_only_first, n_only_second, len(correct)), p_value


def _collect_results(snapshot: RunSnapshot) -> Mapping[bytes, tuple[str, bool, str]]:
    """Return the label, whether the prediction is correct, and the group of each test image, by digest."""
    records = {record.name: record for record in snapshot.select_images("test")}
    return {
        records[prediction.name].digest: (
            prediction.label,
            prediction.label == prediction.predicted,
            records[prediction.name].group,
        )
        for prediction in snapshot.predictions
        if prediction.name in records
    }


def _build_depth_parts(run_names: Sequence[str], snapshots: Sequence[RunSnapshot]) -> Iterator[Part]:
    """Build the chart of the best head at each tap of each run, by depth."""
    depth_points: list[dict[str, Any]] = []
    for name, snapshot in zip(run_names, snapshots, strict=True):
        best_points: dict[tuple[str, str], dict[str, Any]] = {}
        for point in sorted(collect_points(snapshot), key=lambda point: int(point["rank"])):
            if point["depth"] is not None:
                best_points.setdefault((point["backbone"], point["tap"]), point)
        has_several_backbones = len({backbone for backbone, _ in best_points}) > 1
        sorted_points = sorted(best_points.values(), key=lambda point: float(point["depth"]))
        depth_points += [
            {**point, "run": name, "line": f"{name}, {point['backbone']}" if has_several_backbones else name}
            for point in sorted_points
        ]
    if not depth_points:
        return
    header = ["run", "backbone", "tap", "depth", "head", "accuracy", "95 % CI low", "95 % CI high"]
    fields = ("run", "backbone", "tap", "depth", "head", "accuracy", "low", "high")
    rows = [[point[field] for field in fields] for point in depth_points]
    table = Table("Best head at each tap of each run", header, rows, digits=4, sortable=True)
    yield Chart("Accuracy by depth: best head at each tap of each run", build_depth_spec(depth_points, None), table)
    yield Text("These accuracies are on held-out images of each run, which may differ between runs.")
