"""The answer: which head on which tap, how good it is, how sure that is, and how to have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ....cache.spec import ExtractionSpec
from ...advise.scenario import format_scenario
from ...data.splits import SplitsSummary
from ...evaluate.trial import Trial
from ...runs.advice import Advice
from ...runs.finetuned_weights import is_finetuned
from ...runs.result import NearDuplicateSummary, RunnerUp, RunResult
from .. import wording
from ..blocks import Command, Part, Section, Text
from ..run_snapshot import RunSnapshot
from . import finetuned

_SIGNIFICANCE_LEVEL = 0.05


def build_section(snapshot: RunSnapshot) -> Section:
    """The winner and its test accuracy in one sentence, the runner-up, what to mind, how to have it, what to try next."""
    return Section("answer", "The answer", list(_build_parts(snapshot)))


def summarize(snapshot: RunSnapshot) -> str:
    """The answer in one sentence, or why there is none."""
    best, test = snapshot.best, snapshot.test
    if best is None:
        return "No trial of this run has ended, so that there is no answer."
    winner = _describe_trial(snapshot, best)
    if test is None:
        accuracy = wording.format_percent(snapshot.scores[best].accuracy)
        return f"So far {winner} is ahead with {accuracy} in {_name_selection_method(snapshot)}; no test image was seen."
    groups = f" from {test.groups} groups" if test.groups else ""
    majority_count = max((class_scores.images for class_scores in test.per_class), default=0)
    return (
        f"{winner[0].upper()}{winner[1:]} answers {wording.format_percent(test.accuracy)} of {test.images} test "
        f"images{groups} rightly (95 % interval {wording.format_interval(test.accuracy_95)}), where always naming the "
        f"commonest class would get {wording.format_percent(majority_count / test.images)}."
    )


def _describe_trial(snapshot: RunSnapshot, trial: Trial) -> str:
    if is_finetuned(trial):
        return finetuned.describe_trial(trial)
    words = wording.format_hyperparameters(trial, wording.list_varied_options(snapshot, trial.head))
    return f"{wording.format_head(trial.head)}{f' ({words})' if words else ''} on {wording.format_taps(trial.tap_refs)}"


def _name_selection_method(snapshot: RunSnapshot) -> str:
    return "validation" if snapshot.splits is not None and snapshot.splits.select == "val" else "cross-validation"


def _build_parts(snapshot: RunSnapshot) -> Iterator[Part]:
    yield Text(summarize(snapshot))
    if snapshot.metadata is None or snapshot.result is None or snapshot.best is None:
        return
    result = snapshot.result
    yield from _build_selection(snapshot, snapshot.metadata.splits, result)
    if result.runner_up is not None and not is_finetuned(snapshot.best):
        yield _describe_runner_up(snapshot, result.runner_up)
    if result.test_plain is not None:
        accuracy = wording.format_percent(result.test_plain.accuracy)
        yield Text(f"On the plain view alone it answers {accuracy} rightly.")
    yield from (Text(note, "warning") for note in result.notes)
    yield from _build_near_duplicates(result.near_duplicates)
    yield from _build_export(snapshot, snapshot.metadata.specs, snapshot.best)
    if result.advice is not None:
        yield from _build_advice(result.advice)


def _build_selection(snapshot: RunSnapshot, splits: SplitsSummary, result: RunResult) -> Iterator[Part]:
    """How the winner was chosen and trained."""
    best = result.best.trial
    if is_finetuned(best):
        yield Text(finetuned.describe_training(splits, result))
        yield from finetuned.compare_to_frozen(result)
        return
    depth = snapshot.tap_depths.get(best.tap_refs[0]) if len(best.tap_refs) == 1 else None
    depth_note = (
        "" if depth is None else f" The tap lies at {wording.format_percent(depth, 0)} of the backbone's forward cost."
    )
    yield Text(
        f"It was chosen by {_name_selection_method(snapshot)} among {len(snapshot.scores)} trials, where it reached "
        f"{wording.format_percent(result.best.score.accuracy)}; then it was trained once on all "
        f"{splits.n_development} images outside the test split, and met the test images once.{depth_note}"
    )


def _describe_runner_up(snapshot: RunSnapshot, runner_up: RunnerUp) -> Text:
    """How sure it is that the winner is better, in words."""
    comparison = runner_up.comparison
    low, high = comparison.difference_95
    if comparison.difference < 0:
        verdict = "did better on these images: the winner was chosen by log-loss as well"
    elif comparison.p_value > _SIGNIFICANCE_LEVEL:
        verdict = "is not told apart from it by these images"
    else:
        verdict = "is worse by more than chance would do"
    sample_size = f"{comparison.images} images" if comparison.groups is None else f"{comparison.groups} groups"
    return Text(
        f"The runner-up, {_describe_trial(snapshot, runner_up.trial)} with "
        f"{wording.format_percent(runner_up.score.accuracy)}, {verdict}: a difference of "
        f"{100 * comparison.difference:+.1f} points on {sample_size} (95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}, p = {comparison.p_value:.2g}). The winner was chosen on these same images, which favours it."
    )


def _build_near_duplicates(near_duplicates: NearDuplicateSummary) -> Iterator[Part]:
    if near_duplicates.test_images:
        accuracy_without = near_duplicates.accuracy_without
        accuracy_note = (
            "" if accuracy_without is None else f"; without them the accuracy is {wording.format_percent(accuracy_without)}"
        )
        yield Text(
            f"{near_duplicates.test_images} test images are nearly the same as others that were learnt from{accuracy_note}.",
            "warning",
        )


def _build_export(snapshot: RunSnapshot, specs: Mapping[str, ExtractionSpec], best: Trial) -> Iterator[Part]:
    if all(tap_ref.extraction in specs and specs[tap_ref.extraction].architecture for tap_ref in best.tap_refs):
        yield Text("As one model, from the pixels to the class:")
        yield Command(wording.format_command(snapshot, "export", snapshot.path, "-o", "model.keras"))
    else:
        yield Text("The features came from a file that does not say which network made them: there is no model to export.")


def _build_advice(advice: Advice) -> Iterator[Part]:
    """Which scenario the data is in, as it was said when the run ended."""
    yield Text(f"What next? This is {format_scenario(advice)}. Why: {'; '.join(advice.reasons)}.")
    if advice.caveats:
        yield Text(f"That is not sure: {'; '.join(advice.caveats)}.", "warning")
    for step in advice.next:
        yield Text(f"{step.reason[:1].upper()}{step.reason[1:]}:")
        yield Command(step.command)
