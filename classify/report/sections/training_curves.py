"""Training and held-out accuracy of the winner, scores by hyperparameter, and training curves by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....cache.errors import HumerisError
from ...evaluate.confidence_intervals import wilson_ci
from ...evaluate.trial import Score, Trial
from ...runs.run import Run
from .. import winner_features as rows
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot
from .depth import count_selection_images

LARGE_GAP = 0.1  # training accuracy minus validation accuracy
LARGE_RISE = 0.1  # of the validation loss above its minimum, relative to the minimum
_MAX_FIT_IMAGES = 5000  # training images that the winner predicts
_MAX_TRAININGS = 3  # trials whose curves are drawn
_MAX_SERIES = 6  # lines in one chart
_MAX_TICKS = 9  # values up to which each has a tick
_MIN_LOG_RATIO = 10  # largest over smallest value from which the axis is logarithmic
_WIDTH, _HEIGHT = 400, 260
_NUMBER_FORMAT = "format(datum.value, datum.value >= 1e4 || datum.value < 1e-3 ? '~e' : '~g')"
_TRAIN_LINE, _VALIDATION_LINE = "training images", "held-out images"


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: the fit of the winner, scores by C, alpha, … of each head at its best tap, and training curves."""
    parts = [*_build_training_fit(snapshot), *_build_regularization(snapshot), *_build_learning_curves(snapshot)]
    reason = "no hyperparameter was tried with three or more values, and no head was trained by epochs"
    return Section("curves", "Training curves", parts or [Text(f"No curves: {reason}.")])


def _build_training_fit(snapshot: RunSnapshot) -> Iterator[Part]:
    """Compare the winner's accuracy on training images with that on held-out images; nothing if the former is unknown."""
    best = snapshot.best
    train_records = snapshot.select_labeled([record for record in snapshot.images if record.split != "test"])
    if best is None or not train_records:
        return
    train_records = train_records[:: math.ceil(len(train_records) / _MAX_FIT_IMAGES)]
    try:
        head = Run(snapshot.path).load_head(best)
        probabilities = None if head is None else head.predict_proba(rows.load_features(snapshot, train_records))
    except (rows.FeaturesUnavailable, HumerisError, ValueError):  # sections that need features say which are missing
        return
    if probabilities is None:
        return
    train_accuracy = float(snapshot.target.find_correct(snapshot.encode_labels(train_records), probabilities).mean())
    gap = train_accuracy - snapshot.scores[best].accuracy
    comparison = (
        f"Accuracy of the winner: {wording.format_percent(train_accuracy)} on {len(train_records)} training images, "
        f"{wording.format_percent(snapshot.scores[best].accuracy)} on held-out images, a gap of {100 * gap:.1f} points"
    )
    advice = "the head overfits. Stronger regularization, more images or augmented views may help."
    if gap > LARGE_GAP:
        yield Text(f"{comparison}, which is large (more than {100 * LARGE_GAP:.0f}): {advice}", "warning")
    else:
        yield Text(f"{comparison}.")


def _build_regularization(snapshot: RunSnapshot) -> Iterator[Part]:
    heads = list(dict.fromkeys(trial.head for trial in snapshot.ranked_trials))
    parts = [part for head in heads for part in _build_head_charts(snapshot, head)]
    if parts:
        yield Text(
            "Held-out scores of each head at its best tap, by hyperparameter. The trial with the lowest log-loss is ringed. "
            "Scores on training images are not stored with the trials."
        )
    yield from parts


