"""Stage two: train heads over cached features, choose one honestly, score it once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..cache.store import Store
from ..extract.dataset import Refusal
from ..extract.images import Images, Progress
from ..extract.request import Request
from ..extract.source import cores
from ..extract.taps import Tap
from . import metrics, paired, sources, tables, tasks
from .family import FAMILIES, Family, parse
from .head import Head
from .matrix import Stored
from .problem import Folds, Problem
from .run import Run
from .splits import Splits, split
from .tasks import Task
from .trial import Score, Source, Trial, ranked
from .views import Shown, Views

_FEW = 100  # test images, below which the interval is wider than +-8 points of 80 %


def sweep(
    images: Images,
    store: Store,
    heads: Sequence[Family | str],
    *,
    requests: Sequence[Request] = (),
    patterns: Sequence[str] = (),
    pools: Sequence[str] = (),
    only: Collection[tuple[str, Tap]] | None = None,
    concatenate: bool = False,
    views: Views | None = None,
    select: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Run:
    """Train every head on every tap asked for, cached or in DATA; the run, whose winner was scored once on the test split.

    What is swept over is as `sources.Wanted` says. The winner is the first of `ranked` by its scores on the folds (or the
    validation split), is trained again on everything but the test split, and only then meets the test split. A run that was
    interrupted goes on where it stopped; one that is complete is returned as it is. `progress` counts trials. Raises
    `DataError`, `LayerError`, `HeadError`, `RunError`.
    """
    families = [parse(head) if isinstance(head, str) else head for head in heads]
    views = views or Views()
    split(images, select)  # labels that cannot be used are found out first
    shelf = images.given or store
    found = sources.find(shelf, images.keys, sources.Wanted(requests, patterns, pools, only, concatenate, views))
    images = _finite(images, found.not_finite).by_digest()
    splits = split(images, select)
    todo = _tasks(found, families)
    plan = _plan(images, splits, todo, views, seed)
    run = Run(out or Path("runs") / f"{images.dataset.title}-{plan[:8]}")
    extractions = {source.extraction for source in found.complete}
    run.begin(
        {
            "plan": plan,
            "command": command,
            "humeris": __version__,
            "splits": splits.summary(),
            "sources": [{**vars(source), "depth": found.depth[source]} for source in found.complete],
            "left_out": [{**vars(source), "images_missing": lacking} for source, lacking in found.left_out.items()],
            "specs": {item.path.name: item.spec.to_dict() for item in shelf.extractions() if item.path.name in extractions},
            "heads": [
                {"head": family.name, "settings": list(family.settings)}
                | ({"rungs": [list(rung) for rung in family.rungs]} if family.rungs else {})
                for family in families
            ],
            "views": views.to_dict(),
            "seed": seed,
        }
    )
    data = {**images.summary(), "listing": _digest([(image.name, image.digest.hex()) for image in images.used])}
    if not run.complete or run.description.get("data") != data:  # the same images may have been moved or renamed since
        began = time.monotonic()
        _try_all(run, todo, found.complete, images.keys, splits, views, seed, jobs or cores(), progress)
        stored = [found.complete[source] for source in ranked(run.trials())[0].sources]
        _conclude(run, images, splits, stored, views, seed, {"data": data, "seconds": round(time.monotonic() - began, 3)})
    return run


def _finite(images: Images, bad: np.ndarray) -> Images:
    """The images without those of the mask `bad` (n,), which are refused."""
    refused = [images.used[row].name for row in np.nonzero(bad)[0]]
    return images.without({name: Refusal(name, "not_finite", "NaN or infinite activations") for name in refused})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plan(images: Images, splits: Splits, todo: Sequence[Task], views: Views, seed: int) -> str:
    """Digest of everything that decides the result, so that the same question finds its own run again."""
    return _digest(
        [
            [(image.digest.hex(), image.item.label, image.item.split, image.item.group) for image in images.used],
            splits.select,
            [
                [[vars(source) for source in task.sources], [(f.name, list(f.settings), f.rungs) for f in task.families]]
                for task in todo
            ],
            views.to_dict(),
            seed,
        ]
    )


def _tasks(found: sources.Found, families: Sequence[Family]) -> list[Task]:
    """The work: on each input the families that train without Keras, then those that train with it.

    Families that choose among the columns of all taps get all of them side by side.
    """
    everything = tuple(found.complete)
    todo = []
    for keras in (False, True):
        here = [family for family in families if family.uses_keras == keras]
        alone = tuple(family for family in here if not family.over_all_taps)
        over_all = tuple(family for family in here if family.over_all_taps)
        tried = {taps: alone for taps in found.inputs if alone}
        if over_all:
            tried[everything] = tried.get(everything, ()) + over_all
        todo += [Task(taps, together) for taps, together in tried.items()]
    return todo


def _try_all(
    run: Run,
    todo: Sequence[Task],
    found: Mapping[Source, Stored],
    keys: np.ndarray,
    splits: Splits,
    views: Views,
    seed: int,
    jobs: int,
    progress: Progress | None,
) -> None:
    """Try every trial that has no score yet."""
    rows = splits.development
    folds = tuple((np.searchsorted(rows, fit), np.searchsorted(rows, score)) for fit, score in splits.folds(seed))
    known = run.trials()
    total, count = sum(task.count for task in todo), len(known)

    def make(task: Task, threads: int) -> Problem:
        stored = [found[source] for source in task.sources]
        return problem(stored, keys[rows], splits.labels[rows], len(splits.classes), folds, views, threads)

    if progress is not None and count:
        progress(min(count, total), total)
    for scores in tasks.work(todo, make, seed, known, jobs):
        run.append(scores)
        count += len(scores)
        if progress is not None:
            progress(min(count, total), total)


def problem(
    stored: Sequence[Stored],
    keys: np.ndarray,
    labels: np.ndarray,
    classes: int,
    folds: Folds = (),
    views: Views | None = None,
    threads: int = 1,
) -> Problem:
    """What heads are trained on: images `keys` (n,) with class numbers (n,) and folds of them, the taps side by side.

    An image is learnt from in every view there is, and scored in the plain one, or in all where views are averaged.
    """
    views = views or Views()
    shown = Shown.of(stored, keys, views.count)
    parts = tuple((shown.rows(fit), shown.rows(score, views.average)) for fit, score in folds)
    return Problem(shown.features, labels[shown.images], classes, parts, shown.images, threads)


def train(trial: Trial, score: Score, learnt: Problem, classes: Sequence[str], seed: int) -> Head:
    """The head of `trial`, trained on all rows of `learnt`."""
    head: Head = FAMILIES[trial.head].fit(learnt, trial.setting, score.detail, classes, seed)
    return head


def answers(head: Head, shown: Shown) -> np.ndarray:
    """Probabilities (images, classes) of the images shown, the mean over their views; a block of rows at a time."""
    found = np.concatenate([head.predict_proba(values) for _, values in shown.features.blocks()])
    return found if len(found) == int(shown.images[-1]) + 1 else shown.mean(found)


def _conclude(
    run: Run,
    images: Images,
    splits: Splits,
    stored: Sequence[Stored],
    views: Views,
    seed: int,
    described: Mapping[str, Any],
) -> None:
    """Train the winner, score it once, write everything down."""
    scores = run.trials()
    chosen = ranked(scores)[0]
    rows, tested = splits.development, images.keys[splits.test]
    head = run.head(chosen)
    if head is None:
        learnt = problem(stored, images.keys[rows], splits.labels[rows], len(splits.classes), (), views, cores())
        head = train(chosen, scores[chosen], learnt, splits.classes, seed)
        del learnt  # the rows of the test split take its place in memory
    probabilities = answers(head, Shown.of(stored, tested, views.count if views.average else 0))
    plain = answers(head, Shown.of(stored, tested)) if views.average else probabilities
    run.save_head(chosen, head)
    tables.write(run, images, splits, scores, probabilities)
    compared = paired.compare(scores, len(rows) if splits.select == "cv" else len(splits.val))
    run.finish(
        {
            **described,
            "best": {"id": chosen.id, **chosen.to_dict(), "score": scores[chosen].to_dict()},
            "runner_up": _runner_up(scores, compared),
            "test": metrics.report(splits.labels[splits.test], probabilities, splits.classes),
            "test_plain": metrics.report(splits.labels[splits.test], plain, splits.classes) if views.average else None,
            "notes": _notes(splits),
        }
    )


def _runner_up(scores: Mapping[Trial, Score], compared: paired.Comparison | None) -> dict[str, Any] | None:
    """The best trial of another head or other taps, and how it compares with the winner on the same images."""
    if compared is None:
        return None
    trial = next(trial for trial in scores if trial.id == compared.runner_up)
    score = {name: value for name, value in scores[trial].to_dict().items() if name not in {"detail", "right"}}
    return {"id": trial.id, **trial.to_dict(), "score": score, "compared": compared.to_dict()}


def _notes(splits: Splits) -> list[str]:
    """What makes the figures less sure than they look."""
    notes = []
    counts = np.bincount(splits.labels[splits.test], minlength=len(splits.classes))
    if absent := [splits.classes[number] for number in np.nonzero(counts == 0)[0]]:
        notes.append(f"no test image of {', '.join(absent[:5])}{' …' if len(absent) > 5 else ''}: nothing is known of these")
    if len(splits.test) < _FEW:
        notes.append(f"only {len(splits.test)} test images: mind the width of the interval")
    if splits.groups is not None:
        groups = len(set(splits.groups[splits.test].tolist()))
        if groups < len(splits.test):
            notes.append(
                f"the {len(splits.test)} test images come from {groups} groups: images of a group are alike, so that the "
                "intervals, which count images, are too narrow"
            )
    return notes
