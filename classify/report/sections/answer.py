"""The answer: which head on which tap, how good it is, how sure that is, and how to have it."""

from __future__ import annotations

from collections.abc import Iterator

from ...advise.scenario import sentence as case
from ...evaluate.trial import Trial
from ...runs.finetuned_weights import is_tuned
from .. import wording
from ..blocks import Command, Part, Section, Text
from ..run_snapshot import Evidence
from . import finetuned

_SURE = 0.05
_ODD = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def section(evidence: Evidence) -> Section:
    """The winner and its test accuracy in one sentence, the runner-up, what to mind, how to have it, what to try next."""
    return Section("answer", "The answer", list(_parts(evidence)))


def sentence(evidence: Evidence) -> str:
    """The answer in one sentence, or why there is none."""
    best, test = evidence.best, evidence.test
    if best is None:
        return "No trial of this run has ended, so that there is no answer."
    named = _named(evidence, best)
    if not test:
        score = evidence.scores[best]
        accuracy = wording.percent(score.accuracy)
        return f"So far {named} is ahead with {accuracy} in {_choosing(evidence)}; no test image was seen."
    groups = f" from {test['groups']} groups" if test.get("groups") else ""
    commonest = max((each["images"] for each in test["per_class"]), default=0)
    return (
        f"{named[0].upper()}{named[1:]} answers {wording.percent(test['accuracy'])} of {test['images']} test images{groups} "
        f"rightly (95 % interval {wording.interval(test['accuracy_95'])}), where always naming the commonest class would "
        f"get {wording.percent(commonest / test['images'])}."
    )


def _named(evidence: Evidence, trial: Trial) -> str:
    if is_tuned(trial):
        return finetuned.named(trial)
    words = wording.setting(trial, wording.varied(evidence, trial.head))
    return f"{wording.head(trial.head)}{f' ({words})' if words else ''} on {wording.taps(trial.sources)}"


def _choosing(evidence: Evidence) -> str:
    return "validation" if evidence.splits.get("select") == "val" else "cross-validation"


def _parts(evidence: Evidence) -> Iterator[Part]:
    for make in (_sentence, _how, _runner_up, _plain, _notes, _copies, _export, _advice):
        try:
            yield from list(make(evidence, evidence.best)) if evidence.best or make is _sentence else []
        except _ODD as error:
            words = make.__name__.strip("_").replace("_", "-")
            yield Text(f"A part of the answer ({words}) cannot be told: run.json has no sound {error}.", "missing")


def _sentence(evidence: Evidence, _: Trial | None) -> Iterator[Part]:
    yield Text(sentence(evidence))


def _plain(evidence: Evidence, _: Trial | None) -> Iterator[Part]:
    plain = evidence.description.get("test_plain")
    if plain:
        yield Text(f"On the plain view alone it answers {wording.percent(plain['accuracy'])} rightly.")


def _notes(evidence: Evidence, _: Trial | None) -> Iterator[Part]:
    yield from (Text(str(note), "warning") for note in evidence.description.get("notes") or [])


def _how(evidence: Evidence, best: Trial | None) -> Iterator[Part]:
    if not evidence.test or best is None:
        return
    splits = evidence.splits
    if is_tuned(best):
        yield Text(finetuned.how(evidence, best))
        yield from finetuned.beside_frozen(evidence)
        return
    depth = evidence.depth.get(best.sources[0]) if len(best.sources) == 1 else None
    where = "" if depth is None else f" The tap lies at {wording.percent(depth, 0)} of the backbone's forward cost."
    yield Text(
        f"It was chosen by {_choosing(evidence)} among {len(evidence.scores)} trials, where it reached "
        f"{wording.percent(evidence.scores[best].accuracy)}; then it was trained once on all "
        f"{splits['train'] + splits['val']} images outside the test split, and met the test images once.{where}"
    )


def _runner_up(evidence: Evidence, _: Trial | None) -> Iterator[Part]:
    """How sure it is that the winner is better, in words."""
    found = evidence.description.get("runner_up")
    if not found or is_tuned(evidence.best):
        return
    other = Trial.from_dict(found)
    compared = found["compared"]
    low, high = compared["difference_95"]
    if compared["difference"] < 0:
        verdict = "did better on these images: the winner was chosen by log-loss as well"
    elif compared["p_value"] > _SURE:
        verdict = "is not told apart from it by these images"
    else:
        verdict = "is worse by more than chance would do"
    counted = f"{compared['images']} images" if compared.get("groups") is None else f"{compared['groups']} groups"
    yield Text(
        f"The runner-up, {_named(evidence, other)} with {wording.percent(found['score']['accuracy'])}, {verdict}: a "
        f"difference of {100 * compared['difference']:+.1f} points on {counted} "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}, "
        f"p = {compared['p_value']:.2g}). The winner was chosen on these same images, which favours it."
    )


def _copies(evidence: Evidence, _: Trial | None) -> Iterator[Part]:
    found = evidence.description.get("near_duplicates") or {}
    if found.get("test_images"):
        without = found.get("accuracy_without")
        rest = "" if without is None else f"; without them the accuracy is {wording.percent(without)}"
        yield Text(
            f"{found['test_images']} test images are nearly the same as others that were learnt from{rest}.", "warning"
        )


def _export(evidence: Evidence, best: Trial | None) -> Iterator[Part]:
    if not evidence.complete or best is None:
        return
    specs = evidence.description.get("specs") or {}
    if all((specs.get(source.extraction) or {}).get("architecture") for source in best.sources):
        yield Text("As one model, from the pixels to the class:")
        yield Command(wording.command(evidence, "export", evidence.path, "-o", "model.keras"))
    else:
        yield Text("The features came from a file that does not say which network made them: there is no model to export.")


def _advice(evidence: Evidence, _: Trial | None) -> Iterator[Part]:
    """Which case the data is in, as it was said when the run ended; runs of an older humeris have none."""
    found = evidence.description.get("advice")
    if not found:
        return
    told = case(found)
    yield Text(f"What next? This is {told}. Why: {'; '.join(found['why'])}.")
    if found["thin"]:
        yield Text(f"That is not sure: {'; '.join(found['thin'])}.", "warning")
    for step in found["next"]:
        yield Text(f"{step['why'][:1].upper()}{step['why'][1:]}:")
        yield Command(step["command"])
