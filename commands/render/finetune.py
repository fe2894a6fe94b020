"""Text output of `humeris finetune`. Nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...cache.formatting import format_interval, format_percent, format_size, format_table, join_paragraphs, to_printable
from ...classify.evaluate.significance import Comparison
from ...classify.finetune.train_loop import Epoch
from ...classify.runs.result import FinetuneSummary, TestAccuracy
from ...classify.runs.summary import RunSummary
from .cache import format_corrupt_files
from .classify import format_export, format_report_file
from .extract import format_images

_SIGNIFICANCE_LEVEL = 0.05


def format_caching(plans: Sequence[Mapping[str, Any]]) -> str:
    """Return a line per tap that has to be cached; "" if nothing is missing."""
    lines = []
    for plan in plans:
        if not plan["to_compute"]:
            continue
        (tap, count), *_ = [(tap, count) for tap, count in plan["rows"].items() if count]
        n_rows = plan["images"] * (1 + plan["views"])
        cached_note = f" ({n_rows - plan['to_compute']:,} already cached)" if plan["to_compute"] < n_rows else ""
        action = "caching" if tap.endswith(":map") else "recomputing missing rows of"
        lines.append(
            f"{action} {tap}{' and others' if len(plan['rows']) > 1 else ''}: {count:,} of {n_rows:,} rows{cached_note}, "
            f"{format_size(plan['bytes'])} uncompressed, {format_size(plan['bytes_free'])} free, about "
            f"{plan['seconds_estimated']:.0f} s"
        )
    return "\n".join(lines)


def format_dry_run(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris finetune --dry-run`."""
    text = format_caching(result["planned"]) or "nothing to cache: all rows are cached"
    fits = all(plan["fits"] for plan in result["planned"])
    return join_paragraphs(
        text, "" if fits else "not enough disk space; --compress gzip may help", "dry run: nothing was computed"
    )


def format_epoch(epoch: Epoch) -> str:
    """Return one line on a completed epoch."""
    if not epoch.number:
        return f"before training: {_format_metrics(epoch.metrics)}"
    prefix = "epoch" if epoch.stage == "choose" else "refit on all images outside the test split: epoch"
    part_note = " (head only)" if epoch.part == "head" else ""
    metrics_text = f": {_format_metrics(epoch.metrics)}" if epoch.metrics else ""
    return f"{prefix} {epoch.number}/{epoch.total}{part_note}{metrics_text}, {epoch.seconds:.1f} s"


def _format_metrics(metrics: Mapping[str, float]) -> str:
    return (
        f"loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.4f}, val_loss {metrics['val_loss']:.4f}, "
        f"val_accuracy {metrics['val_accuracy']:.4f}"
    )


def format_finetune(result: Mapping[str, Any], summary: RunSummary, finetune: FinetuneSummary) -> str:
    """Return the text of `humeris finetune`."""
    hyperparameters, score = summary.best.hyperparameters, summary.best.score
    curves, best_epoch, before = score.fit_info["curves"], score.fit_info["epochs"], finetune.initial_metrics
    frozen = finetune.frozen
    rows = []
    if frozen is not None:
        rows.append(["frozen", frozen.trial.head, *_format_cells(frozen.test)])
    origin = "scratch" if hyperparameters.get("weights") == "random" else hyperparameters["from"]
    test = TestAccuracy.from_scores(summary.test)
    rows.append([f"from {origin}", hyperparameters["head"], *_format_cells(test)])
    return join_paragraphs(
        format_images(result["data"]),
        f"best epoch: {best_epoch} of {len(curves['val_loss'])}, val_loss {curves['val_loss'][best_epoch - 1]:.4f} "
        f"(before training {before['val_loss']:.4f}), val_accuracy {curves['val_accuracy'][best_epoch - 1]:.4f} "
        f"(before training {before['val_accuracy']:.4f})",
        "\n" + format_table(["network", "head", "test accuracy", "95 % CI", "images"], rows) + "\n",
        _format_comparison(frozen.comparison) if frozen is not None and frozen.comparison is not None else "",
        *(f"note: {to_printable(note)}" for note in summary.notes),
        f"run: {to_printable(summary.run)}, in {summary.seconds:.0f} s",
        format_corrupt_files(result),
        format_export(result),
        format_report_file(result),
    )


def _format_comparison(comparison: Comparison) -> str:
    """Compare the fine-tuned with the frozen network on the same test images."""
    low, high = comparison.difference_95
    verdict = "significant" if comparison.p_value <= _SIGNIFICANCE_LEVEL else "not significant"
    return (
        f"fine-tuned minus frozen {100 * comparison.difference:+.1f} points (95 % CI {100 * low:+.1f} to {100 * high:+.1f}, "
        f"p = {comparison.p_value:.2g}): the difference is {verdict}\n"
        f"  correct only by the fine-tuned network: {comparison.only_winner:,} test images, only by the frozen one: "
        f"{comparison.only_runner_up:,}"
    )


def _format_cells(test: TestAccuracy) -> list[str]:
    return [format_percent(test.accuracy), format_interval(test.accuracy_95), str(test.images)]
