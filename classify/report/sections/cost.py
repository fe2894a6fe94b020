"""What each tap costs, in time and space, and what it is good for."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....cache.errors import HumerisError
from ....extract.backbones import taps
from ....extract.backbones.taps import Tap
from ...diagnose import latency
from ...diagnose.latency import Measured
from ...evaluate.trial import Source, Trial
from ...runs.run import Run
from .. import winner_features, wording
from ..blocks import Chart, Command, Part, Section, Table, Text
from ..run_snapshot import Evidence

_MILLION = 1e6
_CHOSEN, _FRONT, _BEATEN = "chosen", "on the front", "not on the front"
_LOOKS = {_CHOSEN: ("diamond", 220, "#d55e00"), _FRONT: ("circle", 70, "#0072b2"), _BEATEN: ("circle", 40, "#8c8c8c")}


@dataclass(frozen=True)
class Cost:
    """One set of taps with its best trial; what is not known is None.

    accuracy: in choosing. depth: share of the forward pass, of a single tap. bytes: of the rows of one image as they are
    stored. multiply_adds, parameters: of the network cut there, of the deepest tap of each backbone. seconds: of training
    all heads there. one, batch: seconds of the cut network for one image and for `latency.BATCH`.
    """

    sources: tuple[Source, ...]
    trial: Trial
    accuracy: float
    depth: float | None
    bytes: int | None
    multiply_adds: int | None
    parameters: int | None
    seconds: float
    one: float | None = None
    batch: float | None = None


def section(evidence: Evidence) -> Section:
    """The costs of every tap, and which taps nothing beats in accuracy for less."""
    return Section("cost", "What it costs", _parts(evidence))


def front(costs: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the pairs (cost, accuracy) that no other is at least as good as for no more, by cost.

    Of equal pairs the first is kept (Pareto).
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place][0], -costs[place][1], place))
    kept: list[int] = []
    best = -math.inf
    for place in order:
        if costs[place][1] > best:
            kept.append(place)
            best = costs[place][1]
    return kept


def costs(evidence: Evidence, measured: Measured | None) -> list[Cost]:
    """The cost of each set of taps that heads were tried on, the cheapest first where that is known."""
    tried: dict[tuple[Source, ...], list[Trial]] = {}
    for trial in evidence.ranked:
        tried.setdefault(trial.sources, []).append(trial)
    layers = _layers(evidence)
    found = [_cost(evidence, trials, layers, measured) for trials in tried.values()]
    return sorted(found, key=lambda each: (each.multiply_adds is None, each.multiply_adds or 0, each.depth or 0.0))


def _cost(
    evidence: Evidence,
    trials: Sequence[Trial],
    layers: Mapping[str, Mapping[str, Mapping[str, Any]]],
    measured: Measured | None,
) -> Cost:
    sources = trials[0].sources
    timed = measured.found.get(latency.key(sources)) if measured else None
    parameters = _deepest(sources, layers, "parameters")
    return Cost(
        sources=sources,
        trial=trials[0],
        accuracy=evidence.scores[trials[0]].accuracy,
        depth=evidence.depth.get(sources[0]) if len(sources) == 1 else None,
        bytes=_bytes(sources, layers),
        multiply_adds=_deepest(sources, layers, "cost"),
        parameters=timed.parameters if timed and parameters is None else parameters,
        seconds=sum(evidence.scores[trial].seconds for trial in trials),
        one=timed.one if timed else None,
        batch=timed.batch if timed else None,
    )


def _layers(evidence: Evidence) -> dict[str, dict[str, Mapping[str, Any]]]:
    """What the cache knows of each extraction's layers, by name; nothing of those that are gone."""
    if evidence.store is None:
        return {}
    try:
        return {each.name: {layer["name"]: layer for layer in each.layers} for each in evidence.store.extractions()}
    except (HumerisError, OSError):
        return {}


def _deepest(sources: Sequence[Source], layers: Mapping[str, Mapping[str, Mapping[str, Any]]], field: str) -> int | None:
    """The sum over the backbones of the largest number that a tap of each has; None where one is not known."""
    largest: dict[str, int] = {}
    for source in sources:
        value = layers.get(source.extraction, {}).get(source.layer, {}).get(field)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        largest[source.extraction] = max(value, largest.get(source.extraction, 0))
    return sum(largest.values())


