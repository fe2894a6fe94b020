"""What a report says of a run whose winner is a fine-tuned network: how it was trained, and what that brought."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...evaluate.trial import Trial
from .. import wording
from ..blocks import Part, Table, Text
from ..run_snapshot import Evidence

_SURE = 0.05
_KINDS = {"random": "trained from scratch", "input": "fine-tuned as a whole"}


def named(trial: Trial) -> str:
    """The trial in words, as they stand within a sentence."""
    said = trial.setting
    how = _KINDS.get(str(said.get("weights") or said.get("from")), f"fine-tuned above {said.get('from')}")
    return f"the network {how}, with the head of {wording.head(str(said.get('head')))} on {wording.taps(trial.sources)},"


def how(evidence: Evidence, trial: Trial) -> str:
    """How it was trained and chosen."""
    splits, said = evidence.splits, trial.setting
    held = evidence.description["finetune"]["held_out"]
    epochs = int(evidence.scores[trial].detail["epochs"])
    outside = splits["train"] + splits["val"]
    again = (
        f"it was then trained again for as many on all {outside} images outside the test split"
        if said.get("refit")
        else f"it is what {outside - held} images had made of it by then"
    )
    return (
        f"It began as trial {said.get('start')} of the frozen heads. On {held} images that it did not learn from, epoch "
        f"{epochs} was best ({wording.percent(evidence.scores[trial].accuracy)} right); {again}, and met the test images "
        "once."
    )


def beside_frozen(evidence: Evidence) -> Iterator[Part]:
    """The test accuracy of the tuned network and of the frozen one, and whether they are told apart."""
    found = (evidence.description.get("finetune") or {}).get("frozen")
    if not found:
        return
    trial = Trial.from_dict(found["trial"])
    rows = [_row(f"frozen, {wording.head(trial.head)}", found["test"]), _row("fine-tuned", evidence.test)]
    yield Table("On the test images", ["network", "accuracy", "95 % from", "to", "images"], rows, digits=4)
    compared = found["compared"]
    if not compared:
        yield Text("The two are not compared image by image: the frozen one's answers to plain images were not kept.")
        return
    low, high = compared["difference_95"]
    verdict = "more than chance would do" if compared["p_value"] <= _SURE else "which does not tell them apart"
    counted = f"{compared['images']} test images" if compared.get("groups") is None else f"{compared['groups']} groups"
    yield Text(
        f"Fine-tuning changed the accuracy by {100 * compared['difference']:+.1f} points on {counted} (95 % interval "
        f"{100 * low:+.1f} to {100 * high:+.1f}, p = {compared['p_value']:.2g}), {verdict}: {compared['only_winner']} are "
        f"answered rightly only by the tuned network, {compared['only_runner_up']} only by the frozen one."
    )


def _row(name: str, test: Mapping[str, Any]) -> list[Any]:
    return [name, test["accuracy"], *test["accuracy_95"], test["images"]]
