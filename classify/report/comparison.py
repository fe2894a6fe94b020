"""Runs side by side: their answers, how good they are, and, where they were tested on the same images, which is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..intervals import of_paired_difference
from . import answer, text
from .depth import along, points
from .evidence import Evidence
from .section import Chart, Part, Section, Table, Text

_SURE = 0.05
_BLUE = "#0072b2"


def section(runs: Sequence[Evidence]) -> Section:
    """The answers of two or more runs, their test accuracy and depth curves in one chart each, and paired comparisons."""
    return Section("comparison", "Side by side", list(_parts(runs)))


def names(runs: Sequence[Evidence]) -> list[str]:
    """What each run is called: its folder's name, or its path where another is called the same."""
    titles = Counter(run.title for run in runs)
    paths = Counter(str(run.path) for run in runs)
    found = [run.title if titles[run.title] == 1 else str(run.path) for run in runs]
    return [f"{name} ({place})" if paths[name] > 1 else name for place, name in enumerate(found, start=1)]


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
        head, where = (None, None) if best is None else (best.head, text.taps(best.sources))
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
            "words": f"{name}; test accuracy {text.percent(run.test['accuracy'])}; "
            f"95 % interval {text.interval(run.test['accuracy_95'])}",
        }
        for name, run in tested
    ]
    y = {"field": "run", "type": "nominal", "sort": [name for name, _ in tested], "title": None}
    axis = text.shares(bound for _, run in tested for bound in run.test["accuracy_95"])
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
    from scipy.stats import binomtest

    right_one, right_other = _right(one), _right(other)
    common = sorted(right_one.keys() & right_other.keys())
    if not common:
        yield Text(f"{first} and {second} have no test image in common: compare them by their intervals only.")
        return
    if any(right_one[key][0] != right_other[key][0] for key in common):
        yield Text(f"{first} and {second} label the test images that they have in common otherwise: no paired comparison.")
        return
    only_one = sum(right_one[key][1] and not right_other[key][1] for key in common)
    only_other = sum(right_other[key][1] and not right_one[key][1] for key in common)
    difference = (only_one - only_other) / len(common)
    low, high = of_paired_difference(only_one, only_other, len(common))
    p_value = float(binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0
    ahead = first if difference > 0 else second
    verdict = (
        f"{ahead} is better by more than chance would do" if p_value <= _SURE else "these images do not tell them apart"
    )
    whole = len(common) == len(right_one) == len(right_other)
    which = "the same test images" if whole else "the test images that both have"
    yield Text(
        f"{first} against {second}, on {which} ({len(common)}): only {first} is right on {only_one}, only {second} on "
        f"{only_other}; a difference of {100 * difference:+.1f} points (95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}, McNemar p = {p_value:.2g}): {verdict}."
    )
    if one.test.get("groups") or other.test.get("groups"):
        words = "The test images come in groups, which this comparison does not know: it is surer than it should be."
        yield Text(words, "warning")


def _right(run: Evidence) -> Mapping[bytes, tuple[str, bool]]:
    """The label of each test image and whether it was answered rightly, by the image's digest."""
    digests = {image.name: image.digest for image in run.record("test")}
    return {digests[each.name]: (each.label, each.label == each.predicted) for each in run.answers if each.name in digests}


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
