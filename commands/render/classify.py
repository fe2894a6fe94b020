"""Text output about runs, models and predictions. Nothing here prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...cache.formatting import (
    format_interval,
    format_percent,
    format_size,
    format_table,
    join_paragraphs,
    to_printable,
    to_utf8,
)
from ...classify.advise.scenario import format_scenario
from ...classify.data.views import Views
from ...classify.evaluate.confidence_intervals import wilson_ci
from ...classify.evaluate.depth_curve import DepthPoint
from ...classify.evaluate.metrics import ClassificationScores
from ...classify.export.predict import Prediction
from ...classify.runs.advice import Advice
from ...classify.runs.csv_table import escape_formula
from ...classify.runs.metadata import LeftOutTap
from ...classify.runs.result import NearDuplicateSummary, RunnerUp
from ...classify.runs.summary import RunSummary
from ...extract.backbones.tap_ref import TapRef
from .cache import format_corrupt_files
from .extract import format_extraction, format_images

_BAR_WIDTH = 16
_MAX_ROWS = 40  # rows of the table, which shows the best taps first if there are more
_MAX_TAPS = 3  # taps in a row of the table that are named
_MAX_PAIRS = 5  # pairs of near-duplicates
_SIGNIFICANCE_LEVEL = 0.05
_CANNOT_TELL = (
    "only equal features count as near-duplicates, because there are too few training images, or too many of them are "
    "nearly identical; if images belong together, give groups"
)
_MAX_OPTIONS_WIDTH = 40  # characters of the hyperparameters in the table; leaderboard.csv has all


def format_sweep(result: Mapping[str, Any], summary: RunSummary) -> str:
    """Return the text of `humeris sweep`."""
    data_text = format_extraction(result) if "extracted" in result else format_images(result["data"])
    return join_paragraphs(
        data_text, _format_result(summary, result.get("tracked", [])), format_corrupt_files(result),
        format_advice(summary.advice),
    )  # fmt: skip


def format_run(result: Mapping[str, Any], summary: RunSummary) -> str:
    """Return the text of `humeris run`."""
    data = {"data": result["data"], "extracted": result["extracted"], "cache": result["cache"]}
    return join_paragraphs(
        format_extraction(data), _format_result(summary, result.get("tracked", [])), format_corrupt_files(result),
        format_export(result),
        format_report_file(result),
        format_advice(summary.advice),
    )  # fmt: skip


def format_advice(advice: Advice | None) -> str:
    """Return the scenario of the data, reasons, caveats and commands to try next; "" for a run without advice."""
    if advice is None:
        return ""
    return join_paragraphs(
        f"\nadvice: {format_scenario(advice)}",
        *(f"  why: {to_printable(line)}" for line in advice.reasons),
        *(f"  caveat: {to_printable(line)}" for line in advice.caveats),
        *(f"  try: {to_printable(step.command)}\n       {to_printable(step.reason)}" for step in advice.next),
    )


def format_demo(result: Mapping[str, Any], trained: RunSummary, random: RunSummary) -> str:
    """Return the text of `humeris demo`."""
    return join_paragraphs(
        format_run(result["trained"], trained),
        f"\nnano, pretrained on synthetic images: test accuracy {_format_accuracy(trained.test)}",
        f"nano, random weights:                 test accuracy {_format_accuracy(random.test)}",
        f"model: {to_printable(result['trained']['exported']['model'])}" if result["trained"]["exported"] else "",
    )


def format_report_file(result: Mapping[str, Any]) -> str:
    """Return where the report is; "" if it could not be written."""
    report_result = result["reported"]
    if not report_result:
        return ""
    return f"report: {to_printable(report_result['path'])} ({format_size(report_result['bytes'])})"


def format_export(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris export`; "" if it failed."""
    export_result = result["exported"]
    if not export_result:
        return ""
    parity = export_result["parity"]
    return (
        f"model: {to_printable(export_result['model'])} "
        f"({_format_kind(export_result)}{format_size(export_result['bytes'])})\n"
        f"  checked in a fresh process: {parity['top1_agree']} of {parity['images']} predicted classes equal"
        + (f", {parity['ties']} more tied" if parity["ties"] else "")
        + f", probabilities within {parity['max_difference']:.1e}; {export_result['milliseconds']:.1f} ms per image\n"
        f"model card: {to_printable(export_result['card'])}"
        + (
            ""
            if export_result["known"]
            else f"\nread-only cache: `humeris predict` runs this {export_result['format']} model only with --trust"
        )
    )


