"""How heads did along what was varied in them, and how the training of the best networks went, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....cache.errors import HumerisError
from ...evaluate.confidence_intervals import wilson
from ...evaluate.trial import Score, Trial
from ...runs.run import Run
from .. import winner_features as rows
from .. import wording
from ..blocks import Chart, Part, Section, Table, Text
from ..run_snapshot import Evidence
from .depth import chosen_by

LARGE_GAP = 0.1  # of training accuracy over validation accuracy
LARGE_RISE = 0.1  # of the validation loss over its lowest, as a share of it
_FITTED = 5000  # images that the winner is asked about again
_TRAININGS = 3  # whose curves are drawn
_SERIES = 6  # lines in one chart
_TICKS = 9  # values that are named one by one
_LOG_SPAN = 10  # from which the axis is logarithmic
_WIDTH, _HEIGHT = 400, 260
_NUMBER = "format(datum.value, datum.value >= 1e4 || datum.value < 1e-3 ? '~e' : '~g')"
_LEARNT, _HELD_OUT = "images it learnt from", "images held out"


def section(evidence: Evidence) -> Section:
    """Scores against C, alpha and the like for each head at its best tap, then learning curves of the best networks."""
    return Section("curves", "Settings and training", [*_fit(evidence), *_regularisation(evidence), *_trainings(evidence)])


def _fit(evidence: Evidence) -> Iterator[Part]:
    """How well the winner answers the images that it learnt from, beside those held out; nothing where that is not known."""
    best = evidence.best
    number = {name: place for place, name in enumerate(evidence.classes)}
    learnt = [record for record in evidence.images if record.split != "test" and record.label in number]
    if best is None or not learnt:
        return
    learnt = learnt[:: math.ceil(len(learnt) / _FITTED)]
    try:
        head = Run(evidence.path, evidence.description).head(best)
        answers = None if head is None else head.predict_proba(rows.matrix(evidence, learnt))
    except (rows.Lacking, HumerisError, ValueError):  # the sections of what needs features say which are missing
        return
    if answers is None:
        return
    fitted = float((answers.argmax(axis=1) == [number[record.label] for record in learnt]).mean())
    gap = fitted - evidence.scores[best].accuracy
    words = (
        f"The winner answers {wording.percent(fitted)} of {len(learnt)} images it learnt from rightly, and "
        f"{wording.percent(evidence.scores[best].accuracy)} of images held out: a gap of {100 * gap:.1f} points"
    )
    large = (
        f", which is large (more than {100 * LARGE_GAP:.0f}): it overfits. Stronger regularisation, more images or views "
    )
    yield Text(
        f"{words}{large}of them may help." if gap > LARGE_GAP else f"{words}.", "warning" if gap > LARGE_GAP else "words"
    )


def _regularisation(evidence: Evidence) -> Iterator[Part]:
    heads = list(dict.fromkeys(trial.head for trial in evidence.ranked))
    drawn = [part for head in heads for part in _of_head(evidence, head)]
    if drawn:
        yield Text(
            "Each head at its best tap, by what was varied in it; the best setting, by log-loss, is ringed. How well a "
            "setting but the winner's fits the images it learnt from is not kept: all scores here are of images held out."
        )
    yield from drawn


def _of_head(evidence: Evidence, head: str) -> Iterator[Part]:
    """Two charts of one head, and whether its best setting lies at the end of what was tried."""
    best = next(trial for trial in evidence.ranked if trial.head == head)
    tried = [trial for trial in evidence.scores if (trial.head, trial.sources) == (head, best.sources)]
    name = _axis(tried)
    if name is None or any("curves" in evidence.scores[trial].detail for trial in tried):
        return
    tried = sorted((trial for trial in tried if _is_number(trial.setting.get(name))), key=lambda trial: trial.setting[name])
    values = [_value(evidence, trial, name, best) for trial in tried]
    kept = list(dict.fromkeys(value["line"] for value in sorted(values, key=lambda value: value["log_loss"])))[:_SERIES]
    shown = [value for value in values if value["line"] in kept]
    where = f"{head} at {wording.taps(best.sources, False)}"
    table = _settings(evidence, tried, f"The settings of {head} at its best tap")
    yield Chart(f"{where}: accuracy by {name}", _against(shown, name, "accuracy", "accuracy"), table)
    yield Chart(f"{where}: log-loss by {name}", _against(shown, name, "log_loss", "log-loss"))
    numbers = sorted({trial.setting[name] for trial in tried})
    if best.setting.get(name) in (numbers[0], numbers[-1]) and len(numbers) > 2:
        end, more = ("smallest", "smaller") if best.setting[name] == numbers[0] else ("largest", "larger")
        yield Text(
            f"The best {name} of {head} is the {end} that was tried, {_short(numbers, end)}: {more} ones may be better."
        )


def _short(numbers: Sequence[float], end: str) -> str:
    return f"{numbers[0] if end == 'smallest' else numbers[-1]:g}"


def _axis(tried: Sequence[Trial]) -> str | None:
    """The number that was tried in most values, if there are three."""
    names = list(tried[0].setting)
    values = {name: {trial.setting.get(name) for trial in tried if _is_number(trial.setting.get(name))} for name in names}
    best = max(names, key=lambda name: len(values[name]), default=None)
    return best if best is not None and len(values[best]) > 2 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(evidence: Evidence, trial: Trial, name: str, best: Trial) -> dict[str, Any]:
    score = evidence.scores[trial]
    low, high = _interval(evidence, score)
    words = f"{wording.setting(trial)}; accuracy {wording.percent(score.accuracy)}; log-loss {score.log_loss:.3f}"
    return {
        "x": trial.setting[name],
        "line": ", ".join(f"{other}={value}" for other, value in trial.setting.items() if other != name) or "all",
        "accuracy": score.accuracy,
        "log_loss": score.log_loss,
        "low": low,
        "high": high,
        "best": trial.id == best.id,
        "words": words,
    }


def _interval(evidence: Evidence, score: Score) -> tuple[float, float]:
    scored = chosen_by(evidence)
    return wilson(round(score.accuracy * scored), scored) if scored else (score.accuracy, score.accuracy)


def _against(values: Sequence[Mapping[str, Any]], name: str, field: str, title: str) -> dict[str, Any]:
    """Vega-Lite: a score against what was varied, a line for each of the other settings."""
    numbers = [value["x"] for value in values]
    log = min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_SPAN
    lines = list(dict.fromkeys(value["line"] for value in values))
    axis = {"labelExpr": _NUMBER, "title": name, "values": _ticks(numbers, log), "labelOverlap": True}
    x = {"field": "x", "type": "quantitative", "scale": {"type": "log" if log else "linear", "nice": False}, "axis": axis}
    y: dict[str, Any] = {"field": field, "type": "quantitative", "scale": {"zero": False}, "title": title}
    if field == "accuracy":
        y["axis"] = wording.shares(value["accuracy"] for value in values)
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
            {"mark": "point", "encoding": {"y": y, "description": {"field": "words", "type": "nominal"}}},
            {
                "transform": [{"filter": "datum.best"}],
                "mark": ring,
                "encoding": {"y": y, "color": {"value": "currentColor"}},
            },
        ],
    }


def _ticks(numbers: Sequence[float], log: bool) -> list[float]:
    """What was tried, each value where there is room, else powers of ten or every fourth value."""
    tried = sorted(set(numbers))
    if len(tried) <= _TICKS:
        return tried
    first, last = (math.floor(math.log10(value)) for value in (tried[0], tried[-1])) if log else (0, 0)
    return [10.0**power for power in range(first, last + 2) if tried[0] <= 10.0**power <= tried[-1]] if log else tried[::4]


def _settings(evidence: Evidence, tried: Sequence[Trial], caption: str) -> Table:
    cells = []
    for trial in tried:
        score = evidence.scores[trial]
        values = [f"{value:g}" if isinstance(value, float) else value for value in trial.setting.values()]
        cells.append([trial.id, *values, score.accuracy, *_interval(evidence, score), score.log_loss])
    header = ["trial", *tried[0].setting, "accuracy", "95 % from", "to", "log-loss"]
    return Table(caption, header, cells, digits=4, sortable=True)


def _trainings(evidence: Evidence) -> Iterator[Part]:
    """Learning curves of the best few trials that have some, with what is to be seen in them in words."""
    trained = [trial for trial in evidence.ranked if evidence.scores[trial].detail.get("curves")]
    for trial in trained[:_TRAININGS]:
        detail = evidence.scores[trial].detail
        curves, epoch = detail["curves"], int(detail["epochs"])
        named = f"{trial.head} at {wording.taps(trial.sources, False)}, trial {trial.id}"
        # Without a training accuracy (triplet, supcon), the training loss is of pairs of images: it has a scale of its own.
        both = {"accuracy", "val_accuracy"} <= set(curves)
        losses = ("loss" if both else "", "val_loss")
        yield Chart(f"{named}: log-loss by epoch", _by_epoch(curves, losses, epoch, "log-loss"), _epochs(curves))
        if "val_accuracy" in curves:
            accuracies = ("accuracy", "val_accuracy")
            yield Chart(f"{named}: accuracy by epoch", _by_epoch(curves, accuracies, epoch, "accuracy"))
        yield from said(curves, epoch)
    if len(trained) > _TRAININGS:
        yield Text(f"{len(trained)} trials have learning curves; those of the best {_TRAININGS} are drawn.")


def said(curves: Mapping[str, Sequence[float]], epoch: int) -> list[Text]:
    """What a learning curve says of overfitting, in words; epoch: the one that was kept, from 1."""
    val_loss = curves["val_loss"]
    last = len(val_loss)
    words = f"Kept is epoch {epoch} of {last}, after which the loss on images held out was lowest."
    found = [Text(words + (" It was still falling: more epochs may be better." if epoch == last else ""))]
    rise = val_loss[-1] / val_loss[epoch - 1] - 1 if val_loss[epoch - 1] > 0 else 0.0
    if rise > LARGE_RISE:
        found.append(
            Text(
                f"After it that loss rises by {wording.percent(rise, 0)} until epoch {last}, which is large (more than "
                f"{wording.percent(LARGE_RISE, 0)}): from there on the head learns its own images by heart. What it had "
                "reached before is what is used.",
                "warning",
            )
        )
    if {"accuracy", "val_accuracy"} <= set(curves):
        gap, held_out = _gap(curves, epoch), curves["val_accuracy"][epoch - 1]
        learnt = wording.percent(curves["accuracy"][epoch - 1])
        at = f"at epoch {epoch} it answers {learnt} of the images it learnt from rightly"
        if gap > LARGE_GAP:
            found.append(
                Text(
                    f"The gap between training and validation is large: {at} and {wording.percent(held_out)} of those held "
                    f"out, {100 * gap:.0f} points fewer (large is more than {100 * LARGE_GAP:.0f}). More images, views of "
                    "them (--views), dropout or a smaller head narrow it.",
                    "warning",
                )
            )
        elif (at_end := _gap(curves, last)) > LARGE_GAP:
            found.append(
                Text(f"The gap is {100 * gap:.0f} points at epoch {epoch} and {100 * at_end:.0f} at the last.", "warning")
            )
    return found


def _gap(curves: Mapping[str, Sequence[float]], epoch: int) -> float:
    return float(curves["accuracy"][epoch - 1] - curves["val_accuracy"][epoch - 1])


def _by_epoch(curves: Mapping[str, Sequence[float]], names: tuple[str, str], epoch: int, title: str) -> dict[str, Any]:
    """Vega-Lite: the same measure on images learnt from and on images held out, with the kept epoch marked."""
    lines = {_LEARNT: names[0], _HELD_OUT: names[1]}
    values = [
        {"epoch": number, "value": value, "line": line, "words": f"epoch {number}, {line}; {title} {value:.3f}"}
        for line, name in lines.items()
        for number, value in enumerate(curves.get(name, ()), start=1)
    ]
    look = {_LEARNT: "#e69f00", _HELD_OUT: "#0072b2"}
    shown = [line for line, name in lines.items() if curves.get(name)]
    last = max(2, len(curves["val_loss"]))
    axis = {"format": "d", "tickMinStep": 1}
    x = {"field": "epoch", "type": "quantitative", "axis": axis, "scale": {"domain": [1, last]}}
    y: dict[str, Any] = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False}}
    if title == "accuracy":
        y["axis"] = wording.shares(value for name in names for value in curves.get(name, ()))
    color = {
        "field": "line",
        "type": "nominal",
        "title": None,
        "scale": {"domain": shown, "range": [look[line] for line in shown]},
    }
    kept = {"data": {"values": [{"epoch": epoch, "word": f"kept: {epoch}"}]}}
    rule = {"type": "rule", "strokeDash": [4, 3], "color": "currentColor", "opacity": 0.7, "aria": False}
    word: dict[str, Any] = {"type": "text", "align": "left", "dx": 5, "fontWeight": 600, "aria": False}
    word |= {"y": "height", "dy": -10} if title == "accuracy" else {"y": 8}  # where the curves are not
    right = epoch > 0.75 * len(curves["val_loss"])
    word |= {"align": "right", "dx": -5} if right else {}
    return {
        "width": _WIDTH,
        "height": _HEIGHT + 22,
        "data": {"values": values},
        "layer": [
            {**kept, "mark": rule, "encoding": {"x": x}},
            {**kept, "mark": word, "encoding": {"x": x, "text": {"field": "word"}}},
            {"mark": "line", "encoding": {"x": x, "y": y, "color": color}},
            {
                "mark": {"type": "point", "size": 25},
                "encoding": {"x": x, "y": y, "color": color, "description": {"field": "words", "type": "nominal"}},
            },
        ],
    }


def _epochs(curves: Mapping[str, Sequence[float]]) -> Table:
    names = [name for name in ("loss", "val_loss", "accuracy", "val_accuracy") if name in curves]
    rows = [[number, *values] for number, values in enumerate(zip(*(curves[name] for name in names), strict=True), start=1)]
    return Table("The learning curve", ["epoch", *names], rows, digits=4)
