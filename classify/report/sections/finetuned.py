"""Texts about a run whose winner is a fine-tuned network: its training, and the gain over the frozen network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...data.splits import SplitsSummary
from ...evaluate.trial import Trial
from ...runs.result import RunResult, TestAccuracy
from .. import wording
from ..blocks import Part, Table, Text

_SIGNIFICANCE_LEVEL = 0.05
_KINDS = {"random": "trained from scratch", "input": "fine-tuned end to end"}


def describe_trial(trial: Trial) -> str:
    """Describe a fine-tuning trial, for use within a sentence."""
    hyperparameters = trial.hyperparameters
    method = _KINDS.get(
        str(hyperparameters.get("weights") or hyperparameters.get("from")), f"fine-tuned above {hyperparameters.get('from')}"
    )
    return (
        f"the network {method} (head: {wording.format_head(str(hyperparameters.get('head')))} on "
        f"{wording.format_taps(trial.tap_refs)})"
    )


def describe_training(splits: SplitsSummary, result: RunResult) -> str:
    """Describe how the network was trained and its epoch selected."""
    score, hyperparameters = result.best.score, result.best.hyperparameters
    n_held_out = 0 if result.finetune is None else result.finetune.held_out
    best_epoch = int(score.fit_info["epochs"])
    refit_note = (
        f"the network was then trained for as many epochs on all {splits.n_development} images outside the test split"
        if hyperparameters.get("refit")
        else f"the weights of that epoch, trained on {splits.n_development - n_held_out} images, were kept"
    )
    return (
        f"Fine-tuning started from trial {hyperparameters.get('start')} on frozen features. Epoch {best_epoch} was best on "
        f"{n_held_out} held-out images (accuracy {wording.format_percent(score.accuracy)}); {refit_note} and scored once on "
        "the test split."
    )


def compare_to_frozen(result: RunResult) -> Iterator[Part]:
    """Compare the test accuracy of the fine-tuned network with that of the frozen one."""
    frozen = None if result.finetune is None else result.finetune.frozen
    if frozen is None:
        return
    rows = [
        _build_row(f"frozen, {wording.format_head(frozen.trial.head)}", frozen.test),
        _build_row("fine-tuned", TestAccuracy.from_scores(result.test)),
    ]
    yield Table(
        "Test accuracy, frozen and fine-tuned",
        ["network", "accuracy", "95 % CI low", "95 % CI high", "images"],
        rows,
        digits=4,
    )
    comparison = frozen.comparison
    if comparison is None:
        yield Text("No paired comparison: the frozen network's predictions on plain test images were not stored.")
        return
    low, high = comparison.difference_95
    verdict = "significant" if comparison.p_value <= _SIGNIFICANCE_LEVEL else "not significant"
    sample_size = f"{comparison.images} test images" if comparison.groups is None else f"{comparison.groups} groups"
    yield Text(
        f"Fine-tuning changed the test accuracy by {100 * comparison.difference:+.1f} points on {sample_size} (95 % CI "
        f"{100 * low:+.1f} to {100 * high:+.1f}, p = {comparison.p_value:.2g}): {verdict}. {comparison.only_winner} images "
        f"are correct only with the fine-tuned network, {comparison.only_runner_up} only with the frozen one."
    )


def _build_row(name: str, test: TestAccuracy) -> list[Any]:
    return [name, test.accuracy, *test.accuracy_95, test.images]