def _format_kind(export_result: Mapping[str, Any]) -> str:
    """Return format, precision and activations of a model where they are not the default."""
    from ...classify.export.formats.registry import DEFAULT_FORMAT

    words = [export_result["format"]] if export_result["format"] != DEFAULT_FORMAT.name else []
    words += [export_result["precision"]] if export_result["precision"] != "float32" else []
    words += [f"activations in {export_result['activations']}"] if export_result["activations"] else []
    return "".join(f"{word}, " for word in words)


def format_ranking(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris rank`."""
    measure_titles = {"log_me": "LogME", "h_score": "H-score", "knn": "kNN", "centroid": "centroid"}
    has_run = result["run"] is not None
    rows = []
    for entry in result["ranking"]:
        taps = entry["tap_refs"]
        cells = [" + ".join(tap["backbone"] for tap in taps), " + ".join(f"{tap['layer']}:{tap['pool']}" for tap in taps)]
        for measure in measure_titles:
            rank = entry["ranks"][measure]
            cells.append(f"{entry[measure]:.4f}  {rank}" + (" <" if rank == 1 else ""))
        if has_run:
            cells.append("" if entry["trained"] is None else f"{entry['trained']:.4f}")
        rows.append([*cells, f"{entry['seconds']:.2f}"])
    header = ["backbone", "tap", *measure_titles.values(), *(["accuracy"] if has_run else []), "seconds"]
    agreement = [
        f"{measure_titles[measure]} {'-' if entry['tau'] is None else format(entry['tau'], '.2f')}"
        for measure, entry in result["agreement"].items()
    ]
    splits = result["splits"]
    return join_paragraphs(
        format_images(result["data"]),
        f"\n{format_table(header, rows)}\n",
        *_format_left_out([LeftOutTap(**entry) for entry in result["left_out"]], Views()),
        f"scored on {splits['train'] + splits['val']:,} images; the {splits['test']:,} test images were not used; "
        f"{splits['note']}",
        f"agreement with the accuracies of {to_printable(result['run'])} (Kendall's tau): {', '.join(agreement)}"
        if agreement
        else "",
        format_corrupt_files(result),
    )


def format_predictions(results: Iterable[Prediction], output_format: str, top: int = 1) -> Iterator[str]:
    """Yield the lines of `humeris predict` as `table`, `csv` or `jsonl`, with up to `top` classes per image.

    In a CSV, the columns of further classes, `predicted_2`, `probability_2` and so on, come last.
    """
    if output_format == "csv":
        extra_columns = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("predicted", "probability")]
        yield _format_csv_row(["path", "predicted", "probability", "refused", *extra_columns])
    for prediction in results:
        if output_format == "jsonl":
            yield json.dumps(to_utf8(prediction.to_dict()))
        elif output_format == "csv":
            cells = [cell for name, value in prediction.top for cell in (name, f"{value:.6f}")] + [""] * 2 * (
                top - len(prediction.top)
            )
            yield _format_csv_row([prediction.path, *cells[:2], prediction.rejection, *cells[2:]])
        elif prediction.rejection:
            yield f"{to_printable(prediction.path)}  rejected: {to_printable(prediction.rejection)}"
        else:
            yield f"{to_printable(prediction.path)}  " + "  ".join(
                f"{to_printable(name)} {value:.3f}" for name, value in prediction.top
            )


def _format_csv_row(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(
        [escape_formula(cell) for cell in cells]
    )  # a cell with one of them is quoted
    return buffer.getvalue()[:-2]


def _format_result(summary: RunSummary, trackers: Sequence[Mapping[str, str]]) -> str:
    splits, best, test, curve = summary.splits, summary.best, summary.test, summary.depth
    n_scored = splits.n_selection
    ranked_points = sorted(curve, key=lambda point: point.rank)
    lowest = min((point.accuracy for point in curve), default=0.0)
    span = max((point.accuracy for point in curve), default=1.0) - lowest or 1.0
    has_several_backbones = len({point.backbone for point in curve}) > 1
    shown_points = curve if len(curve) <= _MAX_ROWS else ranked_points[:_MAX_ROWS]
    rows = [
        [
            point.rank,
            *([point.backbone] if has_several_backbones else []),
            _format_taps(point.taps, point.backbone),
            "" if point.depth is None else f"{point.depth:.0%}",
            point.head,
            _format_hyperparameters(point.hyperparameters, point.varied),
            format_percent(point.accuracy, 2),
            format_interval(summary.accuracy_95.get(point.trial) or _compute_interval(point, n_scored)),
            f"{abs(point.log_loss):.3f}",
            f"{point.seconds:.1f}",
            "#" * round(1 + (_BAR_WIDTH - 1) * (point.accuracy - lowest) / span) + (" <" if point.trial == best.id else ""),
        ]
        for point in shown_points
    ]
    header = [
        "rank",
        *(["backbone"] if has_several_backbones else []),
        "tap",
        "cost",
        "head",
        "hyperparameters",
        "accuracy",
        "95 % CI",
        "log-loss",
        "seconds",
        "",
    ]
    method = "validation accuracy" if splits.select == "val" else "cross-validated accuracy"
    n_classes = len(splits.classes)
    return join_paragraphs(
        f"\n{'' if has_several_backbones else to_printable(curve[0].backbone) + ': '}{method}, {n_scored:,} images"
        f"{_format_groups(summary.groups)}\n{format_table(header, rows)}\n",
        f"and {len(curve) - len(shown_points)} more, all in leaderboard.csv" if len(shown_points) < len(curve) else "",
        *_format_left_out(summary.left_out, summary.views),
        f"{splits.n_development + splits.test:,} images in {n_classes} class{'' if n_classes == 1 else 'es'}: train "
        f"{splits.train:,}, {f'validation {splits.val:,}, ' if splits.val else ''}test {splits.test:,}; {splits.note}",
        _format_views(summary.views),
        f"winner: {best.head} on {to_printable(_format_tap_refs(best.tap_refs))} (trial {best.id}), selected from "
        f"{summary.trials} trials in {summary.seconds:.1f} s",
        _format_runner_up(summary.runner_up),
        f"Test accuracy {_format_accuracy(test)}",
        f"  balanced accuracy {format_percent(test.balanced_accuracy)}, macro-F1 {test.macro_f1:.4f}, "
        f"log-loss {abs(test.log_loss):.3f}, calibration error {test.calibration_error:.3f} "
        f"({test.calibration_error_by_chance:.3f} expected by chance)",
        f"  without view averaging {_format_accuracy(summary.test_plain)}" if summary.test_plain else "",
        _format_near_duplicates(summary.near_duplicates),
        *(f"note: {to_printable(note)}" for note in summary.notes),
        f"run: {to_printable(summary.run)}",
        *map(_format_tracker, trackers),
    )


def _format_tracker(tracker: Mapping[str, str]) -> str:
    """Return where a run was logged, and the command that shows it."""
    details = "; ".join(to_printable(part) for part in (tracker["destination"], tracker["note"]) if part)
    return f"{tracker['name']}: {details}" + (
        f"; view with: {to_printable(tracker['view_command'])}" if tracker["view_command"] else ""
    )


def _compute_interval(point: DepthPoint, n_scored: int) -> tuple[float, float]:
    return wilson_ci(round(point.accuracy * n_scored), n_scored)


def _format_groups(n_groups: int | None) -> str:
    """Return the number of groups, if any, which the confidence intervals are then computed by."""
    return "" if n_groups is None else f" in {n_groups:,} groups (CI by groups)"


def _format_taps(taps: Sequence[str], backbone: str) -> str:
    """Format the taps in a row of the table, without the name of `backbone`; if there are many, only their number."""
    if len(taps) > _MAX_TAPS:
        return f"{len(taps)} concatenated taps"
    return " + ".join(tap.removeprefix(f"{backbone}/") for tap in taps)


def _format_tap_refs(tap_refs: Sequence[TapRef]) -> str:
    if len(tap_refs) > _MAX_TAPS:
        return f"{len(tap_refs)} concatenated taps"
    return " + ".join(map(str, tap_refs))


def _format_hyperparameters(hyperparameters: Mapping[str, Any], varied_options: Sequence[str]) -> str:
    """Format the hyperparameters in `varied_options`; the first hyperparameter if there are none."""
    text = " ".join(f"{name}={hyperparameters[name]}" for name in (varied_options or list(hyperparameters)[:1]))
    return text if len(text) <= _MAX_OPTIONS_WIDTH else f"{text[: _MAX_OPTIONS_WIDTH - 2]} …"


def _format_views(views: Views) -> str:
    if not views.count:
        return ""
    scoring = "the mean over all views" if views.average else "view 0 (the image itself)"
    return f"trained on view 0 and {views.count} augmented views of each image ({views.policy}), scored on {scoring}"


def _format_runner_up(runner_up: RunnerUp | None) -> str:
    """Compare the winner with the runner-up on the images that both were scored on."""
    if runner_up is None:
        return ""
    comparison = runner_up.comparison
    low, high = comparison.difference_95
    groups = comparison.groups
    test = "McNemar" if groups is None else f"sign-flip test on {groups:,} groups,"
    if comparison.difference < 0:
        verdict = "the runner-up is more accurate on these images; the winner was selected by accuracy and log-loss"
    elif comparison.p_value > _SIGNIFICANCE_LEVEL:
        verdict = "the difference is not significant"
    else:
        verdict = "the difference is significant"
    return (
        f"runner-up: {runner_up.head} on {to_printable(_format_tap_refs(runner_up.tap_refs))} (trial "
        f"{runner_up.id}), accuracy {format_percent(runner_up.score.accuracy)}\n"
        f"  winner minus runner-up {100 * comparison.difference:+.1f} points (95 % CI {100 * low:+.1f} to "
        f"{100 * high:+.1f}, {test} p = {comparison.p_value:.2g}): {verdict}\n"
        f"  correct only by the winner: {comparison.only_winner:,} images, only by the runner-up: "
        f"{comparison.only_runner_up:,}; biased in favor of the winner, which was selected on these images"
    )


def _format_near_duplicates(near_duplicates: NearDuplicateSummary) -> str:
    """List test images that are near-duplicates of training images."""
    count = near_duplicates.test_images
    caveat = _CANNOT_TELL if near_duplicates.cannot_tell else ""
    title = "near-duplicates between test and training images"
    if not count:
        return f"{title}: {f'unknown; {caveat}' if caveat else 'none found'}"
    accuracy_without = near_duplicates.accuracy_without
    accuracy_text = "" if accuracy_without is None else f"; test accuracy without them {format_percent(accuracy_without)}"
    pair_lines = [
        f"  {to_printable(pair.test)} ~ {to_printable(pair.development)}" for pair in near_duplicates.pairs[:_MAX_PAIRS]
    ]
    more_line = f"  and {len(near_duplicates.pairs) - _MAX_PAIRS} more pairs, all in run.json"
    return join_paragraphs(
        f"{title}: {count} test image{'' if count == 1 else 's'}{accuracy_text}",
        *pair_lines,
        more_line if len(near_duplicates.pairs) > _MAX_PAIRS else "",
        f"  {caveat}" if caveat else "",
    )


def _format_left_out(left_out: Sequence[LeftOutTap], views: Views) -> list[str]:
    """List the taps that lack rows; if views were requested, with the options that compute them."""
    lines = []
    for entry in left_out:
        tap = f"{entry.layer}:{entry.pool}"
        missing_text = f"{entry.images_missing} image{'' if entry.images_missing == 1 else 's'}"
        if views.count:
            options = f"-l {tap} --views {views.count} --augment {views.policy}"
            missing_text += f" or views of them; run `humeris extract` with {options}"
        lines.append(f"left out: {entry.backbone}/{tap} lacks rows of {missing_text}")
    return lines


def _format_accuracy(test: ClassificationScores) -> str:
    groups = "" if test.groups is None else f" in {test.groups:,} groups (CI by groups)"
    return (
        f"{format_percent(test.accuracy)} (95 % CI {format_interval(test.accuracy_95)}), {test.images:,} "
        f"image{'' if test.images == 1 else 's'}{groups}"
    )
