"""The gain from pretraining: learning curves with the pretrained weights and with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....cache.errors import HumerisError
from ....cache.spec import ExtractionSpec
from ....extract.backbones.tap_ref import TapRef
from ....extract.pixels.read_file import count_cores
from ...data import group_sampling
from ...diagnose.count_sketch import count_readable_rows
from ...diagnose.learning_curve import Asymptote, Curve, compute_learning_curve, fit_asymptote
from ...diagnose.random_baseline import choose_quick_head, find_random_init_twin, is_quick
from ...evaluate.trial import Trial
from ...runs.image_records import ImageRecord
from .. import winner_features, wording
from ..blocks import Chart, Command, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

MAX_IMAGES, WIDE_COLUMNS, MAX_WIDE_IMAGES = 5000, 1500, 2000  # at most; `MAX_WIDE_IMAGES` with more than `WIDE_COLUMNS`
# With many classes more images are needed, so that the small subsets have two of each class.
IMAGES_PER_CLASS, MAX_IMAGES_OF_MANY_CLASSES = 20, 8000
_OWN_WEIGHTS, _RANDOM_WEIGHTS = "pretrained weights", "random weights"
_MIN_DIFFERENCE = 0.005  # of accuracy


@dataclass(frozen=True)
class _CurveImages:
    """The images of a learning curve, with their class indices (n,) and group indices (n,)."""

    records: tuple[ImageRecord, ...]
    labels: np.ndarray
    groups: np.ndarray
    n_total: int


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: learning curves of a head on the winner's taps, with pretrained and with random weights."""
    return Section("pretraining", "Gain from pretraining", _build_parts(snapshot))


def _build_parts(snapshot: RunSnapshot) -> list[Part]:
    best = snapshot.best
    try:
        images, own_features = _load_own_features(snapshot)
    except winner_features.FeaturesUnavailable as error:
        return error.parts
    assert best is not None  # else there would be no features
    head, hyperparameters, head_note = _choose_head(snapshot, best)
    arguments = (images.labels, images.groups, snapshot.target, head, hyperparameters, count_cores())
    own_weights = _name_weights(snapshot, best)
    curves = {own_weights: compute_learning_curve(own_features, *arguments)}
    if not curves[own_weights].accuracy.size:
        count_note = (
            f"{images.n_total} images" if len(images.records) == images.n_total else f"{len(images.records)} sampled images"
        )
        return [
            Text(
                f"No learning curve: {count_note} are too few for {len(snapshot.class_names)} classes.",
                "missing",
            )
        ]
    random_tap_refs, substitute_parts = _find_random_init_taps(snapshot, best, images)
    if random_tap_refs is not None:
        curves[_RANDOM_WEIGHTS] = compute_learning_curve(
            winner_features.load_features(snapshot, images.records, random_tap_refs), *arguments
        )
    sample_note = (
        "" if len(images.records) == images.n_total else f" (a stratified sample of {len(images.records)}, to save time)"
    )
    asymptotes = {name: fit_asymptote(learning_curve) for name, learning_curve in curves.items()}
    head_name = wording.format_head(head)
    options = ", ".join(f"{name}={value}" for name, value in hyperparameters.items())
    options_note = f" ({options})" if options else ""
    n_draws = len(curves[own_weights].starts)
    introduction = (
        f"{head_name[:1].upper()}{head_name[1:]}{options_note}{head_note} on the winner's taps, trained on increasing "
        f"numbers of the {images.n_total} images outside the test split{sample_note}. Each point is the mean accuracy of "
        f"{n_draws} random draws on a held-out fifth of these images; the band spans the lowest to the highest. The "
        "asymptote a is extrapolated from a power law fitted to the points (accuracy = a - b n^-c)."
    )
    parts: list[Part] = [Text(introduction), _build_chart(curves, images.labels), _build_table(curves, asymptotes)]
    if random_tap_refs is not None:
        comparison = compare_curves(
            curves[own_weights], curves[_RANDOM_WEIGHTS], asymptotes[own_weights], asymptotes[_RANDOM_WEIGHTS]
        )
        bias_note = "Taps and hyperparameters were selected for the pretrained weights, which biases this in their favor."
        parts.append(Text(f"{comparison} {bias_note}"))
    return [*parts, *substitute_parts]


def _name_weights(snapshot: RunSnapshot, best: Trial) -> str:
    specs = {} if snapshot.metadata is None else snapshot.metadata.specs
    extractions = {tap_ref.extraction for tap_ref in best.tap_refs}
    is_random = all(name in specs and specs[name].has_random_weights for name in extractions)
    return _RANDOM_WEIGHTS if is_random else _OWN_WEIGHTS


