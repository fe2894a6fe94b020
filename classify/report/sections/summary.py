"""The summary: the test accuracy of the winner, how it was selected, how to export it, and what to try next."""

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
    """Build the section: test accuracy, selection, runner-up, caveats, the export command and the advice."""
    return Section("summary", "Summary", list(_build_parts(snapshot)))


def summarize(snapshot: RunSnapshot) -> str:
    """Return the result of a run in one sentence, or why there is none."""
    best, test = snapshot.best, snapshot.test
    if best is None:
        return "No trial of this run has finished, so there is no result yet."
    winner = _describe_trial(snapshot, best)
    if test is None:
        accuracy = wording.format_percent(snapshot.scores[best].accuracy)
        test_note = "The test scores cannot be read" if snapshot.metadata is None else "The test split has not been scored"
        return f"Best accuracy so far {accuracy} {wording.format_selection(snapshot)}: {winner}. {test_note}."
    groups = f" in {test.groups} groups" if test.groups else ""
    majority_count = max((class_scores.images for class_scores in test.per_class), default=0)
    return (
        f"Test accuracy {wording.format_percent(test.accuracy)} (95 % CI {wording.format_interval(test.accuracy_95)}) on "
        f"{test.images} images{groups}: {winner}{_describe_search(snapshot, best)}; the majority class alone scores "
        f"{wording.format_percent(majority_count / test.images)}."
    )


def _describe_trial(snapshot: RunSnapshot, trial: Trial) -> str:
    if is_finetuned(trial):
        return finetuned.describe_trial(trial)
    hyperparameters = wording.format_hyperparameters(trial, wording.list_varied_options(snapshot, trial.head))
    head = f"{wording.format_head(trial.head)}{f' ({hyperparameters})' if hyperparameters else ''}"
    return f"{head} on {wording.format_taps(trial.tap_refs)}"


def _describe_search(snapshot: RunSnapshot, best: Trial) -> str:
    """Return how many taps and heads the winner was selected from; "" of a fine-tuned network."""
    if is_finetuned(best):
        return ""
    n_taps, n_heads = (len({getattr(trial, name) for trial in snapshot.scores}) for name in ("tap_refs", "head"))
    return f", selected from {n_taps} tap{'s' * (n_taps != 1)} × {n_heads} head{'s' * (n_heads != 1)}"


def _build_parts(snapshot: RunSnapshot) -> Iterator[Part]:
    yield Text(summarize(snapshot))
    if snapshot.metadata is None or snapshot.result is None or snapshot.best is None:
        return
    result = snapshot.result
    yield from _build_selection(snapshot, snapshot.metadata.splits, result)
    if result.runner_up is not None and not is_finetuned(snapshot.best):
        yield _describe_runner_up(snapshot, result.runner_up)
    if result.test_plain is not None:
        yield Text(f"Without view averaging the test accuracy is {wording.format_percent(result.test_plain.accuracy)}.")
    yield from (Text(note, "warning") for note in result.notes)
    yield from _build_near_duplicates(result.near_duplicates)
    yield from _build_export(snapshot, snapshot.metadata.specs, snapshot.best)
    if result.advice is not None:
        yield from _build_advice(result.advice)


def _build_selection(snapshot: RunSnapshot, splits: SplitsSummary, result: RunResult) -> Iterator[Part]:
    """Describe how the winner was selected and trained."""
    best = result.best.trial
    if is_finetuned(best):
        yield Text(finetuned.describe_training(splits, result))
        yield from finetuned.compare_to_frozen(result)
        return
    depth = snapshot.tap_depths.get(best.tap_refs[0]) if len(best.tap_refs) == 1 else None
    depth_note = (
        "" if depth is None else f" The tap is at {wording.format_percent(depth, 0)} of the backbone's forward cost."
    )
    yield Text(
        f"Selected from {len(snapshot.scores)} trials {wording.format_selection(snapshot)} (accuracy "
        f"{wording.format_percent(result.best.score.accuracy)}), then trained on all {splits.n_development} images outside "
        f"the test split and scored once on the test split.{depth_note}"
    )


def _describe_runner_up(snapshot: RunSnapshot, runner_up: RunnerUp) -> Text:
    """Compare the runner-up with the winner: the difference, its interval, and whether it is significant."""
    comparison = runner_up.comparison
    low, high = comparison.difference_95
    if comparison.difference < 0:
        verdict = "the winner was selected by log-loss as well"
    elif comparison.p_value > _SIGNIFICANCE_LEVEL:
        verdict = "not significant"
    else:
        verdict = "significant"
    sample_size = f"{comparison.images} images" if comparison.groups is None else f"{comparison.groups} groups"
    return Text(
        f"Runner-up: {_describe_trial(snapshot, runner_up.trial)}, accuracy "
        f"{wording.format_percent(runner_up.score.accuracy)}. Winner minus runner-up: {100 * comparison.difference:+.1f} "
        f"points on {sample_size} (95 % CI {100 * low:+.1f} to {100 * high:+.1f}, p = {comparison.p_value:.2g}), "
        f"{verdict}. "
        "The winner was selected on these same images, so the comparison is biased in its favor."
    )


def _build_near_duplicates(near_duplicates: NearDuplicateSummary) -> Iterator[Part]:
    if near_duplicates.test_images:
        yield Text(wording.describe_near_duplicates(near_duplicates), "warning")


def _build_export(snapshot: RunSnapshot, specs: Mapping[str, ExtractionSpec], best: Trial) -> Iterator[Part]:
    if all(tap_ref.extraction in specs and specs[tap_ref.extraction].architecture for tap_ref in best.tap_refs):
        yield Text("Export as one model, from pixels to class probabilities:")
        yield Command(wording.format_command(snapshot, "export", snapshot.path, "-o", "model.keras"))
    else:
        yield Text("The features come from a file that does not name their network, so there is no model to export.")


def _build_advice(advice: Advice) -> Iterator[Part]:
    """Show the scenario, its evidence and the next steps, as stored when the run ended."""
    yield Text(f"Advice: {format_scenario(advice)}. Evidence: {'. '.join(map(_capitalize, advice.reasons))}.")
    if advice.caveats:
        yield Text(f"{_capitalize('; '.join(advice.caveats))}.", "warning")
    for step in advice.next:
        yield Text(f"{_capitalize(step.reason)}:")
        yield Command(step.command)


def _capitalize(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
