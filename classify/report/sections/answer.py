"""The answer: which head on which tap, how good it is, how sure that is, and how to have it."""

from __future__ import annotations

from collections.abc import Iterator

from ...advise.scenario import format_scenario as case
from ...evaluate.trial import Trial
from ...runs.finetuned_weights import is_finetuned
from .. import wording
from ..blocks import Command, Part, Section, Text
from ..run_snapshot import RunSnapshot
from . import finetuned

_SIGNIFICANCE_LEVEL = 0.05
_METADATA_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def build_section(snapshot: RunSnapshot) -> Section:
    """The winner and its test accuracy in one sentence, the runner-up, what to mind, how to have it, what to try next."""
    return Section("answer", "The answer", list(_build_parts(snapshot)))


def summarize(snapshot: RunSnapshot) -> str:
    """The answer in one sentence, or why there is none."""
    best, test = snapshot.best, snapshot.test
    if best is None:
        return "No trial of this run has ended, so that there is no answer."
    winner = _describe_trial(snapshot, best)
    if not test:
        score = snapshot.scores[best]
        accuracy = wording.format_percent(score.accuracy)
        return f"So far {winner} is ahead with {accuracy} in {_name_selection_method(snapshot)}; no test image was seen."
    groups = f" from {test['groups']} groups" if test.get("groups") else ""
    majority_count = max((class_scores["images"] for class_scores in test["per_class"]), default=0)
    return (
        f"{winner[0].upper()}{winner[1:]} answers {wording.format_percent(test['accuracy'])} of {test['images']} test "
        f"images{groups} rightly (95 % interval {wording.format_interval(test['accuracy_95'])}), where always naming the "
        f"commonest class would get {wording.format_percent(majority_count / test['images'])}."
    )


def _describe_trial(snapshot: RunSnapshot, trial: Trial) -> str:
    if is_finetuned(trial):
        return finetuned.describe_trial(trial)
    words = wording.format_hyperparameters(trial, wording.list_varied_options(snapshot, trial.head))
    return f"{wording.format_head(trial.head)}{f' ({words})' if words else ''} on {wording.format_taps(trial.tap_refs)}"


def _name_selection_method(snapshot: RunSnapshot) -> str:
    return "validation" if snapshot.splits.get("select") == "val" else "cross-validation"


def _build_parts(snapshot: RunSnapshot) -> Iterator[Part]:
    for builder in (
        _build_summary,
        _build_selection,
        _build_runner_up,
        _build_plain_view,
        _build_notes,
        _build_near_duplicates,
        _build_export,
        _build_advice,
    ):
        try:
            yield from list(builder(snapshot, snapshot.best)) if snapshot.best or builder is _build_summary else []
        except _METADATA_ERRORS as error:
            words = builder.__name__.removeprefix("_build_").replace("_", "-")
            yield Text(f"A part of the answer ({words}) cannot be told: run.json has no sound {error}.", "missing")


def _build_summary(snapshot: RunSnapshot, _: Trial | None) -> Iterator[Part]:
    yield Text(summarize(snapshot))


def _build_plain_view(snapshot: RunSnapshot, _: Trial | None) -> Iterator[Part]:
    plain_scores = snapshot.metadata.get("test_plain")
    if plain_scores:
        yield Text(f"On the plain view alone it answers {wording.format_percent(plain_scores['accuracy'])} rightly.")


def _build_notes(snapshot: RunSnapshot, _: Trial | None) -> Iterator[Part]:
    yield from (Text(str(note), "warning") for note in snapshot.metadata.get("notes") or [])


def _build_selection(snapshot: RunSnapshot, best: Trial | None) -> Iterator[Part]:
    if not snapshot.test or best is None:
        return
    splits = snapshot.splits
    if is_finetuned(best):
        yield Text(finetuned.describe_training(snapshot, best))
        yield from finetuned.compare_to_frozen(snapshot)
        return
    depth = snapshot.tap_depths.get(best.tap_refs[0]) if len(best.tap_refs) == 1 else None
    depth_note = (
        "" if depth is None else f" The tap lies at {wording.format_percent(depth, 0)} of the backbone's forward cost."
    )
    yield Text(
        f"It was chosen by {_name_selection_method(snapshot)} among {len(snapshot.scores)} trials, where it reached "
        f"{wording.format_percent(snapshot.scores[best].accuracy)}; then it was trained once on all "
        f"{splits['train'] + splits['val']} images outside the test split, and met the test images once.{depth_note}"
    )


def _build_runner_up(snapshot: RunSnapshot, _: Trial | None) -> Iterator[Part]:
    """How sure it is that the winner is better, in words."""
    runner_up = snapshot.metadata.get("runner_up")
    if not runner_up or is_finetuned(snapshot.best):
        return
    runner_up_trial = Trial.from_dict(runner_up)
    comparison = runner_up["compared"]
    low, high = comparison["difference_95"]
    if comparison["difference"] < 0:
        verdict = "did better on these images: the winner was chosen by log-loss as well"
    elif comparison["p_value"] > _SIGNIFICANCE_LEVEL:
        verdict = "is not told apart from it by these images"
    else:
        verdict = "is worse by more than chance would do"
    sample_size = f"{comparison['images']} images" if comparison.get("groups") is None else f"{comparison['groups']} groups"
    yield Text(
        f"The runner-up, {_describe_trial(snapshot, runner_up_trial)} with "
        f"{wording.format_percent(runner_up['score']['accuracy'])}, {verdict}: a difference of "
        f"{100 * comparison['difference']:+.1f} points on {sample_size} (95 % interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}, p = {comparison['p_value']:.2g}). The winner was chosen on these same images, which favours it."
    )


def _build_near_duplicates(snapshot: RunSnapshot, _: Trial | None) -> Iterator[Part]:
    near_duplicates = snapshot.metadata.get("near_duplicates") or {}
    if near_duplicates.get("test_images"):
        accuracy_without = near_duplicates.get("accuracy_without")
        accuracy_note = (
            "" if accuracy_without is None else f"; without them the accuracy is {wording.format_percent(accuracy_without)}"
        )
        yield Text(
            f"{near_duplicates['test_images']} test images are nearly the same as others that were learnt "
            f"from{accuracy_note}.",
            "warning",
        )


def _build_export(snapshot: RunSnapshot, best: Trial | None) -> Iterator[Part]:
    if not snapshot.complete or best is None:
        return
    specs = snapshot.metadata.get("specs") or {}
    if all((specs.get(tap_ref.extraction) or {}).get("architecture") for tap_ref in best.tap_refs):
        yield Text("As one model, from the pixels to the class:")
        yield Command(wording.format_command(snapshot, "export", snapshot.path, "-o", "model.keras"))
    else:
        yield Text("The features came from a file that does not say which network made them: there is no model to export.")


def _build_advice(snapshot: RunSnapshot, _: Trial | None) -> Iterator[Part]:
    """Which case the data is in, as it was said when the run ended; runs of an older humeris have none."""
    advice = snapshot.metadata.get("advice")
    if not advice:
        return
    scenario = case(advice)
    yield Text(f"What next? This is {scenario}. Why: {'; '.join(advice['why'])}.")
    if advice["thin"]:
        yield Text(f"That is not sure: {'; '.join(advice['thin'])}.", "warning")
    for step in advice["next"]:
        yield Text(f"{step['why'][:1].upper()}{step['why'][1:]}:")
        yield Command(step["command"])
