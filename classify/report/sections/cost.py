"""The cost of each tap in multiply-adds, latency, storage and training time, against its accuracy."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....cache.errors import HumerisError
from ....extract.backbones import taps
from ....extract.backbones.tap_ref import TapRef
from ....extract.backbones.taps import Tap
from ...diagnose import latency
from ...diagnose.latency import LatencyResult
from ...evaluate.trial import Trial
from ...runs.run import Run
from .. import winner_features, wording
from ..blocks import Chart, Command, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MILLION = 1e6
_CHOSEN, _ON_FRONT, _DOMINATED = "selected", "on the Pareto front", "not on the front"
_MARK_STYLES = {
    _CHOSEN: ("diamond", 220, "#d55e00"),
    _ON_FRONT: ("circle", 70, "#0072b2"),
    _DOMINATED: ("circle", 40, "#8c8c8c"),
}


@dataclass(frozen=True)
class Cost:
    """The costs of one set of taps, with its best trial; unknown ones are None.

    Parameters
    ----------
    tap_refs : tuple of TapRef
    trial : Trial
        The best one on these taps.
    accuracy : float
        Of the trial, on held-out images.
    depth : float, optional
        Fraction of the forward cost up to the tap; None for several taps.
    bytes_per_image : int, optional
        Stored bytes of the rows of one image.
    multiply_adds, parameters : int, optional
        Of the network up to its deepest tap, summed over backbones.
    training_seconds : float
        Of all trials on these taps.
    seconds_per_image, seconds_per_batch : float, optional
        Latency of the network up to its deepest tap, for one image and for a batch of `latency.BATCH_SIZE`.
    """

    tap_refs: tuple[TapRef, ...]
    trial: Trial
    accuracy: float
    depth: float | None
    bytes_per_image: int | None
    multiply_adds: int | None
    parameters: int | None
    training_seconds: float
    seconds_per_image: float | None = None
    seconds_per_batch: float | None = None


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: the costs of every set of taps and the Pareto front of accuracy and cost."""
    return Section("cost", "Cost", _build_parts(snapshot))