def _load_own_features(snapshot: RunSnapshot) -> tuple[_CurveImages, Any]:
    """Return the images of the curves and their features at the winner's taps; raise `FeaturesUnavailable` without them."""
    development_records = tuple(snapshot.select_labeled([each for each in snapshot.images if each.split != "test"]))
    all_features = winner_features.load_features(snapshot, development_records)
    labels = snapshot.encode_labels(development_records)
    groups = group_sampling.encode_groups([record.group for record in development_records])
    max_images = max(
        MAX_IMAGES if all_features.shape[1] <= WIDE_COLUMNS else MAX_WIDE_IMAGES,
        min(IMAGES_PER_CLASS * len(snapshot.class_names), MAX_IMAGES_OF_MANY_CLASSES),
    )
    max_rows = count_readable_rows(all_features, max_images)
    sampled_rows = group_sampling.sample(labels, groups, max_rows, 0)
    records = tuple(development_records[row] for row in sampled_rows.tolist())
    images = _CurveImages(
        records,
        labels[sampled_rows],
        group_sampling.encode_groups([record.group for record in records]),
        len(development_records),
    )
    return images, winner_features.load_features(snapshot, records)


def _choose_head(snapshot: RunSnapshot, best: Trial) -> tuple[str, Mapping[str, Any], str]:
    """Return the head of the curves, its hyperparameters and a note: the winner's head, or one that trains in seconds."""
    head, hyperparameters = choose_quick_head(snapshot.ranked_trials, best)
    if is_quick(best.head):
        return head, hyperparameters, ", the winner's head,"
    return head, hyperparameters, f", which trains faster than {wording.format_head(best.head)}, the winner's head,"


def _find_random_init_taps(
    snapshot: RunSnapshot, best: Trial, images: _CurveImages
) -> tuple[tuple[TapRef, ...] | None, list[Part]]:
    """Return the winner's taps of the same networks with random weights; else None, and parts that say why."""
    known_specs = {} if snapshot.metadata is None else snapshot.metadata.specs
    specs = {name: known_specs[name] for name in {tap_ref.extraction for tap_ref in best.tap_refs} & known_specs.keys()}
    if any(tap_ref.extraction not in specs for tap_ref in best.tap_refs):
        return None, [Text("No comparison with random weights: how the features were extracted is unknown.", "missing")]
    if all(spec.has_random_weights for spec in specs.values()):
        return None, [Text("No comparison: the winner's own backbone has random weights.")]
    random_init_twins = {name: _find_random_init_twin(snapshot, spec) for name, spec in specs.items()}
    tap_refs = tuple(replace(tap_ref, extraction=random_init_twins[tap_ref.extraction] or "") for tap_ref in best.tap_refs)
    if all(random_init_twins.values()):
        try:
            winner_features.load_features(snapshot, images.records, tap_refs)
        except winner_features.FeaturesUnavailable:
            pass
        else:
            return tap_refs, []
    line = winner_features.format_extract_command(snapshot, best.tap_refs, "random")
    if not line:
        reason = "a network or features from a file have no counterpart with random weights"
        return None, [Text(f"No comparison with random weights: {reason}.")]
    message = "The cache has no features of the same taps with random weights."
    return None, [Text(f"{message} To compare, extract them, then write the report again:"), Command(line)]


def _find_random_init_twin(snapshot: RunSnapshot, spec: ExtractionSpec) -> str | None:
    """Return the folder of the extraction that differs from `spec` only in having random weights; None without one."""
    if snapshot.store is None:
        return None
    try:
        return find_random_init_twin(snapshot.store, spec)
    except (HumerisError, OSError):
        return None


def compare_curves(
    own_curve: Curve, random_curve: Curve, own_asymptote: Asymptote | None, random_asymptote: Asymptote | None
) -> str:
    """Describe how two learning curves differ in start, slope and asymptote.

    A start or slope counts as different if it is so in every draw and by half a point on average, an asymptote if the
    difference exceeds the two margins together.

    Parameters
    ----------
    own_curve, random_curve : Curve
        With the pretrained weights and with random weights.
    own_asymptote, random_asymptote : Asymptote or None
        None where the power law could not be fitted.

    Returns
    -------
    sentence : str

    References
    ----------
    Torrey and Shavlik, "Transfer learning", 2010: a higher start, slope and asymptote are the three gains of transfer.
    """
    n_images = int(own_curve.sizes[0])
    starts = f"{_format_mean(own_curve.starts)} vs {_format_mean(random_curve.starts)}"
    slopes = f"{_format_points(own_curve.slopes)} vs {_format_points(random_curve.slopes)}"
    findings = [
        f"{_describe_difference(own_curve.starts - random_curve.starts, 'start')} ({starts} with {n_images} images)",
        f"{_describe_difference(own_curve.slopes - random_curve.slopes, 'slope')} ({slopes} points per doubling)",
    ]
    if own_asymptote is None or random_asymptote is None:
        findings.append("an unknown difference in asymptote (it could not be fitted to both curves)")
    else:
        difference = own_asymptote.accuracy - random_asymptote.accuracy
        is_clear = abs(difference) > own_asymptote.margin + random_asymptote.margin
        verdict = ("a higher" if difference > 0 else "a lower") if is_clear else "no clear difference in"
        findings.append(f"{verdict} asymptote ({_format_asymptote(own_asymptote)} vs {_format_asymptote(random_asymptote)})")
    return f"Compared with random weights, pretrained weights give {findings[0]}, {findings[1]}, and {findings[2]}."