def _bytes(sources: Sequence[Source], layers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> int | None:
    total = 0
    for source in sources:
        shape = layers.get(source.extraction, {}).get(source.layer, {}).get("shape")
        try:
            total += taps.row_bytes(Tap(source.layer, source.pool), shape or ())
        except (HumerisError, TypeError, IndexError):
            return None
    return total


def _parts(evidence: Evidence) -> list[Part]:
    if not evidence.scores:
        return [Text("No trial of this run has ended: there is nothing to set costs against.", "missing")]
    run = Run(evidence.path, dict(evidence.description))
    measured = latency.read(run)
    found = costs(evidence, measured)
    timed = [each for each in found if each.one is not None]
    counted = [each for each in found if each.multiply_adds is not None]
    parts: list[Part] = []
    if timed:
        assert measured is not None
        parts.append(Text(_front_words(evidence, timed, [each.one or 0.0 for each in timed])))
        parts.append(_chart(evidence, timed, [1000 * (each.one or 0.0) for each in timed], "milliseconds for one image"))
        parts.append(Text(_how_timed(measured, len(found) - len(timed))))
    elif counted:
        parts.append(Text(_front_words(evidence, counted, [float(each.multiply_adds or 0) for each in counted])))
        million = [(each.multiply_adds or 0) / _MILLION for each in counted]
        parts.append(_chart(evidence, counted, million, "million multiply-adds for one image"))
        parts += _not_timed(evidence, counted)
    else:
        parts += _unknown(evidence)
    return [*parts, _table(found)]


def _front_words(evidence: Evidence, found: Sequence[Cost], price: Sequence[float]) -> str:
    kept = front([(cost, each.accuracy) for cost, each in zip(price, found, strict=True)])
    if len(found) == 1:
        return "One set of taps stands here alone: more of them, or another backbone, show what accuracy costs."
    best = evidence.best
    chosen = next((place for place, each in enumerate(found) if best is not None and each.sources == best.sources), None)
    words = (
        f"{len(kept)} of {len(found)} sets of taps are on the front: nothing that was tried is as accurate for less. "
        "Accuracies are those that heads were chosen by, not those of the test split."
    )
    if chosen is None or len(kept) < 2 or price[chosen] <= 0:
        return words
    cheaper = [place for place in kept if price[place] < price[chosen]]
    if not cheaper:
        return words
    near = cheaper[-1]
    lost = found[chosen].accuracy - found[near].accuracy
    share = wording.percent(price[near] / price[chosen], 0)
    return (
        f"{words} {_named(found[near].sources)} costs {share} of what the chosen taps do and is {100 * lost:.1f} points "
        "less accurate."
    )


def _how_timed(measured: Measured, others: int) -> str:
    lacking = f" Not measured, of {others} more: {'; '.join(measured.left_out)}" if others else ""
    return (
        f"The network cut at the taps, compiled, on {measured.device} with {measured.threads} processor threads: the median "
        f"of repeated calls, decoding and the head left out.{lacking}"
    )


def _not_timed(evidence: Evidence, found: Sequence[Cost]) -> list[Part]:
    if not any(spec.get("architecture") for spec in _specs(evidence).values()):
        return []
    lacking = any(each.parameters is None for each in found)
    also = ", and counts the parameters, which was not done when these features were made" if lacking else ""
    why = "Multiply-adds are not time: small layers wait for memory. This measures the time on the machine that runs it"
    return [Text(f"{why}{also}:"), Command(_again(evidence))]


def _unknown(evidence: Evidence) -> list[Part]:
    if evidence.data.get("kind") == "features":
        known = any(spec.get("architecture") for spec in _specs(evidence).values())
        why = "A file of features does not say what its network costs"
        measured: list[Part] = [Text(f"{why}. This measures it:"), Command(_again(evidence))]
        return measured if known else [Text(f"{why}, nor which network it is.")]
    best = evidence.best
    line = winner_features.command(evidence, best.sources) if best else ""
    why = "What the taps cost is not known, because the cache that says so is gone or holds other features."
    return [Text(f"{why}{' This brings it back:' if line else ''}", "missing"), *([Command(line)] if line else [])]


def _again(evidence: Evidence) -> str:
    cache = ["--cache", str(evidence.store.path.absolute())] if evidence.store is not None else []
    return shlex.join(["humeris", "report", str(evidence.path.absolute()), *cache, "--latency"])


def _specs(evidence: Evidence) -> Mapping[str, Mapping[str, Any]]:
    specs = evidence.description.get("specs")
    return {name: spec for name, spec in specs.items() if isinstance(spec, dict)} if isinstance(specs, dict) else {}


def _named(sources: Sequence[Source]) -> str:
    return " + ".join(map(str, sources)) if len(sources) <= 3 else f"{len(sources)} taps side by side"


def _chart(evidence: Evidence, found: Sequence[Cost], price: Sequence[float], what: str) -> Chart:
    """Accuracy against what it costs, the front as a line, the chosen taps marked; logarithmic where costs differ much."""
    best = evidence.best
    kept = front([(cost, each.accuracy) for cost, each in zip(price, found, strict=True)])
    values = []
    for place, (cost, each) in enumerate(zip(price, found, strict=True)):
        chosen = best is not None and each.sources == best.sources
        role = _CHOSEN if chosen else _FRONT if place in kept else _BEATEN
        said = f"{_named(each.sources)}; {wording.percent(each.accuracy)} for {cost:.4g} {what}; {each.trial.head}; {role}"
        values.append({"cost": cost, "accuracy": each.accuracy, "role": role, "words": said, "size": _LOOKS[role][1]})
    least, most = min(price), max(price)
    wide = least > 0 and most / least > 8
    scale = {"type": "log", "nice": False, "padding": 14} if wide else {"zero": False, "padding": 14}
    x = {"field": "cost", "type": "quantitative", "scale": scale, "axis": {"title": what, "format": "~r", "tickCount": 6}}
    y = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"zero": False},
        "axis": {"title": "accuracy in choosing", **wording.shares([each.accuracy for each in found])},
    }
    roles = [role for role in (_CHOSEN, _FRONT, _BEATEN) if any(value["role"] == role for value in values)]
    field = {"field": "role", "type": "nominal", "title": None}
    points = {
        "mark": {"type": "point"},
        "encoding": {
            "x": x,
            "y": y,
            "color": {**field, "scale": {"domain": roles, "range": [_LOOKS[role][2] for role in roles]}},
            "shape": {**field, "scale": {"domain": roles, "range": [_LOOKS[role][0] for role in roles]}},
            "size": {"field": "size", "type": "quantitative", "scale": None, "legend": None},
            "description": {"field": "words", "type": "nominal"},
        },
    }
    line = {
        "data": {"values": [values[place] for place in kept]},
        "mark": {"type": "line", "interpolate": "step-after", "color": "#0072b2", "opacity": 0.6},
        "encoding": {"x": x, "y": y},
    }
    cells = [
        [_named(each.sources), cost, each.accuracy, place in kept]
        for place, (cost, each) in enumerate(zip(price, found, strict=True))
    ]
    title = f"Accuracy against {'time' if 'seconds' in what else 'multiply-adds'}; the line is the front"
    table = Table(title, ["taps", what, "accuracy", "on the front"], cells, digits=4, sortable=True)
    return Chart(title, {"data": {"values": values}, "layer": [line, points]}, table)


def _table(found: Sequence[Cost]) -> Table:
    timed = any(each.one is not None for each in found)
    header = ["taps", "accuracy", "bytes per image", "share of the forward pass", "multiply-adds (million)", "parameters"]
    header += ["training (s)"]
    header += ["one image (ms)", f"a batch of {latency.BATCH} (ms)", "images per second"] if timed else []
    cells = []
    for each in found:
        million = None if each.multiply_adds is None else round(each.multiply_adds / _MILLION, 1)
        row: list[Any] = [
            _named(each.sources),
            each.accuracy,
            each.bytes,
            each.depth,
            million,
            each.parameters,
            each.seconds,
        ]
        if timed:
            one, batch = each.one, each.batch
            row += [None if one is None else 1000 * one, None if batch is None else 1000 * batch]
            row += [None if not batch else round(latency.BATCH / batch)]
        cells.append(row)
    return Table("What each set of taps costs", header, cells, sortable=True)