def find_pareto_front(pairs: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto-optimal pairs (cost, accuracy), by increasing cost; of equal pairs the first."""
    order = sorted(range(len(pairs)), key=lambda index: (pairs[index][0], -pairs[index][1], index))
    front_indices: list[int] = []
    best = -math.inf
    for index in order:
        if pairs[index][1] > best:
            front_indices.append(index)
            best = pairs[index][1]
    return front_indices


def compute_costs(snapshot: RunSnapshot, latency_result: LatencyResult | None) -> list[Cost]:
    """Return the costs of each set of taps with trials, by increasing multiply-adds, unknown ones last."""
    trials_by_taps: dict[tuple[TapRef, ...], list[Trial]] = {}
    for trial in snapshot.ranked_trials:
        trials_by_taps.setdefault(trial.tap_refs, []).append(trial)
    layers = _read_layers(snapshot)
    tap_costs = [_build_cost(snapshot, trials, layers, latency_result) for trials in trials_by_taps.values()]
    return sorted(
        tap_costs, key=lambda tap_cost: (tap_cost.multiply_adds is None, tap_cost.multiply_adds or 0, tap_cost.depth or 0.0)
    )


def _build_cost(
    snapshot: RunSnapshot,
    trials: Sequence[Trial],
    layers: Mapping[str, Mapping[str, Mapping[str, Any]]],
    latency_result: LatencyResult | None,
) -> Cost:
    tap_refs = trials[0].tap_refs
    tap_latency = latency_result.latencies.get(latency.make_key(tap_refs)) if latency_result else None
    parameters = _sum_deepest(tap_refs, layers, "parameters")
    return Cost(
        tap_refs=tap_refs,
        trial=trials[0],
        accuracy=snapshot.scores[trials[0]].accuracy,
        depth=snapshot.tap_depths.get(tap_refs[0]) if len(tap_refs) == 1 else None,
        bytes_per_image=_compute_row_bytes(tap_refs, layers),
        multiply_adds=_sum_deepest(tap_refs, layers, "cost"),
        parameters=tap_latency.n_parameters if tap_latency and parameters is None else parameters,
        training_seconds=sum(snapshot.scores[trial].seconds for trial in trials),
        seconds_per_image=tap_latency.seconds_per_image if tap_latency else None,
        seconds_per_batch=tap_latency.seconds_per_batch if tap_latency else None,
    )


def _read_layers(snapshot: RunSnapshot) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the cached layer metadata of each extraction by layer name; {} without a cache."""
    if snapshot.store is None:
        return {}
    try:
        return {
            extraction.name: {layer["name"]: layer for layer in extraction.layers}
            for extraction in snapshot.store.iter_extractions()
        }
    except (HumerisError, OSError):
        return {}


def _sum_deepest(
    tap_refs: Sequence[TapRef], layers: Mapping[str, Mapping[str, Mapping[str, Any]]], field: str
) -> int | None:
    """Sum over backbones the largest value of `field` among their tapped layers; None if one is unknown."""
    largest_values: dict[str, int] = {}
    for tap_ref in tap_refs:
        value = layers.get(tap_ref.extraction, {}).get(tap_ref.layer, {}).get(field)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        largest_values[tap_ref.extraction] = max(value, largest_values.get(tap_ref.extraction, 0))
    return sum(largest_values.values())


def _compute_row_bytes(tap_refs: Sequence[TapRef], layers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> int | None:
    total = 0
    for tap_ref in tap_refs:
        shape = layers.get(tap_ref.extraction, {}).get(tap_ref.layer, {}).get("shape")
        try:
            total += taps.compute_row_bytes(Tap(tap_ref.layer, tap_ref.pool), shape or ())
        except (HumerisError, TypeError, IndexError):
            return None
    return total


def _build_parts(snapshot: RunSnapshot) -> list[Part]:
    if not snapshot.scores:
        return [Text("No trial of this run has finished, so there is nothing to compare costs with.", "missing")]
    latency_result = latency.read(Run(snapshot.path))
    tap_costs = compute_costs(snapshot, latency_result)
    timed_costs = [tap_cost for tap_cost in tap_costs if tap_cost.seconds_per_image is not None]
    counted_costs = [tap_cost for tap_cost in tap_costs if tap_cost.multiply_adds is not None]
    parts: list[Part] = []
    if timed_costs:
        assert latency_result is not None
        parts.append(
            Text(_describe_front(snapshot, timed_costs, [tap_cost.seconds_per_image or 0.0 for tap_cost in timed_costs]))
        )
        parts.append(
            _build_chart(
                snapshot,
                timed_costs,
                [1000 * (tap_cost.seconds_per_image or 0.0) for tap_cost in timed_costs],
                "latency (ms per image)",
            )
        )
        parts.append(Text(_describe_timing(latency_result, len(tap_costs) - len(timed_costs))))
    elif counted_costs:
        parts.append(
            Text(
                _describe_front(snapshot, counted_costs, [float(tap_cost.multiply_adds or 0) for tap_cost in counted_costs])
            )
        )
        multiply_adds_in_millions = [(tap_cost.multiply_adds or 0) / _MILLION for tap_cost in counted_costs]
        parts.append(_build_chart(snapshot, counted_costs, multiply_adds_in_millions, "multiply-adds per image (million)"))
        parts += _build_timing_hint(snapshot, counted_costs)
    else:
        parts += _build_unknown_costs(snapshot)
    return [*parts, _build_table(tap_costs)]


def _describe_front(snapshot: RunSnapshot, tap_costs: Sequence[Cost], prices: Sequence[float]) -> str:
    front_indices = find_pareto_front([(cost, tap_cost.accuracy) for cost, tap_cost in zip(prices, tap_costs, strict=True)])
    if len(tap_costs) == 1:
        return "There is only one set of taps. Sweep more taps or another backbone to compare costs."
    best = snapshot.best
    chosen_index = next(
        (index for index, tap_cost in enumerate(tap_costs) if best is not None and tap_cost.tap_refs == best.tap_refs), None
    )
    introduction = (
        f"{len(front_indices)} of {len(tap_costs)} sets of taps are on the Pareto front: no other is as accurate at a lower "
        "cost. Accuracies are on held-out images, not on the test split."
    )
    if chosen_index is None or len(front_indices) < 2 or prices[chosen_index] <= 0:
        return introduction
    cheaper_indices = [index for index in front_indices if prices[index] < prices[chosen_index]]
    if not cheaper_indices:
        return introduction
    nearest_index = cheaper_indices[-1]
    accuracy_loss = tap_costs[chosen_index].accuracy - tap_costs[nearest_index].accuracy
    share = wording.format_percent(prices[nearest_index] / prices[chosen_index], 0)
    return (
        f"{introduction} {_format_taps(tap_costs[nearest_index].tap_refs)} has {share} of the cost of the selected taps and "
        f"is {100 * accuracy_loss:.1f} points less accurate."
    )


def _describe_timing(latency_result: LatencyResult, n_others: int) -> str:
    omission_note = f" Not measured for {n_others} more: {'; '.join(latency_result.omissions)}" if n_others else ""
    return (
        f"Median latency of the compiled network up to the taps on {latency_result.device} with {latency_result.threads} "
        f"CPU threads, without decoding and the head.{omission_note}"
    )


def _build_timing_hint(snapshot: RunSnapshot, tap_costs: Sequence[Cost]) -> list[Part]:
    if not _knows_architecture(snapshot):
        return []
    lacks_parameters = any(tap_cost.parameters is None for tap_cost in tap_costs)
    parameter_note = " and count the parameters, which the cache does not have" if lacks_parameters else ""
    reason = "Multiply-adds do not predict latency well, as small layers are limited by memory"
    return [
        Text(f"{reason}. To measure the latency on this machine{parameter_note}:"),
        Command(_format_latency_command(snapshot)),
    ]


def _build_unknown_costs(snapshot: RunSnapshot) -> list[Part]:
    if snapshot.holds_features:
        has_architecture = _knows_architecture(snapshot)
        reason = "A file of features does not record the cost of its network"
        measure_parts: list[Part] = [Text(f"{reason}. To measure it:"), Command(_format_latency_command(snapshot))]
        return measure_parts if has_architecture else [Text(f"{reason}, nor which network it is.")]
    best = snapshot.best
    line = winner_features.format_extract_command(snapshot, best.tap_refs) if best else ""
    reason = "The cost of the taps is unknown: the cache that records it is missing or has other features."
    return [Text(f"{reason}{' To restore it:' if line else ''}", "missing"), *([Command(line)] if line else [])]


def _format_latency_command(snapshot: RunSnapshot) -> str:
    cache_options = ["--cache", str(snapshot.store.path.absolute())] if snapshot.store is not None else []
    return shlex.join(["humeris", "report", str(snapshot.path.absolute()), *cache_options, "--latency"])


def _knows_architecture(snapshot: RunSnapshot) -> bool:
    """Return whether the run records the network of any of its features."""
    return snapshot.metadata is not None and any(spec.architecture for spec in snapshot.metadata.specs.values())


def _format_taps(tap_refs: Sequence[TapRef]) -> str:
    return " + ".join(map(str, tap_refs)) if len(tap_refs) <= 3 else f"{len(tap_refs)} concatenated taps"


def _build_chart(snapshot: RunSnapshot, tap_costs: Sequence[Cost], prices: Sequence[float], cost_label: str) -> Chart:
    """Build the chart of accuracy by cost with the Pareto front as a line; log scale if costs differ much."""
    best = snapshot.best
    front_indices = find_pareto_front([(cost, tap_cost.accuracy) for cost, tap_cost in zip(prices, tap_costs, strict=True)])
    values = []
    for index, (cost, tap_cost) in enumerate(zip(prices, tap_costs, strict=True)):
        is_chosen = best is not None and tap_cost.tap_refs == best.tap_refs
        role = _CHOSEN if is_chosen else _ON_FRONT if index in front_indices else _DOMINATED
        description = (
            f"{_format_taps(tap_cost.tap_refs)}; accuracy {wording.format_percent(tap_cost.accuracy)}; "
            f"{cost_label} {cost:.4g}; {tap_cost.trial.head}; {role}"
        )
        values.append(
            {"cost": cost, "accuracy": tap_cost.accuracy, "role": role, "label": description, "size": _MARK_STYLES[role][1]}
        )
    lowest, highest = min(prices), max(prices)
    is_log = lowest > 0 and highest / lowest > 8
    scale = {"type": "log", "nice": False, "padding": 14} if is_log else {"zero": False, "padding": 14}
    x = {
        "field": "cost",
        "type": "quantitative",
        "scale": scale,
        "axis": {"title": cost_label, "format": "~r", "tickCount": 6},
    }
    y = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"zero": False},
        "axis": {"title": "held-out accuracy", **wording.build_share_axis([tap_cost.accuracy for tap_cost in tap_costs])},
    }
    roles = [role for role in (_CHOSEN, _ON_FRONT, _DOMINATED) if any(value["role"] == role for value in values)]
    field = {"field": "role", "type": "nominal", "title": None}
    point_layer = {
        "mark": {"type": "point"},
        "encoding": {
            "x": x,
            "y": y,
            "color": {**field, "scale": {"domain": roles, "range": [_MARK_STYLES[role][2] for role in roles]}},
            "shape": {**field, "scale": {"domain": roles, "range": [_MARK_STYLES[role][0] for role in roles]}},
            "size": {"field": "size", "type": "quantitative", "scale": None, "legend": None},
            "description": {"field": "label", "type": "nominal"},
        },
    }
    line_layer = {
        "data": {"values": [values[index] for index in front_indices]},
        "mark": {"type": "line", "interpolate": "step-after", "color": "#0072b2", "opacity": 0.6},
        "encoding": {"x": x, "y": y},
    }
    cells = [
        [_format_taps(tap_cost.tap_refs), cost, tap_cost.accuracy, index in front_indices]
        for index, (cost, tap_cost) in enumerate(zip(prices, tap_costs, strict=True))
    ]
    title = f"Accuracy by {'latency' if 'latency' in cost_label else 'multiply-adds'}; the line is the Pareto front"
    table = Table(title, ["taps", cost_label, "accuracy", "on the Pareto front"], cells, digits=4, sortable=True)
    return Chart(title, {"data": {"values": values}, "layer": [line_layer, point_layer]}, table)


