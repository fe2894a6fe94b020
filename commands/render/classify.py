"""Text for people about runs, models and predictions. Nothing here prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...cache.formatting import columns, paragraphs, safe, size
from ...classify.advise.scenario import sentence
from ...classify.evaluate.confidence_intervals import wilson
from ...classify.export.predict import Prediction
from ...classify.runs.run import guarded
from .cache import damaged
from .extract import extracted as extracted_text
from .extract import images

_BAR = 16
_ROWS = 40  # of the table, which then holds the best
_SIDES = 3  # taps in a row of the table that are named
_SHOWN = 5  # pairs of near-duplicates
_SURE = 0.05
_CANNOT_TELL = (
    "beyond equal features there is no telling, since the images that were learnt from are too few, or too many of them are "
    "nearly the same as each other; where images belong together, give groups"
)
_WIDE = 40  # letters of a setting; leaderboard.csv has it whole


def run(found: Mapping[str, Any]) -> str:
    """`humeris sweep`."""
    read = extracted_text(found) if "extracted" in found else images(found["data"])
    return paragraphs(read, _result(found), damaged(found), advice(found.get("advice")))


def outcome(found: Mapping[str, Any]) -> str:
    """`humeris run`."""
    data = {"data": found["data"], "extracted": found["extracted"], "cache": found["cache"]}
    page = found["reported"]
    return paragraphs(
        extracted_text(data), _result(found), damaged(found), exported(found),
        f"report: {safe(page['path'])} ({size(page['bytes'])})", advice(found.get("advice")),
    )  # fmt: skip


def advice(found: Mapping[str, Any] | None) -> str:
    """Which case the data is in, why, how sure that is, and what to try next; "" of a run without advice."""
    if not found:
        return ""
    return paragraphs(
        f"\nadvice: {sentence(found)}",
        *(f"  why: {safe(line)}" for line in found["why"]),
        *(f"  mind: {safe(line)}" for line in found["thin"]),
        *(f"  try: {safe(step['command'])}\n       {safe(step['why'])}" for step in found["next"]),
    )


def demo(found: Mapping[str, Any]) -> str:
    """`humeris demo`."""
    trained, random = found["trained"], found["random"]
    return paragraphs(
        outcome(trained),
        f"\nnano, trained on drawings:  test accuracy {_accuracy(trained['test'])}",
        f"nano, random weights:       test accuracy {_accuracy(random['test'])}",
        f"model: {safe(trained['exported']['model'])}",
    )


def exported(found: Mapping[str, Any]) -> str:
    """`humeris export`."""
    done = found["exported"]
    parity = done["parity"]
    return (
        f"model: {safe(done['model'])} ({_kind(done)}{size(done['bytes'])}), loaded again in a fresh process: "
        f"{parity['top1_agree']} of {parity['images']} classes equal, probabilities within {parity['max_difference']:.1e}"
        + (f"; {parity['ties']} more are ties between neighbours" if parity["ties"] else "")
        + f"; {done['milliseconds']:.1f} ms an image\nmodel card: {safe(done['card'])}"
        + (
            ""
            if done["known"]
            else f"\nthe cache cannot be written: `humeris predict` runs this {done['format']} with --trust"
        )
    )


def _kind(done: Mapping[str, Any]) -> str:
    """What is unusual about a model."""
    words = [done["format"]] if done["format"] != "keras" else []
    words += [done["precision"]] if done["precision"] != "float32" else []
    words += [f"activations in {done['activations']}"] if done["activations"] else []
    return "".join(f"{word}, " for word in words)


def ranking(found: Mapping[str, Any]) -> str:
    """`humeris rank`."""
    named = {"log_me": "LogME", "h_score": "H-score", "knn": "kNN", "centroid": "centroid"}
    compared = found["run"] is not None
    rows = []
    for each in found["ranking"]:
        taps = each["sources"]
        cells = [" + ".join(tap["backbone"] for tap in taps), " + ".join(f"{tap['layer']}:{tap['pool']}" for tap in taps)]
        for measure in named:
            place = each["places"][measure]
            cells.append(f"{each[measure]:.4f}  {place}" + (" <" if place == 1 else ""))
        if compared:
            cells.append("" if each["trained"] is None else f"{each['trained']:.4f}")
        rows.append([*cells, f"{each['seconds']:.2f}"])
    header = ["backbone", "tap", *named.values(), *(["trained"] if compared else []), "seconds"]
    agreement = [
        f"{named[measure]} {'-' if each['tau'] is None else format(each['tau'], '.2f')}"
        for measure, each in found["agreement"].items()
    ]
    splits = found["splits"]
    return paragraphs(
        images(found["data"]),
        f"\n{columns(header, rows)}\n",
        *_left_out(found),
        f"{splits['note']}; scored on {splits['train'] + splits['val']} images, none of the {splits['test']} to test on",
        f"agreement with training (Kendall's tau): {', '.join(agreement)}; {safe(found['run'])}" if agreement else "",
        damaged(found),
    )


def predictions(found: Iterable[Prediction], form: str, top: int = 1) -> Iterator[str]:
    """Lines of `humeris predict` as `table`, `csv` or `jsonl`, as the predictions come, with up to `top` classes each.

    A CSV has two columns for each class beyond the first, `predicted_2`, `probability_2` and so on, after the others.
    """
    if form == "csv":
        more = [f"{name}_{place}" for place in range(2, top + 1) for name in ("predicted", "probability")]
        yield _csv(["path", "predicted", "probability", "refused", *more])
    for each in found:
        if form == "jsonl":
            yield json.dumps(each.to_dict())
        elif form == "csv":
            cells = [cell for name, value in each.top for cell in (name, f"{value:.6f}")] + [""] * 2 * (top - len(each.top))
            yield _csv([each.path, *cells[:2], each.refused, *cells[2:]])
        elif each.refused:
            yield f"{safe(each.path)}  refused: {safe(each.refused)}"
        else:
            yield f"{safe(each.path)}  " + "  ".join(f"{safe(name)} {value:.3f}" for name, value in each.top)


def _csv(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([guarded(cell) for cell in cells])  # a cell with one of them is quoted
    return text.getvalue()[:-2]


def _result(found: Mapping[str, Any]) -> str:
    splits, best, test = found["splits"], found["best"], found["test"]
    on_val = splits["select"] == "val"
    scored = splits["val"] if on_val else splits["train"] + splits["val"]
    curve = found["depth"]
    order = sorted(curve, key=lambda each: int(each["rank"]))
    low = min((each["accuracy"] for each in curve), default=0.0)
    span = max((each["accuracy"] for each in curve), default=1.0) - low or 1.0
    several = len({each["backbone"] for each in curve}) > 1
    shown = curve if len(curve) <= _ROWS else order[:_ROWS]
    rows = [
        [
            each["rank"],
            *([each["backbone"]] if several else []),
            _taps(each["taps"], each["backbone"]),
            "" if each["depth"] is None else f"{each['depth']:.0%}",
            each["head"],
            _setting(each["setting"], each["varied"]),
            f"{each['accuracy']:.4f}",
            "-".join(f"{bound:.3f}" for bound in found["accuracy_95"].get(each["trial"]) or _interval(each, scored)),
            f"{abs(each['log_loss']):.3f}",
            f"{each['seconds']:.1f}",
            "#" * round(1 + (_BAR - 1) * (each["accuracy"] - low) / span) + (" <" if each["trial"] == best["id"] else ""),
        ]
        for each in shown
    ]
    header = [
        "rank",
        *(["backbone"] if several else []),
        "tap",
        "cost",
        "head",
        "best",
        "accuracy",
        "95 %",
        "log-loss",
        "seconds",
        "",
    ]
    chosen = f"{'validation' if on_val else 'cross-validation'}, {scored} images{_of_groups(found['groups'])}"
    return paragraphs(
        f"\n{'' if several else safe(curve[0]['backbone']) + ': '}accuracy by {chosen}\n{columns(header, rows)}\n",
        f"and {len(curve) - len(shown)} more; leaderboard.csv has them all" if len(shown) < len(curve) else "",
        *_left_out(found),
        f"{splits['note']}; {splits['train']} train, {splits['val']} val, {splits['test']} test",
        _seen(found["views"]),
        f"chosen: {best['head']} on {safe(_named(best['sources']))} (trial {best['id']}), "
        f"of {found['trials']} trials in {found['seconds']:.1f} s",
        _runner_up(found["runner_up"]),
        f"test accuracy {_accuracy(test)}",
        f"  balanced {test['balanced_accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f}, "
        f"log-loss {abs(test['log_loss']):.3f}, calibration error {test['calibration_error']:.3f} "
        f"({test['calibration_error_by_chance']:.3f} by chance)",
        f"  on the plain view alone {_accuracy(found['test_plain'])}" if found["test_plain"] else "",
        _copies(found["near_duplicates"]),
        *(f"note: {safe(note)}" for note in found["notes"]),
        f"run: {safe(found['run'])}",
        *map(_tracked, found.get("tracked", [])),
    )


def _tracked(found: Mapping[str, str]) -> str:
    """Where a run was logged, and how to look at it there."""
    said = "; ".join(safe(part) for part in (found["where"], found["note"]) if part)
    return f"{found['name']}: {said}" + (f"; look with: {safe(found['look'])}" if found["look"] else "")


def _interval(point: Mapping[str, Any], scored: int) -> tuple[float, float]:
    return wilson(round(point["accuracy"] * scored), scored)


def _of_groups(count: int | None) -> str:
    """What intervals count, where it is not images."""
    return "" if count is None else f" in {count} groups, 95 % intervals by groups"


def _taps(taps: Sequence[str], backbone: str) -> str:
    """The taps of one row of the table, without the backbone where it is one; many by their number."""
    if len(taps) > _SIDES:
        return f"{len(taps)} taps side by side"
    return " + ".join(tap.removeprefix(f"{backbone}/") for tap in taps)


def _named(sources: Sequence[Mapping[str, Any]]) -> str:
    if len(sources) > _SIDES:
        return f"{len(sources)} taps side by side"
    return " + ".join(f"{each['backbone']}/{each['layer']}:{each['pool']}" for each in sources)


def _setting(setting: Mapping[str, Any], varied: Sequence[str]) -> str:
    """The options that were tried in several values; the first where none was."""
    text = " ".join(f"{name}={setting[name]}" for name in (varied or list(setting)[:1]))
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 2]} …"


def _seen(views: Mapping[str, Any]) -> str:
    if not views["count"]:
        return ""
    scored = "the mean of them all" if views["average"] else "the plain one"
    return f"trained on {views['count']} views of each image ({views['policy']}) beside the plain one, scored on {scored}"


def _runner_up(found: Mapping[str, Any] | None) -> str:
    """How sure it is that the winner is better."""
    if found is None:
        return ""
    compared = found["compared"]
    low, high = compared["difference_95"]
    groups = compared.get("groups")
    test = "McNemar" if groups is None else f"by {groups} groups: sign flips,"
    winner, other = compared["only_winner"], compared["only_runner_up"]
    if compared["difference"] < 0:
        verdict = "the runner-up did better on these images: the winner was chosen by the accuracy and log-loss in the table"
    elif compared["p_value"] > _SURE:
        verdict = "these images do not tell them apart"
    else:
        verdict = "more than chance would do"
    return (
        f"runner-up: {found['head']} on {safe(_named(found['sources']))} (trial {found['id']}), "
        f"{found['score']['accuracy']:.4f}\n"
        f"  images on which only the winner is right: {winner}, only the runner-up: {other}; "
        f"difference {compared['difference']:+.4f}\n"
        f"  (95 % interval {low:+.3f} to {high:+.3f}, {test} p = {compared['p_value']:.2g}), {verdict}\n"
        "  (the winner was chosen on these same images, which favours it)"
    )


def _copies(found: Mapping[str, Any]) -> str:
    """What is nearly the same in the test split and outside it."""
    count = found["test_images"]
    cannot = _CANNOT_TELL if found.get("cannot_tell") else ""
    if not count:
        return f"near-duplicates of test images among the others: {cannot or 'none found'}"
    without = found["accuracy_without"]
    rest = "" if without is None else f"; accuracy without them {without:.4f}"
    listed = [f"  {safe(each['test'])} ~ {safe(each['development'])}" for each in found["pairs"][:_SHOWN]]
    more = f"  and {len(found['pairs']) - _SHOWN} more pairs; run.json lists them all"
    return paragraphs(
        f"near-duplicates: test images nearly the same as others that were learnt from: {count}{rest}",
        *listed,
        more if len(found["pairs"]) > _SHOWN else "",
        f"  {cannot}" if cannot else "",
    )


def _left_out(found: Mapping[str, Any]) -> list[str]:
    """The taps that lack images; where views were asked for, which are a reason too, how to compute them."""
    views, lines = found.get("views") or {"count": 0}, []
    for each in found.get("left_out", []):
        tap, lacking = f"{each['layer']}:{each['pool']}", f"{each['images_missing']} images"
        if views["count"]:
            again = f"-l {tap} --views {views['count']} --augment {views['policy']}"
            lacking += f" or views of them; `humeris extract` with {again} computes them"
        lines.append(f"left out: {each['backbone']}/{tap} lacks {lacking}")
    return lines


def _accuracy(test: Mapping[str, Any]) -> str:
    low, high = test["accuracy_95"]
    groups = "" if test.get("groups") is None else f" in {test['groups']} groups, by groups"
    return f"{test['accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}, {test['images']} images{groups})"