def _build_head_charts(snapshot: RunSnapshot, head: str) -> Iterator[Part]:
    """Build two charts of one head, and a note if its best value is the smallest or largest tried."""
    best = next(trial for trial in snapshot.ranked_trials if trial.head == head)
    trials = [trial for trial in snapshot.scores if (trial.head, trial.tap_refs) == (head, best.tap_refs)]
    name = _choose_axis(trials)
    if name is None or any("curves" in snapshot.scores[trial].fit_info for trial in trials):
        return
    trials = sorted(
        (trial for trial in trials if _is_number(trial.hyperparameters.get(name))),
        key=lambda trial: trial.hyperparameters[name],
    )
    values = [_build_datum(snapshot, trial, name, best) for trial in trials]
    kept_lines = list(dict.fromkeys(value["line"] for value in sorted(values, key=lambda value: value["log_loss"])))[
        :_MAX_SERIES
    ]
    shown_values = [value for value in values if value["line"] in kept_lines]
    title = f"{head} at {wording.format_taps(best.tap_refs, False)}"
    table = _build_hyperparameter_table(snapshot, trials, f"Hyperparameters of {head} at its best tap")
    yield Chart(f"{title}: accuracy by {name}", _build_score_spec(shown_values, name, "accuracy", "accuracy"), table)
    yield Chart(f"{title}: log-loss by {name}", _build_score_spec(shown_values, name, "log_loss", "log-loss"))
    numbers = sorted({trial.hyperparameters[name] for trial in trials})
    if best.hyperparameters.get(name) in (numbers[0], numbers[-1]) and len(numbers) > 2:
        end, comparative = ("smallest", "smaller") if best.hyperparameters[name] == numbers[0] else ("largest", "larger")
        yield Text(
            f"The best {name} of {head} is the {end} value tried, {_format_end(numbers, end)}: {comparative} values may be "
            "better."
        )


def _format_end(numbers: Sequence[float], end: str) -> str:
    return f"{numbers[0] if end == 'smallest' else numbers[-1]:g}"


def _choose_axis(trials: Sequence[Trial]) -> str | None:
    """Return the numeric hyperparameter with the most values, if it has at least three."""
    names = list(trials[0].hyperparameters)
    values = {
        name: {trial.hyperparameters.get(name) for trial in trials if _is_number(trial.hyperparameters.get(name))}
        for name in names
    }
    best = max(names, key=lambda name: len(values[name]), default=None)
    return best if best is not None and len(values[best]) > 2 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _build_datum(snapshot: RunSnapshot, trial: Trial, name: str, best: Trial) -> dict[str, Any]:
    score = snapshot.scores[trial]
    low, high = _compute_interval(snapshot, score)
    label = (
        f"{wording.format_hyperparameters(trial)}; accuracy {wording.format_percent(score.accuracy)}; log-loss "
        f"{score.log_loss:.3f}"
    )
    return {
        "x": trial.hyperparameters[name],
        "line": ", ".join(f"{option}={value}" for option, value in trial.hyperparameters.items() if option != name) or "all",
        "accuracy": score.accuracy,
        "log_loss": score.log_loss,
        "low": low,
        "high": high,
        "best": trial.id == best.id,
        "label": label,
    }


def _compute_interval(snapshot: RunSnapshot, score: Score) -> tuple[float, float]:
    n_images = count_selection_images(snapshot)
    return wilson_ci(round(score.accuracy * n_images), n_images) if n_images else (score.accuracy, score.accuracy)