def _describe_difference(differences: np.ndarray, name: str) -> str:
    if np.isfinite(differences).all() and abs(float(differences.mean())) >= _MIN_DIFFERENCE:
        if (differences > 0).all():
            return f"a higher {name}"
        if (differences < 0).all():
            return f"a lower {name}"
    return f"no clear difference in {name}"


def _format_mean(values: np.ndarray) -> str:
    return wording.format_percent(float(values.mean()))


def _format_points(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f}" if np.isfinite(values).all() else "unknown"


def _format_asymptote(fitted_asymptote: Asymptote | None) -> str:
    return (
        "not fitted"
        if fitted_asymptote is None
        else f"{100 * fitted_asymptote.accuracy:.1f} ± {wording.format_percent(fitted_asymptote.margin)}"
    )


def _build_table(curves: Mapping[str, Curve], asymptotes: Mapping[str, Asymptote | None]) -> Table:
    header = ["weights", "accuracy at start", "slope (points per doubling)", "accuracy at end", "asymptote (95 % CI)"]
    cells = [
        [
            name,
            _format_mean(learning_curve.starts),
            _format_points(learning_curve.slopes),
            _format_mean(learning_curve.accuracy[-1]),
            _format_asymptote(asymptotes[name]),
        ]
        for name, learning_curve in curves.items()
    ]
    return Table("Start, slope of the first doublings, end and asymptote of the learning curves", header, cells)


def _build_chart(curves: Mapping[str, Curve], labels: np.ndarray) -> Chart:
    """Build the chart of accuracy by number of images on a log axis: a line per curve with a band of its draws."""
    values: list[dict[str, Any]] = []
    cells: list[Sequence[Any]] = []
    for weights_name, learning_curve in curves.items():
        for size, scores in zip(learning_curve.sizes.tolist(), learning_curve.accuracy, strict=True):
            low, mean, high = float(scores.min()), float(scores.mean()), float(scores.max())
            label = (
                f"{weights_name}; {size:.0f} images: {wording.format_percent(mean)} ({wording.format_interval((low, high))})"
            )
            values.append(
                {"images": size, "accuracy": mean, "low": low, "high": high, "weights": weights_name, "label": label}
            )
            cells.append([weights_name, round(size), mean, low, high])
    chance_accuracy = float(np.bincount(labels).max() / len(labels))
    sizes = sorted({value["images"] for value in values})
    x = {
        "field": "images",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False, "padding": 12},
        "axis": {"title": "training images", "values": sizes, "format": ",.0f"},
    }
    y = {"type": "quantitative", "scale": {"zero": False}, "axis": {"format": ".0%", "title": "accuracy on held-out images"}}
    color: dict[str, Any] = {"field": "weights", "type": "nominal", "title": None, "scale": {"domain": list(curves)}}
    if len(curves) == 1:
        color["legend"] = None
    chance_datum = {
        "label": f"majority class: {wording.format_percent(chance_accuracy)}",
        "accuracy": chance_accuracy,
    }
    spec = {
        "data": {"values": values},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.2, "aria": False},
                "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": color},
            },
            {"mark": {"type": "line"}, "encoding": {"x": x, "y": {"field": "accuracy", **y}, "color": color}},
            {
                "mark": {"type": "point"},
                "encoding": {
                    "x": x,
                    "y": {"field": "accuracy", **y},
                    "color": color,
                    "description": {"field": "label", "type": "nominal"},
                },
            },
            {
                "data": {"values": [chance_datum]},
                "mark": {"type": "rule", "strokeDash": [4, 4], "opacity": 0.6},
                "encoding": {"y": {"field": "accuracy", **y}, "description": {"field": "label", "type": "nominal"}},
            },
        ],
    }
    caption = "Accuracy by number of training images; the dashed line is the majority-class accuracy"
    return Chart(caption, spec, Table(caption, ["weights", "images", "accuracy", "lowest", "highest"], cells))