def _build_table(tap_costs: Sequence[Cost]) -> Table:
    has_timings = any(tap_cost.seconds_per_image is not None for tap_cost in tap_costs)
    header = ["taps", "accuracy", "bytes per image", "depth", "multiply-adds (million)", "parameters", "training (s)"]
    header += (
        ["latency (ms per image)", f"latency (ms per batch of {latency.BATCH_SIZE})", "images per second"]
        if has_timings
        else []
    )
    cells = []
    for tap_cost in tap_costs:
        multiply_adds_in_millions = None if tap_cost.multiply_adds is None else round(tap_cost.multiply_adds / _MILLION, 1)
        row: list[Any] = [
            _format_taps(tap_cost.tap_refs),
            tap_cost.accuracy,
            tap_cost.bytes_per_image,
            tap_cost.depth,
            multiply_adds_in_millions,
            tap_cost.parameters,
            tap_cost.training_seconds,
        ]
        if has_timings:
            image_seconds, batch_seconds = tap_cost.seconds_per_image, tap_cost.seconds_per_batch
            row += [
                None if image_seconds is None else 1000 * image_seconds,
                None if batch_seconds is None else 1000 * batch_seconds,
            ]
            row += [None if not batch_seconds else round(latency.BATCH_SIZE / batch_seconds)]
        cells.append(row)
    return Table("Cost of each set of taps", header, cells, sortable=True)
