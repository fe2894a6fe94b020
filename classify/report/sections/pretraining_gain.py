"""What the backbone knew before it saw these images: learning curves against the same network with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....cache.errors import HumerisError
from ....cache.spec import Spec
from ....extract.pixels.read_file import cores
from ...data import group_sampling
from ...diagnose.count_sketch import readable
from ...diagnose.learning_curve import Asymptote, Curve, asymptote, curve
from ...diagnose.random_baseline import is_quick, quick, twin
from ...evaluate.trial import Source, Trial
from ...runs.run import Record
from .. import winner_features, wording
from ..blocks import Chart, Command, Part, Section, Table, Text
from ..run_snapshot import Evidence

MOST, WIDE, MOST_WIDE = 5000, 1500, 2000  # images; columns from which they are fewer, and how many then
OF_A_CLASS, MOST_OF_MANY = 20, 8000  # images, where classes are many: with fewer, no small size has two of each
_OURS, _RANDOM = "the backbone's weights", "random weights"
_SAME = 0.005  # of accuracy


@dataclass(frozen=True)
class _Learnt:
    """Images that a curve is made of, with numbers of their labels (n,) and groups (n,)."""

    records: tuple[Record, ...]
    labels: np.ndarray
    groups: np.ndarray
    total: int


def section(evidence: Evidence) -> Section:
    """Start, slope and asymptote of the head on the winner's taps, and on those of the same network with random weights."""
    return Section("random", "What the backbone brings", _parts(evidence))


def _parts(evidence: Evidence) -> list[Part]:
    best = evidence.best
    try:
        images, ours = _ours(evidence)
    except winner_features.Lacking as lacking:
        return lacking.parts
    assert best is not None  # or there had been no features
    head, setting, why = _head(evidence, best)
    arguments = (images.labels, images.groups, len(evidence.classes), head, setting, cores())
    curves = {_OURS: curve(ours, *arguments)}
    if not curves[_OURS].accuracy.size:
        few = f"{images.total} images" if len(images.records) == images.total else f"{len(images.records)} drawn images"
        return [
            Text(f"There is no learning curve: {few} are too few for one of {len(evidence.classes)} classes.", "missing")
        ]
    other, instead = _random(evidence, best, images)
    if other is not None:
        curves[_RANDOM] = curve(winner_features.matrix(evidence, images.records, other), *arguments)
    some = (
        "" if len(images.records) == images.total else f" ({len(images.records)} of them, drawn by class, to be done soon)"
    )
    ends = {name: asymptote(each) for name, each in curves.items()}
    named = wording.head(head)
    made = ", ".join(f"{name}={value}" for name, value in setting.items())
    with_what = f" ({made})" if made else ""
    count = len(curves[_OURS].starts)
    said = (
        f"{named[:1].upper()}{named[1:]}{with_what}{why} on the winner's taps, learning from ever more of the "
        f"{images.total} images that are not in the test split{some}. Each point is the mean of {count} draws, scored on a "
        "fifth of these images that was held out; the band reaches from the lowest to the highest. The asymptote is where a "
        "power law through the points ends (accuracy = a - b n^-c), which is to say a guess beyond them."
    )
    parts: list[Part] = [Text(said), _chart(curves, images.labels), _table(curves, ends)]
    if other is not None:
        words = compared(curves[_OURS], curves[_RANDOM], ends[_OURS], ends[_RANDOM])
        parts.append(Text(f"{words} Taps and setting were chosen for the backbone's own weights, which favours these."))
    return [*parts, *instead]


def _ours(evidence: Evidence) -> tuple[_Learnt, Any]:
    """The images of the curves and their features at the winner's taps; raises `Lacking`."""
    number = {name: place for place, name in enumerate(evidence.classes)}
    learnt = tuple(record for record in evidence.images if record.split != "test" and record.label in number)
    whole = winner_features.matrix(evidence, learnt)
    labels = np.array([number[record.label] for record in learnt])
    groups = group_sampling.group_numbers([record.group for record in learnt])
    wanted = max(MOST if whole.shape[1] <= WIDE else MOST_WIDE, min(OF_A_CLASS * len(evidence.classes), MOST_OF_MANY))
    most = readable(whole, wanted)
    some = group_sampling.sample(labels, groups, most, 0)
    records = tuple(learnt[row] for row in some.tolist())
    images = _Learnt(records, labels[some], group_sampling.group_numbers([record.group for record in records]), len(learnt))
    return images, winner_features.matrix(evidence, records)


def _head(evidence: Evidence, best: Trial) -> tuple[str, Mapping[str, Any], str]:
    """The head of the curves and its setting: the winner's, or one that is trained in seconds; and in words why that."""
    head, setting = quick(evidence.ranked, best)
    if is_quick(best.head):
        return head, setting, ", the winner's head,"
    return head, setting, f", which is trained faster than {wording.head(best.head)}, the winner's head,"


def _random(evidence: Evidence, best: Trial, images: _Learnt) -> tuple[tuple[Source, ...] | None, list[Part]]:
    """The winner's taps of the same networks with random weights; else None, and what to say instead."""
    specs = {}
    for tap in best.sources:
        try:
            specs[tap.extraction] = Spec.from_dict(evidence.description["specs"][tap.extraction])
        except (KeyError, TypeError, ValueError):
            return None, [Text("How the features were made is not known: nothing to compare them with.", "missing")]
    if all(spec.weights.startswith("random") for spec in specs.values()):
        return None, [Text("The winner's own backbone has random weights: there is nothing to compare it with.")]
    twins = {name: _twin(evidence, spec) for name, spec in specs.items()}
    taps = tuple(replace(tap, extraction=twins[tap.extraction] or "") for tap in best.sources)
    if all(twins.values()):
        try:
            winner_features.matrix(evidence, images.records, taps)
        except winner_features.Lacking:
            pass
        else:
            return taps, []
    line = winner_features.command(evidence, best.sources, "random")
    if not line:
        why = "a network that is a file, or features that are one, have no counterpart with random weights"
        return None, [Text(f"There is no comparison with random weights: {why}.")]
    lacking = "The cache does not hold the same taps of this network with random weights, to compare with."
    return None, [Text(f"{lacking} This computes them; then make the report anew:"), Command(line)]


