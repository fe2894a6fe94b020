"""What a report says of a run whose winner is a fine-tuned network: how it was trained, and what that brought."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...data.splits import SplitsSummary
from ...evaluate.trial import Trial
from ...runs.result import RunResult, TestAccuracy
from .. import wording
from ..blocks import Part, Table, Text

_SIGNIFICANCE_LEVEL = 0.05
_KINDS = {"random": "trained from scratch", "input": "fine-tuned as a whole"}


def describe_trial(trial: Trial) -> str:
    """The trial in words, as they stand within a sentence."""
    hyperparameters = trial.hyperparameters
    method = _KINDS.get(
        str(hyperparameters.get("weights") or hyperparameters.get("from")), f"fine-tuned above {hyperparameters.get('from')}"
    )
    return (
        f"the network {method}, with the head of {wording.format_head(str(hyperparameters.get('head')))} on "
        f"{wording.format_taps(trial.tap_refs)},"
    )


def describe_training(splits: SplitsSummary, result: RunResult) -> str:
    """How it was trained and chosen."""
    score, hyperparameters = result.best.score, result.best.hyperparameters
    n_held_out = 0 if result.finetune is None else result.finetune.held_out
    best_epoch = int(score.fit_info["epochs"])
    refit_note = (
        f"it was then trained again for as many on all {splits.n_development} images outside the test split"
        if hyperparameters.get("refit")
        else f"it is what {splits.n_development - n_held_out} images had made of it by then"
    )
    return (
        f"It began as trial {hyperparameters.get('start')} of the frozen heads. On {n_held_out} images that it did not "
        f"learn from, epoch {best_epoch} was best ({wording.format_percent(score.accuracy)} right); "
        f"{refit_note}, and met the test images once."
    )


def compare_to_frozen(result: RunResult) -> Iterator[Part]:
    """The test accuracy of the tuned network and of the frozen one, and whether they are told apart."""
    frozen = None if result.finetune is None else result.finetune.frozen
    if frozen is None:
        return
    rows = [
        _build_row(f"frozen, {wording.format_head(frozen.trial.head)}", frozen.test),
        _build_row("fine-tuned", TestAccuracy.from_scores(result.test)),
    ]
    yield Table("On the test images", ["network", "accuracy", "95 % from", "to", "images"], rows, digits=4)
    comparison = frozen.comparison
    if comparison is None:
        yield Text("The two are not compared image by image: the frozen one's answers to plain images were not kept.")
        return
    low, high = comparison.difference_95
    verdict = "more than chance would do" if comparison.p_value <= _SIGNIFICANCE_LEVEL else "which does not tell them apart"
    sample_size = f"{comparison.images} test images" if comparison.groups is None else f"{comparison.groups} groups"
    yield Text(
        f"Fine-tuning changed the accuracy by {100 * comparison.difference:+.1f} points on {sample_size} (95 % interval "
        f"{100 * low:+.1f} to {100 * high:+.1f}, p = {comparison.p_value:.2g}), {verdict}: {comparison.only_winner} "
        f"are answered rightly only by the tuned network, {comparison.only_runner_up} only by the frozen one."
    )


def _build_row(name: str, test: TestAccuracy) -> list[Any]:
    return [name, test.accuracy, *test.accuracy_95, test.images]