def _build_score_spec(values: Sequence[Mapping[str, Any]], name: str, field: str, title: str) -> dict[str, Any]:
    """Build the Vega-Lite chart of a score by one hyperparameter, one line per combination of the others."""
    numbers = [value["x"] for value in values]
    is_log = min(numbers) > 0 and max(numbers) / min(numbers) >= _MIN_LOG_RATIO
    lines = list(dict.fromkeys(value["line"] for value in values))
    axis = {"labelExpr": _NUMBER_FORMAT, "title": name, "values": _choose_ticks(numbers, is_log), "labelOverlap": True}
    x = {"field": "x", "type": "quantitative", "scale": {"type": "log" if is_log else "linear", "nice": False}, "axis": axis}
    y: dict[str, Any] = {"field": field, "type": "quantitative", "scale": {"zero": False}, "title": title}
    if field == "accuracy":
        y["axis"] = wording.build_share_axis(value["accuracy"] for value in values)
    color: dict[str, Any] = {"field": "line", "type": "nominal", "scale": {"domain": lines}, "title": None}
    color |= {"legend": None} if len(lines) == 1 else {"legend": {"columns": 2}}
    ring = {"type": "point", "filled": False, "size": 220, "strokeWidth": 2, "color": "currentColor", "aria": False}
    whiskers = {
        "mark": {"type": "rule", "opacity": 0.35, "strokeWidth": 1.5, "aria": False},
        "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    return {
        "width": _WIDTH,
        "height": _HEIGHT + 22 * ((len(lines) + 1) // 2 if len(lines) > 1 else 0),
        "data": {"values": [dict(value) for value in values]},
        "encoding": {"x": x, "color": color},
        "layer": [
            *([whiskers] if field == "accuracy" and len(lines) < 3 else []),
            {"mark": "line", "encoding": {"y": y}},
            {"mark": "point", "encoding": {"y": y, "description": {"field": "label", "type": "nominal"}}},
            {
                "transform": [{"filter": "datum.best"}],
                "mark": ring,
                "encoding": {"y": y, "color": {"value": "currentColor"}},
            },
        ],
    }


def _choose_ticks(numbers: Sequence[float], is_log: bool) -> list[float]:
    """Return the values tried if they fit, else powers of ten or every fourth value."""
    distinct_values = sorted(set(numbers))
    if len(distinct_values) <= _MAX_TICKS:
        return distinct_values
    first_power, last_power = (
        (math.floor(math.log10(value)) for value in (distinct_values[0], distinct_values[-1])) if is_log else (0, 0)
    )
    return (
        [
            10.0**power
            for power in range(first_power, last_power + 2)
            if distinct_values[0] <= 10.0**power <= distinct_values[-1]
        ]
        if is_log
        else distinct_values[::4]
    )


def _build_hyperparameter_table(snapshot: RunSnapshot, trials: Sequence[Trial], caption: str) -> Table:
    cells = []
    for trial in trials:
        score = snapshot.scores[trial]
        values = [f"{value:g}" if isinstance(value, float) else value for value in trial.hyperparameters.values()]
        cells.append([trial.id, *values, score.accuracy, *_compute_interval(snapshot, score), score.log_loss])
    header = ["trial", *trials[0].hyperparameters, "accuracy", "95 % CI low", "95 % CI high", "log-loss"]
    return Table(caption, header, cells, digits=4, sortable=True)


def _build_learning_curves(snapshot: RunSnapshot) -> Iterator[Part]:
    """Build the training curves of the best trials that have some, each with notes on overfitting."""
    trained_trials = [trial for trial in snapshot.ranked_trials if snapshot.scores[trial].fit_info.get("curves")]
    for trial in trained_trials[:_MAX_TRAININGS]:
        fit_info = snapshot.scores[trial].fit_info
        curves, epoch = fit_info["curves"], int(fit_info["epochs"])
        trial_name = f"{trial.head} at {wording.format_taps(trial.tap_refs, False)}, trial {trial.id}"
        # Without a training accuracy (triplet, supcon) the training loss is over pairs of images, on another scale.
        has_accuracies = {"accuracy", "val_accuracy"} <= set(curves)
        loss_names = ("loss" if has_accuracies else "", "val_loss")
        yield Chart(
            f"{trial_name}: log-loss by epoch",
            _build_epoch_spec(curves, loss_names, epoch, "log-loss"),
            _build_epoch_table(curves),
        )
        if "val_accuracy" in curves:
            accuracy_names = ("accuracy", "val_accuracy")
            yield Chart(f"{trial_name}: accuracy by epoch", _build_epoch_spec(curves, accuracy_names, epoch, "accuracy"))
        yield from describe_learning_curve(curves, epoch)
    if len(trained_trials) > _MAX_TRAININGS:
        yield Text(f"Training curves of the best {_MAX_TRAININGS} of {len(trained_trials)} trials are shown.")


def describe_learning_curve(curves: Mapping[str, Sequence[float]], epoch: int) -> list[Text]:
    """Describe convergence and overfitting in a training curve.

    Parameters
    ----------
    curves : mapping of str to sequence of float
        `val_loss`, and `loss`, `accuracy` and `val_accuracy` if known, one value per epoch.
    epoch : int
        The epoch whose weights were kept, counted from 1.

    Returns
    -------
    paragraphs : list of Text
    """
    val_loss = curves["val_loss"]
    n_epochs = len(val_loss)
    best_note = f"Epoch {epoch} of {n_epochs} was kept, as its held-out loss is the lowest."
    falling_note = " The loss was still falling: more epochs may help." if epoch == n_epochs else ""
    paragraphs = [Text(best_note + falling_note)]
    rise = val_loss[-1] / val_loss[epoch - 1] - 1 if val_loss[epoch - 1] > 0 else 0.0
    if rise > LARGE_RISE:
        paragraphs.append(
            Text(
                f"The held-out loss rises by {wording.format_percent(rise, 0)} until epoch {n_epochs}, which is large (more "
                f"than {wording.format_percent(LARGE_RISE, 0)}): the head overfits after epoch {epoch}, whose weights are "
                "used.",
                "warning",
            )
        )
    if {"accuracy", "val_accuracy"} <= set(curves):
        gap, val_accuracy = _compute_gap(curves, epoch), curves["val_accuracy"][epoch - 1]
        train_accuracy = curves["accuracy"][epoch - 1]
        if gap > LARGE_GAP:
            paragraphs.append(
                Text(
                    f"The gap between training and validation accuracy is large (more than {100 * LARGE_GAP:.0f} points): "
                    f"at epoch {epoch} accuracy is {wording.format_percent(train_accuracy)} on training images and "
                    f"{wording.format_percent(val_accuracy)} on held-out images. More images, augmented views (--views), "
                    "dropout or a smaller head may reduce it.",
                    "warning",
                )
            )
        elif (gap_at_end := _compute_gap(curves, n_epochs)) > LARGE_GAP:
            paragraphs.append(
                Text(
                    f"The gap between training and validation accuracy is {100 * gap:.0f} points at epoch {epoch} and "
                    f"{100 * gap_at_end:.0f} points at the last epoch.",
                    "warning",
                )
            )
    return paragraphs


def _compute_gap(curves: Mapping[str, Sequence[float]], epoch: int) -> float:
    return float(curves["accuracy"][epoch - 1] - curves["val_accuracy"][epoch - 1])


def _build_epoch_spec(
    curves: Mapping[str, Sequence[float]], names: tuple[str, str], epoch: int, title: str
) -> dict[str, Any]:
    """Build the Vega-Lite chart of one metric on training and held-out images, with the kept epoch marked."""
    lines = {_TRAIN_LINE: names[0], _VALIDATION_LINE: names[1]}
    values = [
        {"epoch": number, "value": value, "line": line, "label": f"epoch {number}, {line}; {title} {value:.3f}"}
        for line, name in lines.items()
        for number, value in enumerate(curves.get(name, ()), start=1)
    ]
    colors = {_TRAIN_LINE: "#e69f00", _VALIDATION_LINE: "#0072b2"}
    shown_lines = [line for line, name in lines.items() if curves.get(name)]
    n_epochs = max(2, len(curves["val_loss"]))
    axis = {"format": "d", "tickMinStep": 1}
    x = {"field": "epoch", "type": "quantitative", "axis": axis, "scale": {"domain": [1, n_epochs]}}
    y: dict[str, Any] = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False}}
    if title == "accuracy":
        y["axis"] = wording.build_share_axis(value for name in names for value in curves.get(name, ()))
    color = {
        "field": "line",
        "type": "nominal",
        "title": None,
        "scale": {"domain": shown_lines, "range": [colors[line] for line in shown_lines]},
    }
    kept_epoch = {"data": {"values": [{"epoch": epoch, "word": f"kept: {epoch}"}]}}
    rule = {"type": "rule", "strokeDash": [4, 3], "color": "currentColor", "opacity": 0.7, "aria": False}
    word: dict[str, Any] = {"type": "text", "align": "left", "dx": 5, "fontWeight": 600, "aria": False}
    word |= {"y": "height", "dy": -10} if title == "accuracy" else {"y": 8}  # away from the curves
    is_right = epoch > 0.75 * len(curves["val_loss"])
    word |= {"align": "right", "dx": -5} if is_right else {}
    return {
        "width": _WIDTH,
        "height": _HEIGHT + 22,
        "data": {"values": values},
        "layer": [
            {**kept_epoch, "mark": rule, "encoding": {"x": x}},
            {**kept_epoch, "mark": word, "encoding": {"x": x, "text": {"field": "word"}}},
            {"mark": "line", "encoding": {"x": x, "y": y, "color": color}},
            {
                "mark": {"type": "point", "size": 25},
                "encoding": {"x": x, "y": y, "color": color, "description": {"field": "label", "type": "nominal"}},
            },
        ],
    }


def _build_epoch_table(curves: Mapping[str, Sequence[float]]) -> Table:
    names = [name for name in ("loss", "val_loss", "accuracy", "val_accuracy") if name in curves]
    rows = [[number, *values] for number, values in enumerate(zip(*(curves[name] for name in names), strict=True), start=1)]
    return Table("Training curve", ["epoch", *names], rows, digits=4)