def _twin(evidence: Evidence, spec: Spec) -> str | None:
    """The folder of the extraction that differs from `spec` in its weights alone, which are random; None without one."""
    if evidence.store is None:
        return None
    try:
        return twin(evidence.store, spec)
    except (HumerisError, OSError):
        return None


def compared(ours: Curve, random: Curve, our_end: Asymptote | None, random_end: Asymptote | None) -> str:
    """In words how the two curves differ in start, slope and asymptote.

    What transfer may bring is a higher start, a higher slope and a higher asymptote (Torrey, Shavlik, Transfer learning,
    2010). A start or slope is higher where it is so in every draw and by half a point in the mean.
    """
    count = int(ours.sizes[0])
    starts = f"{_mean(ours.starts)} against {_mean(random.starts)}"
    slopes = f"{_points(ours.slopes)} against {_points(random.slopes)}"
    told = [
        f"{_differs(ours.starts - random.starts)} start ({starts} with {count} images)",
        f"{_differs(ours.slopes - random.slopes)} slope ({slopes} points for each of the first doublings)",
    ]
    if our_end is None or random_end is None:
        told.append("an asymptote that cannot be compared, since it cannot be told of both")
    else:
        apart = our_end.accuracy - random_end.accuracy
        known = abs(apart) > our_end.margin + random_end.margin
        which = ("a higher" if apart > 0 else "a lower") if known else "no clearly different"
        told.append(f"{which} asymptote ({_end(our_end)} against {_end(random_end)})")
    return f"Against random weights the backbone's own give {told[0]}, {told[1]}, and {told[2]}."


def _differs(differences: np.ndarray) -> str:
    if not np.isfinite(differences).all() or abs(float(differences.mean())) < _SAME:
        return "no clearly different"
    if (differences > 0).all():
        return "a higher"
    return "a lower" if (differences < 0).all() else "no clearly different"


def _mean(values: np.ndarray) -> str:
    return wording.percent(float(values.mean()))


def _points(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f}" if np.isfinite(values).all() else "unknown"


def _end(found: Asymptote | None) -> str:
    return "cannot be told" if found is None else f"{100 * found.accuracy:.1f} ± {wording.percent(found.margin)}"


def _table(curves: Mapping[str, Curve], ends: Mapping[str, Asymptote | None]) -> Table:
    header = ["", "start", "slope (points for each of the first doublings)", "with the most", "asymptote (95 % interval)"]
    cells = [
        [name, _mean(each.starts), _points(each.slopes), _mean(each.accuracy[-1]), _end(ends[name])]
        for name, each in curves.items()
    ]
    return Table("Start, slope and asymptote", header, cells)


def _chart(curves: Mapping[str, Curve], labels: np.ndarray) -> Chart:
    """Accuracy against the number of images, on a logarithmic axis, a line for each curve with a band of its draws."""
    values: list[dict[str, Any]] = []
    cells: list[Sequence[Any]] = []
    for weights, each in curves.items():
        for size, scores in zip(each.sizes.tolist(), each.accuracy, strict=True):
            low, mean, high = float(scores.min()), float(scores.mean()), float(scores.max())
            words = f"{weights}; {size:.0f} images: {wording.percent(mean)} ({wording.interval((low, high))})"
            values.append({"images": size, "accuracy": mean, "low": low, "high": high, "weights": weights, "words": words})
            cells.append([weights, round(size), mean, low, high])
    chance = float(np.bincount(labels).max() / len(labels))
    sizes = sorted({value["images"] for value in values})
    x = {
        "field": "images",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False, "padding": 12},
        "axis": {"title": "images learnt from", "values": sizes, "format": ",.0f"},
    }
    y = {"type": "quantitative", "scale": {"zero": False}, "axis": {"format": ".0%", "title": "accuracy on held-out images"}}
    name: dict[str, Any] = {"field": "weights", "type": "nominal", "title": None, "scale": {"domain": list(curves)}}
    if len(curves) == 1:
        name["legend"] = None
    floor = {"words": f"always the commonest class: {wording.percent(chance)}", "accuracy": chance}
    spec = {
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.2, "aria": False},
                "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": name},
            },
            {"mark": {"type": "line"}, "encoding": {"x": x, "y": {"field": "accuracy", **y}, "color": name}},
            {
                "mark": {"type": "point"},
                "encoding": {
                    "x": x,
                    "y": {"field": "accuracy", **y},
                    "color": name,
                    "description": {"field": "words", "type": "nominal"},
                },
            },
            {
                "data": {"values": [floor]},
                "mark": {"type": "rule", "strokeDash": [4, 4], "opacity": 0.6},
                "encoding": {"y": {"field": "accuracy", **y}, "description": {"field": "words", "type": "nominal"}},
            },
        ],
    }
    caption = "Accuracy by the number of images learnt from; dashed, what always naming the commonest class would get"
    return Chart(caption, spec, Table(caption, ["weights", "images", "accuracy", "lowest", "highest"], cells))
