"""The end of a fine-tuning: the tuned network scored once on the test split, beside the frozen one, and all written down."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.errors import ParityError
from ...cache.store import Store
from ...extract.backbones.backbone_spec import Request
from ...extract.engine.extract import Extracted
from ..data import select_features
from ..evaluate import metrics, significance
from ..evaluate.confidence_intervals import of_share
from ..evaluate.trial import Score, Trial
from ..export.rebuild_backbone import rebuilt
from ..export.stack_model import stack
from ..runs import tables
from ..runs.finetuned_weights import Tuned
from ..runs.run import Run, unguarded
from ..sweep.finalize import alike, near, notes, scored_groups
from . import batches as feed
from .prepare import Prepared

_WORSE = 0.05  # of a probability: more than maps in half precision and folded normalisations can do


@dataclass(frozen=True)
class Sample:
    """Images numbered `rows` (n,) and what the tuned network answers their cached maps, (n, classes)."""

    rows: np.ndarray
    answers: np.ndarray


def conclude(
    run: Run,
    prepared: Prepared,
    tuned: Tuned,
    score: Score,
    start: dict[str, float],
    sample: Sample | None,
    store: Store,
    requests: Sequence[Request],
    extracted: Sequence[Extracted],
    jobs: int,
    began: float,
) -> None:
    """Answer the test images from their pixels with the network as it will be exported, and write the run.

    Where it was trained on cached maps, it must answer images held out as it answers their maps, or `ParityError` is raised.
    """
    splits, images, trial = prepared.splits, prepared.images, prepared.tuned
    rows = splits.test if sample is None else np.concatenate([splits.test, sample.rows])
    answers = _answers(prepared, tuned, requests, rows, jobs)
    probabilities = answers[: len(splits.test)]
    difference = None if sample is None else _difference(prepared, sample, answers[len(splits.test) :])
    frozen = {each: its for each, its in prepared.run.trials().items() if each.head != trial.head}
    tuned.save(run, trial)
    known = run.trials()
    scores = {**frozen, trial: score}
    run.append({each: its for each, its in scores.items() if each not in known}, time.monotonic() - began)
    tables.write(run, images, splits, scores, probabilities)
    grouped = alike(splits, splits.test)
    stored = select_features.stored(store, prepared.trial.sources)
    held = _on_held_out(prepared, trial, score)
    run.finish(
        {
            "data": prepared.run.description["data"],
            "best": {"id": trial.id, **trial.to_dict(), "score": score.to_dict()},
            "runner_up": held,
            "test": metrics.report(splits.labels[splits.test], probabilities, splits.classes, grouped),
            "test_plain": None,
            "groups": None if held is None else held["compared"]["groups"],
            "accuracy_95": {**(prepared.run.description.get("accuracy_95") or {}), trial.id: _interval(prepared, score)},
            "near_duplicates": near(images, splits, stored, probabilities),
            "notes": [*notes(splits, trial, score, prepared.fold[1]), *_notes(score, start, prepared.kind)],
            "seconds": round(time.monotonic() - began, 3),
            "finetune": {
                **run.description["finetune"],
                "before": start,
                "held_out": len(prepared.fold[1]),
                "frozen": _on_test(prepared, trial, probabilities),
                "map_difference": difference if sample else run.description["finetune"].get("map_difference"),
                **({"cached": [each.to_dict() for each in extracted if each.computed]} if extracted else {}),
            },
        }
    )


def _answers(prepared: Prepared, tuned: Tuned, requests: Sequence[Request], rows: np.ndarray, jobs: int) -> np.ndarray:
    """Probabilities (n, classes) of images, from their pixels, by the network that an export would write."""
    from .trainable_tail import predict

    model = stack(rebuilt(prepared.spec, requests, tuned=tuned.weights), prepared.taps, tuned.head)
    batches = feed.of_images(prepared, rows, False, jobs)
    try:
        return predict(model, batches)
    finally:
        batches.close()


def _difference(prepared: Prepared, sample: Sample, answers: np.ndarray) -> float:
    """How far a probability lies apart at most, from maps and from pixels; raises `ParityError` where that is too far."""
    found = float(np.abs(sample.answers - answers).max())
    if {prepared.recipe.precision, prepared.spec.precision} == {"float32"} and not found <= _WORSE:
        raise ParityError(
            f"{prepared.run.path}: expected the tuned network to answer images as their cached maps, found probabilities "
            f"{found:.2g} apart; check the cache with `humeris cache verify`"
        )
    return found


def _on_held_out(prepared: Prepared, trial: Trial, score: Score) -> dict[str, Any] | None:
    """The frozen trial beside the tuned one on the images held out, in the form of a run's runner-up.

    None where the frozen one was scored on averages over views, and the tuned one on plain images.
    """
    if prepared.run.description["views"]["average"]:
        return None
    splits, frozen, its = prepared.splits, prepared.trial, prepared.score
    rows, held = splits.development, prepared.fold[1]
    places = np.searchsorted(rows, held)
    mask = np.zeros(len(rows), bool)
    mask[places] = True
    groups = scored_groups(splits)
    grouped = None if groups is None else np.where(mask, groups, -1)
    now, then = (significance.right(each)[: len(rows)] & mask for each in (score, its))
    compared = significance.between(trial.id, frozen.id, now, then, len(held), grouped)
    described = {name: value for name, value in its.to_dict().items() if name not in {"detail", "right"}}
    return {"id": frozen.id, **frozen.to_dict(), "score": described, "compared": compared.to_dict()}


def _interval(prepared: Prepared, score: Score) -> list[float]:
    """The 95 % interval of the accuracy on the images held out, which are fewer than those of the frozen trials."""
    splits, held = prepared.splits, prepared.fold[1]
    rows = splits.development
    return list(of_share(significance.right(score)[np.searchsorted(rows, held)], alike(splits, held)))


def _on_test(prepared: Prepared, trial: Trial, probabilities: np.ndarray) -> dict[str, Any] | None:
    """The frozen winner on the test split, and the two compared there; None where the run did not score that trial."""
    described = prepared.run.description
    if described["best"]["id"] != prepared.trial.id:
        return None
    tested = described.get("test_plain") or described["test"]
    found = {
        "trial": prepared.trial.to_dict(),
        "seconds": described.get("seconds"),
        "test": {name: tested[name] for name in ("images", "accuracy", "accuracy_95") if name in tested},
        "compared": None,  # what it answered to plain images is not kept where views were averaged
    }
    if described.get("test_plain"):
        return found
    with (prepared.run.path / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        said = {unguarded(row["path"]): unguarded(row["predicted"]) for row in csv.DictReader(file)}
    splits = prepared.splits
    names = [prepared.images.used[row].name for row in splits.test]
    labels = splits.labels[splits.test]
    then = np.array([said.get(name) == splits.classes[label] for name, label in zip(names, labels, strict=True)])
    groups = alike(splits, splits.test)
    now = probabilities.argmax(axis=1) == labels
    compared = significance.between(trial.id, prepared.trial.id, now, then, len(labels), groups)
    return {**found, "compared": compared.to_dict()}


def _notes(score: Score, start: dict[str, float], kind: str) -> list[str]:
    """What the curves say against the tuned network."""
    best = score.detail["epochs"] - 1
    lowest = score.detail["curves"]["val_loss"][best]
    if lowest < start["val_loss"]:
        return []
    found = f"on the images held out (log-loss {lowest:.3f}, before {start['val_loss']:.3f})"
    if kind == "random":
        return [f"no epoch was better than untrained weights {found}: train for longer, or at another learning rate"]
    return [
        f"no epoch was better than the frozen network {found}: take the frozen one, or try a lower learning rate, a later "
        "layer, or augmentation"
    ]
