"""Text for people about runs, models and predictions. Nothing here prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...cache.formatting import format_size, format_table, join_paragraphs, to_printable
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
_MAX_ROWS = 40  # of the table, which then holds the best
_MAX_TAPS = 3  # taps in a row of the table that are named
_MAX_PAIRS = 5  # pairs of near-duplicates
_SIGNIFICANCE_LEVEL = 0.05
_CANNOT_TELL = (
    "beyond equal features there is no telling, since the images that were learnt from are too few, or too many of them are "
    "nearly the same as each other; where images belong together, give groups"
)
_MAX_OPTIONS_WIDTH = 40  # letters of a setting; leaderboard.csv has it whole


def format_sweep(result: Mapping[str, Any], summary: RunSummary) -> str:
    """`humeris sweep`."""
    data_text = format_extraction(result) if "extracted" in result else format_images(result["data"])
    return join_paragraphs(
        data_text, _format_result(summary, result.get("tracked", [])), format_corrupt_files(result),
        format_advice(summary.advice),
    )  # fmt: skip


def format_run(result: Mapping[str, Any], summary: RunSummary) -> str:
    """`humeris run`."""
    data = {"data": result["data"], "extracted": result["extracted"], "cache": result["cache"]}
    report_result = result["reported"]
    return join_paragraphs(
        format_extraction(data), _format_result(summary, result.get("tracked", [])), format_corrupt_files(result),
        format_export(result),
        f"report: {to_printable(report_result['path'])} ({format_size(report_result['bytes'])})",
        format_advice(summary.advice),
    )  # fmt: skip


def format_advice(advice: Advice | None) -> str:
    """Which scenario the data is in, why, how sure that is, and what to try next; "" of a run without advice."""
    if advice is None:
        return ""
    return join_paragraphs(
        f"\nadvice: {format_scenario(advice)}",
        *(f"  why: {to_printable(line)}" for line in advice.reasons),
        *(f"  mind: {to_printable(line)}" for line in advice.caveats),
        *(f"  try: {to_printable(step.command)}\n       {to_printable(step.reason)}" for step in advice.next),
    )


def format_demo(result: Mapping[str, Any], trained: RunSummary, random: RunSummary) -> str:
    """`humeris demo`."""
    return join_paragraphs(
        format_run(result["trained"], trained),
        f"\nnano, trained on drawings:  test accuracy {_format_accuracy(trained.test)}",
        f"nano, random weights:       test accuracy {_format_accuracy(random.test)}",
        f"model: {to_printable(result['trained']['exported']['model'])}",
    )


def format_export(result: Mapping[str, Any]) -> str:
    """`humeris export`."""
    export_result = result["exported"]
    parity = export_result["parity"]
    return (
        f"model: {to_printable(export_result['model'])} "
        f"({_format_kind(export_result)}{format_size(export_result['bytes'])}), loaded again in a fresh process: "
        f"{parity['top1_agree']} of {parity['images']} classes equal, probabilities within {parity['max_difference']:.1e}"
        + (f"; {parity['ties']} more are ties between neighbours" if parity["ties"] else "")
        + f"; {export_result['milliseconds']:.1f} ms an image\nmodel card: {to_printable(export_result['card'])}"
        + (
            ""
            if export_result["known"]
            else f"\nthe cache cannot be written: `humeris predict` runs this {export_result['format']} with --trust"
        )
    )


def _format_kind(export_result: Mapping[str, Any]) -> str:
    """What is unusual about a model."""
    from ...classify.export.formats.registry import DEFAULT_FORMAT

    words = [export_result["format"]] if export_result["format"] != DEFAULT_FORMAT.name else []
    words += [export_result["precision"]] if export_result["precision"] != "float32" else []
    words += [f"activations in {export_result['activations']}"] if export_result["activations"] else []
    return "".join(f"{word}, " for word in words)


def format_ranking(result: Mapping[str, Any]) -> str:
    """`humeris rank`."""
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
    header = ["backbone", "tap", *measure_titles.values(), *(["trained"] if has_run else []), "seconds"]
    agreement = [
        f"{measure_titles[measure]} {'-' if entry['tau'] is None else format(entry['tau'], '.2f')}"
        for measure, entry in result["agreement"].items()
    ]
    splits = result["splits"]
    return join_paragraphs(
        format_images(result["data"]),
        f"\n{format_table(header, rows)}\n",
        *_format_left_out([LeftOutTap(**entry) for entry in result["left_out"]], Views()),
        f"{splits['note']}; scored on {splits['train'] + splits['val']} images, none of the {splits['test']} to test on",
        f"agreement with training (Kendall's tau): {', '.join(agreement)}; {to_printable(result['run'])}"
        if agreement
        else "",
        format_corrupt_files(result),
    )


def format_predictions(results: Iterable[Prediction], output_format: str, top: int = 1) -> Iterator[str]:
    """Lines of `humeris predict` as `table`, `csv` or `jsonl`, as the predictions come, with up to `top` classes each.

    A CSV has two columns for each class beyond the first, `predicted_2`, `probability_2` and so on, after the others.
    """
    if output_format == "csv":
        extra_columns = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("predicted", "probability")]
        yield _format_csv_row(["path", "predicted", "probability", "refused", *extra_columns])
    for prediction in results:
        if output_format == "jsonl":
            yield json.dumps(prediction.to_dict())
        elif output_format == "csv":
            cells = [cell for name, value in prediction.top for cell in (name, f"{value:.6f}")] + [""] * 2 * (
                top - len(prediction.top)
            )
            yield _format_csv_row([prediction.path, *cells[:2], prediction.rejection, *cells[2:]])
        elif prediction.rejection:
            yield f"{to_printable(prediction.path)}  refused: {to_printable(prediction.rejection)}"
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
            f"{point.accuracy:.4f}",
            "-".join(f"{bound:.3f}" for bound in summary.accuracy_95.get(point.trial) or _compute_interval(point, n_scored)),
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
        "best",
        "accuracy",
        "95 %",
        "log-loss",
        "seconds",
        "",
    ]
    method = "validation" if splits.select == "val" else "cross-validation"
    selection_text = f"{method}, {n_scored} images{_format_groups(summary.groups)}"
    return join_paragraphs(
        f"\n{'' if has_several_backbones else to_printable(curve[0].backbone) + ': '}accuracy by "
        f"{selection_text}\n{format_table(header, rows)}\n",
        f"and {len(curve) - len(shown_points)} more; leaderboard.csv has them all" if len(shown_points) < len(curve) else "",
        *_format_left_out(summary.left_out, summary.views),
        f"{splits.note}; {splits.train} train, {splits.val} val, {splits.test} test",
        _format_views(summary.views),
        f"chosen: {best.head} on {to_printable(_format_tap_refs(best.tap_refs))} (trial {best.id}), "
        f"of {summary.trials} trials in {summary.seconds:.1f} s",
        _format_runner_up(summary.runner_up),
        f"test accuracy {_format_accuracy(test)}",
        f"  balanced {test.balanced_accuracy:.4f}, macro-F1 {test.macro_f1:.4f}, "
        f"log-loss {abs(test.log_loss):.3f}, calibration error {test.calibration_error:.3f} "
        f"({test.calibration_error_by_chance:.3f} by chance)",
        f"  on the plain view alone {_format_accuracy(summary.test_plain)}" if summary.test_plain else "",
        _format_near_duplicates(summary.near_duplicates),
        *(f"note: {to_printable(note)}" for note in summary.notes),
        f"run: {to_printable(summary.run)}",
        *map(_format_tracker, trackers),
    )


def _format_tracker(tracker: Mapping[str, str]) -> str:
    """Where a run was logged, and how to look at it there."""
    details = "; ".join(to_printable(part) for part in (tracker["destination"], tracker["note"]) if part)
    return f"{tracker['name']}: {details}" + (
        f"; look with: {to_printable(tracker['view_command'])}" if tracker["view_command"] else ""
    )


def _compute_interval(point: DepthPoint, n_scored: int) -> tuple[float, float]:
    return wilson_ci(round(point.accuracy * n_scored), n_scored)


def _format_groups(n_groups: int | None) -> str:
    """What intervals count, where it is not images."""
    return "" if n_groups is None else f" in {n_groups} groups, 95 % intervals by groups"


def _format_taps(taps: Sequence[str], backbone: str) -> str:
    """The taps of one row of the table, without the backbone where it is one; many by their number."""
    if len(taps) > _MAX_TAPS:
        return f"{len(taps)} taps side by side"
    return " + ".join(tap.removeprefix(f"{backbone}/") for tap in taps)


def _format_tap_refs(tap_refs: Sequence[TapRef]) -> str:
    if len(tap_refs) > _MAX_TAPS:
        return f"{len(tap_refs)} taps side by side"
    return " + ".join(map(str, tap_refs))


def _format_hyperparameters(hyperparameters: Mapping[str, Any], varied_options: Sequence[str]) -> str:
    """The options that were tried in several values; the first where none was."""
    text = " ".join(f"{name}={hyperparameters[name]}" for name in (varied_options or list(hyperparameters)[:1]))
    return text if len(text) <= _MAX_OPTIONS_WIDTH else f"{text[: _MAX_OPTIONS_WIDTH - 2]} …"


def _format_views(views: Views) -> str:
    if not views.count:
        return ""
    scoring = "the mean of them all" if views.average else "the plain one"
    return f"trained on {views.count} views of each image ({views.policy}) beside the plain one, scored on {scoring}"


def _format_runner_up(runner_up: RunnerUp | None) -> str:
    """How sure it is that the winner is better."""
    if runner_up is None:
        return ""
    comparison = runner_up.comparison
    low, high = comparison.difference_95
    groups = comparison.groups
    test = "McNemar" if groups is None else f"by {groups} groups: sign flips,"
    only_winner, only_runner_up = comparison.only_winner, comparison.only_runner_up
    if comparison.difference < 0:
        verdict = "the runner-up did better on these images: the winner was chosen by the accuracy and log-loss in the table"
    elif comparison.p_value > _SIGNIFICANCE_LEVEL:
        verdict = "these images do not tell them apart"
    else:
        verdict = "more than chance would do"
    return (
        f"runner-up: {runner_up.head} on {to_printable(_format_tap_refs(runner_up.tap_refs))} (trial "
        f"{runner_up.id}), {runner_up.score.accuracy:.4f}\n"
        f"  images on which only the winner is right: {only_winner}, only the runner-up: {only_runner_up}; "
        f"difference {comparison.difference:+.4f}\n"
        f"  (95 % interval {low:+.3f} to {high:+.3f}, {test} p = {comparison.p_value:.2g}), {verdict}\n"
        "  (the winner was chosen on these same images, which favours it)"
    )


def _format_near_duplicates(near_duplicates: NearDuplicateSummary) -> str:
    """What is nearly the same in the test split and outside it."""
    count = near_duplicates.test_images
    caveat = _CANNOT_TELL if near_duplicates.cannot_tell else ""
    if not count:
        return f"near-duplicates of test images among the others: {caveat or 'none found'}"
    accuracy_without = near_duplicates.accuracy_without
    accuracy_text = "" if accuracy_without is None else f"; accuracy without them {accuracy_without:.4f}"
    pair_lines = [
        f"  {to_printable(pair.test)} ~ {to_printable(pair.development)}" for pair in near_duplicates.pairs[:_MAX_PAIRS]
    ]
    more_line = f"  and {len(near_duplicates.pairs) - _MAX_PAIRS} more pairs; run.json lists them all"
    return join_paragraphs(
        f"near-duplicates: test images nearly the same as others that were learnt from: {count}{accuracy_text}",
        *pair_lines,
        more_line if len(near_duplicates.pairs) > _MAX_PAIRS else "",
        f"  {caveat}" if caveat else "",
    )


def _format_left_out(left_out: Sequence[LeftOutTap], views: Views) -> list[str]:
    """The taps that lack images; where views were asked for, which are a reason too, how to compute them."""
    lines = []
    for entry in left_out:
        tap, missing_text = f"{entry.layer}:{entry.pool}", f"{entry.images_missing} images"
        if views.count:
            options = f"-l {tap} --views {views.count} --augment {views.policy}"
            missing_text += f" or views of them; `humeris extract` with {options} computes them"
        lines.append(f"left out: {entry.backbone}/{tap} lacks {missing_text}")
    return lines


def _format_accuracy(test: ClassificationScores) -> str:
    low, high = test.accuracy_95
    groups = "" if test.groups is None else f" in {test.groups} groups, by groups"
    return f"{test.accuracy:.4f} (95 % interval {low:.3f} to {high:.3f}, {test.images} images{groups})"
