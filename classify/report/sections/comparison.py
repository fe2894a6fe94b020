"""Runs side by side: their answers, how good they are, and, where they were tested on the same images, which is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.confidence_intervals import of_grouped_difference, of_paired_difference
from ...evaluate.significance import of_flipped_groups
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import Evidence
from . import answer
from .depth import along, points

_SURE = 0.05
_BLUE = "#0072b2"


def section(runs: Sequence[Evidence]) -> Section:
    """The answers of two or more runs, their test accuracy and depth curves in one chart each, and paired comparisons."""
    return Section("comparison", "Side by side", list(_parts(runs)))


def names(runs: Sequence[Evidence]) -> list[str]:
    """What each run is called: its folder's name, or its path where another is called the same."""
    paths = Counter(str(run.path) for run in runs)
    places: dict[str, set[str]] = {}
    for run in runs:
        places.setdefault(run.title, set()).add(str(run.path))
    found = [run.title if len(places[run.title]) == 1 else str(run.path) for run in runs]
    return [
        f"{name} ({number})" if paths[str(run.path)] > 1 else name
        for number, (name, run) in enumerate(zip(found, runs, strict=True), start=1)
    ]


def _parts(runs: Sequence[Evidence]) -> Iterator[Part]:
    called = names(runs)
    yield from (Text(f"{name}: {answer.sentence(run)}") for name, run in zip(called, runs, strict=True))
    tested = [(name, run) for name, run in zip(called, runs, strict=True) if run.test]
    if tested:
        yield Chart("Test accuracy of each run, with 95 % intervals", _accuracies(tested), _table(tested))
    for other, run in zip(called[1:], runs[1:], strict=True):
        yield from _paired(called[0], runs[0], other, run)
    yield from _depths(called, runs)


def _table(tested: Sequence[tuple[str, Evidence]]) -> Table:
    rows = []
    for name, run in tested:
        best, test = run.best, run.test
        head, where = (None, None) if best is None else (best.head, wording.taps(best.sources))
        scores = [test["accuracy"], *test["accuracy_95"], test.get("balanced_accuracy"), test.get("log_loss")]
        rows.append([name, head, where, len(run.scores), test["images"], *scores])
    header = ["run", "head", "tap", "trials", "test images", "accuracy", "95 % from", "to", "balanced accuracy", "log-loss"]
    return Table("The winner of each run on its test images", header, rows, digits=4, sortable=True)


def _accuracies(tested: Sequence[tuple[str, Evidence]]) -> dict[str, Any]:
    """Vega-Lite: a row for each run."""
    values = [
        {
            "run": name,
            "accuracy": run.test["accuracy"],
            "low": run.test["accuracy_95"][0],
            "high": run.test["accuracy_95"][1],
            "words": f"{name}; test accuracy {wording.percent(run.test['accuracy'])}; "
            f"95 % interval {wording.interval(run.test['accuracy_95'])}",
        }
        for name, run in tested
    ]
    y = {"field": "run", "type": "nominal", "sort": [name for name, _ in tested], "title": None}
    axis = wording.shares(bound for _, run in tested for bound in run.test["accuracy_95"])
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
                "encoding": {"x": x, "description": {"field": "words", "type": "nominal"}},
            },
        ],
    }


def _paired(first: str, one: Evidence, second: str, other: Evidence) -> Iterator[Text]:
    """Which of two winners is better, on the test images that both have."""
    answered, by_other = _answered(one), _answered(other)
    common = sorted(answered.keys() & by_other.keys())
    if not common:
        yield Text(f"{first} and {second} have no test image in common: compare them by their intervals only.")
        return
    if any(answered[key][0] != by_other[key][0] for key in common):
        yield Text(f"{first} and {second} label the test images that they have in common otherwise: no paired comparison.")
        return
    right = np.array([[answered[key][1], by_other[key][1]] for key in common])
    only_one, only_other = int((right[:, 0] & ~right[:, 1]).sum()), int((right[:, 1] & ~right[:, 0]).sum())
    grouped = any(answered[key][2] for key in common)
    groups = np.unique([answered[key][2] or f"\0{key.hex()}" for key in common], return_inverse=True)[1] if grouped else None
    difference = (only_one - only_other) / len(common)
    (low, high), p_value = _sure(right, groups)
    ahead = first if difference > 0 else second
    verdict = (
        f"{ahead} is better by more than chance would do" if p_value <= _SURE else "these images do not tell them apart"
    )
    which = "the same test images" if len(common) == len(answered) == len(by_other) else "the test images that both have"
    counted = f"{len(common)}" if groups is None else f"{len(common)} in {groups.max() + 1} groups"
    yield Text(
        f"{first} against {second}, on {which} ({counted}): only {first} is right on {only_one}, only {second} on "
        f"{only_other}; a difference of {100 * difference:+.1f} points (95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}, p = {p_value:.2g}): {verdict}."
    )
    if groups is None and (one.test.get("groups") or other.test.get("groups")):
        words = "The test images come in groups, which images.csv does not name: this comparison is surer than it should be."
        yield Text(words, "warning")


def _sure(right: np.ndarray, groups: np.ndarray | None) -> tuple[tuple[float, float], float]:
    """The 95 % interval of the difference and its p-value, as `paired.compare` has them; right (n, 2), groups (n,)."""
    from scipy.stats import binomtest

    ahead = right[:, 0].astype(np.int64) - right[:, 1]
    if groups is not None:
        sums = np.bincount(groups, weights=ahead).round().astype(np.int64)
        return of_grouped_difference(sums, np.bincount(groups)), of_flipped_groups(sums)
    first, second = int((ahead > 0).sum()), int((ahead < 0).sum())
    p_value = float(binomtest(first, first + second).pvalue) if first + second else 1.0
    return of_paired_difference(first, second, len(right)), p_value


def _answered(run: Evidence) -> Mapping[bytes, tuple[str, bool, str]]:
    """Of each test image by its digest: its label, whether it was answered rightly, and its group."""
    known = {image.name: image for image in run.record("test")}
    return {
        known[each.name].digest: (each.label, each.label == each.predicted, known[each.name].group)
        for each in run.answers
        if each.name in known
    }


def _depths(called: Sequence[str], runs: Sequence[Evidence]) -> Iterator[Part]:
    """The best head at each tap of each run, along the depth."""
    found: list[dict[str, Any]] = []
    for name, run in zip(called, runs, strict=True):
        best: dict[tuple[str, str], dict[str, Any]] = {}
        for each in sorted(points(run), key=lambda each: int(each["rank"])):
            if each["depth"] is not None:
                best.setdefault((each["backbone"], each["tap"]), each)
        several = len({backbone for backbone, _ in best}) > 1
        along_it = sorted(best.values(), key=lambda each: float(each["depth"]))
        found += [{**each, "run": name, "line": f"{name}, {each['backbone']}" if several else name} for each in along_it]
    if not found:
        return
    header = ["run", "backbone", "tap", "cost", "head", "accuracy", "95 % from", "to"]
    fields = ("run", "backbone", "tap", "depth", "head", "accuracy", "low", "high")
    rows = [[each[field] for field in fields] for each in found]
    table = Table("The best head at each tap of each run", header, rows, digits=4, sortable=True)
    yield Chart("The best head at each tap, along the depth, of all runs", along(found, None), table)
    yield Text("These accuracies are on the images that each run chose by, which need not be the same ones.")
