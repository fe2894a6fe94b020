"""The end of a sweep: the winner trained once more, scored once, and everything written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...extract.images.load import Images
from ..data.feature_matrix import Stored
from ..data.splits import Splits
from ..data.views import Shown, Views
from ..diagnose import near_duplicates
from ..evaluate import metrics, significance
from ..evaluate.confidence_intervals import of_share
from ..evaluate.trial import Score, Trial, ranked
from ..heads.fit import answers, problem, train
from ..runs import tables
from ..runs.run import Run

_FEW = 100  # test images, below which the 95 % interval is about 16 points wide at an accuracy of 0.8
_FEW_GROUPS = 20  # below which variances are hardly known


def conclude(
    run: Run,
    images: Images,
    splits: Splits,
    stored: Sequence[Stored],
    views: Views,
    seed: int,
    jobs: int,
    described: Mapping[str, Any],
) -> None:
    """Train the winner, score it once, write everything down.

    What is learnt from and what is tested on are in memory one after the other.
    """
    scores = run.trials()
    chosen = ranked(scores)[0]
    rows, tested = splits.development, images.keys[splits.test]
    head = run.head(chosen)
    if head is None:
        learnt = problem(stored, images.keys[rows], splits.labels[rows], len(splits.classes), (), views, jobs)
        head = train(chosen, scores[chosen], learnt, splits.classes, seed)
        del learnt
    probabilities = answers(head, Shown.of(stored, tested, views.count if views.average else 0))
    plain = answers(head, Shown.of(stored, tested)) if views.average else probabilities
    run.save_head(chosen, head)
    tables.write(run, images, splits, scores, probabilities)
    held, tested_groups = scored_groups(splits), alike(splits, splits.test)
    compared = significance.compare(scores, len(_scored(splits)), held)
    run.finish(
        {
            **described,
            "best": {"id": chosen.id, **chosen.to_dict(), "score": scores[chosen].to_dict()},
            "runner_up": _runner_up(scores, compared),
            "test": metrics.report(splits.labels[splits.test], probabilities, splits.classes, tested_groups),
            "test_plain": metrics.report(splits.labels[splits.test], plain, splits.classes, tested_groups)
            if views.average
            else None,
            "groups": None if held is None else len(np.unique(held[held >= 0])),
            "accuracy_95": {} if held is None else _accuracies(run, scores, held),
            "near_duplicates": near(images, splits, stored, probabilities),
            "notes": [
                *notes(splits, chosen, scores[chosen]),
                *_refused_views(stored, images.keys if views.average else images.keys[rows], views.count),
            ],
        }
    )


def alike(splits: Splits, rows: np.ndarray) -> np.ndarray | None:
    """The group number of each of the images `rows`; None where each stands for itself."""
    if splits.groups is None:
        return None
    number = np.unique(splits.groups[rows], return_inverse=True)[1]
    return None if len(np.unique(number)) == len(rows) else number


def scored_groups(splits: Splits) -> np.ndarray | None:
    """The group number of each image that may be learnt from, -1 of those not scored for choosing; None as `alike` says."""
    groups = alike(splits, _scored(splits))
    if groups is None:
        return None
    found = np.full(len(splits.development), -1)
    found[np.searchsorted(splits.development, _scored(splits))] = groups
    return found


def _scored(splits: Splits) -> np.ndarray:
    """The images that heads were chosen by."""
    return splits.development if splits.select == "cv" else splits.val


def _accuracies(run: Run, scores: Mapping[Trial, Score], held: np.ndarray) -> dict[str, list[float]]:
    """The 95 % intervals of the accuracies in the table, by groups, by the trial's id."""
    shown = {each["trial"] for each in run.depth_curve()}
    found = {
        trial.id: significance.right(score)[: len(held)][held >= 0] for trial, score in scores.items() if trial.id in shown
    }
    return {name: list(of_share(right, held[held >= 0])) for name, right in found.items()}


def near(images: Images, splits: Splits, stored: Sequence[Stored], probabilities: np.ndarray) -> dict[str, Any]:
    """Test images that nearly equal others, as the winner's features show them."""
    rows, names = splits.development, [image.name for image in images.used]
    found = near_duplicates.find(
        Shown.of(stored, images.keys[splits.test]).features.streamed(),
        Shown.of(stored, images.keys[rows]).features.streamed(),
    )
    tested, others = [names[row] for row in splits.test], [names[row] for row in rows]
    labels, groups = splits.labels[splits.test], alike(splits, splits.test)
    return near_duplicates.report(found, tested, others, labels, probabilities, groups)


def _runner_up(scores: Mapping[Trial, Score], compared: significance.Comparison | None) -> dict[str, Any] | None:
    """The best trial of another head or other taps, and how it compares with the winner on the same images."""
    if compared is None:
        return None
    trial = next(trial for trial in scores if trial.id == compared.runner_up)
    score = {name: value for name, value in scores[trial].to_dict().items() if name not in {"detail", "right"}}
    return {"id": trial.id, **trial.to_dict(), "score": score, "compared": compared.to_dict()}


def _refused_views(stored: Sequence[Stored], keys: np.ndarray, count: int) -> list[str]:
    """How many of the views that should be seen are not there, if any."""
    lacking = len(keys) * (1 + count) - len(Shown.of(stored, keys, count).images) if count else 0
    note = f"{lacking} of the {len(keys) * count} augmented views gave NaN or infinity at a tap of the winner: not used"
    return [note] if lacking else []


def notes(splits: Splits, winner: Trial, score: Score, chosen_by: np.ndarray | None = None) -> list[str]:
    """What makes the figures less sure than they look; chosen_by: rows, where they are others than a sweep chooses by."""
    notes = []
    if score.detail.get("converged") is False:
        notes.append(
            f"the solver of {winner.head} was stopped before it had converged in every fold, and its scores are of where it "
            "stood; try smaller values of C"
        )
    counts = np.bincount(splits.labels[splits.test], minlength=len(splits.classes))
    if absent := [splits.classes[number] for number in np.nonzero(counts == 0)[0]]:
        notes.append(f"no test image of {', '.join(absent[:5])}{' …' if len(absent) > 5 else ''}: nothing is known of these")
    if len(splits.test) < _FEW:
        notes.append(f"only {len(splits.test)} test images: mind the width of the interval")
    for what, rows in (
        ("test images", splits.test),
        (
            "images that heads were chosen by",
            _scored(splits) if chosen_by is None else chosen_by,
        ),
    ):
        groups = alike(splits, rows)
        if groups is not None and (count := len(np.unique(groups))) < _FEW_GROUPS:
            notes.append(f"the {what} come from only {count} groups, which are what counts: mind the width of the intervals")
    return notes
