"""Stage two: train heads over cached features, choose one honestly, score it once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...cache.store import Store
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.taps import Tap
from ...extract.images.load import Images, Progress
from ...extract.pixels.read_file import cores
from ..advise import advice
from ..data import select_features
from ..data.feature_matrix import Stored
from ..data.splits import Splits, split
from ..data.views import Views
from ..evaluate.trial import Source, ranked
from ..heads.fit import problem
from ..heads.registry import Family, parse
from ..heads.training_data import Problem
from ..runs.run import Run
from . import scheduler
from .finalize import conclude
from .scheduler import Task


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
    interrupted goes on where it stopped; one that is complete is returned as it is, but for advice to which features of
    random weights, cached since, add. `progress` counts trials. Raises `DataError`, `LayerError`, `HeadError`, `RunError`.
    """
    families = [parse(head) if isinstance(head, str) else head for head in heads]
    views = views or Views()
    split(images, select)  # labels that cannot be used are found out first
    shelf = images.given or store
    found = select_features.find(
        shelf, images.keys, select_features.Wanted(requests, patterns, pools, only, concatenate, views)
    )
    images = found.finite(images).by_digest()
    splits = split(images, select)
    due = _tasks(found, families)
    make = _maker(images, splits, found.complete, views, seed)
    scheduler.check(due, make)
    plan = _plan(images, splits, due, views, seed)
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
            "specs": {item.name: item.spec.to_dict() for item in shelf.extractions() if item.name in extractions},
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
        with run.claimed():
            began, jobs = time.monotonic() - run.spent(), jobs or cores()  # of all sessions together
            _try_all(run, due, make, seed, jobs, progress, began)
            stored = [found.complete[source] for source in ranked(run.trials())[0].sources]
            told = advice.advise(run, images, splits, store, shelf, jobs)
            described = {"data": data, "advice": told, "seconds": round(time.monotonic() - began, 3)}
            conclude(run, images, splits, stored, views, seed, jobs, described)
    elif advice.renewable(run, images, splits, store):
        with run.claimed():
            run.finish({"advice": advice.advise(run, images, splits, store, shelf, jobs or cores())})
    return run


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plan(images: Images, splits: Splits, due: Sequence[Task], views: Views, seed: int) -> str:
    """Digest of everything that decides the result, so that the same question finds its own run again."""
    return _digest(
        [
            [(image.digest.hex(), image.item.label, image.item.split, image.item.group) for image in images.used],
            splits.select,
            [
                [
                    [(each.extraction, each.layer, each.pool) for each in task.sources],
                    [(f.name, list(f.settings), f.rungs) for f in task.families],
                ]
                for task in due
            ],
            views.to_dict(),
            seed,
        ]
    )


def _tasks(found: select_features.Found, families: Sequence[Family]) -> list[Task]:
    """The work: on each input the families that train without Keras, then those that train with it.

    Families that choose among the columns of all taps get all of them side by side.
    """
    everything = tuple(found.complete)
    due = []
    for keras in (False, True):
        here = [family for family in families if family.uses_keras == keras]
        alone = tuple(family for family in here if not family.over_all_taps)
        over_all = tuple(family for family in here if family.over_all_taps)
        tried = {taps: alone for taps in found.inputs if alone}
        if over_all:
            tried[everything] = tried.get(everything, ()) + over_all
        due += [Task(taps, together) for taps, together in tried.items()]
    return due


def _maker(images: Images, splits: Splits, found: Mapping[Source, Stored], views: Views, seed: int) -> scheduler.Make:
    """What makes the problem of a task; raises `DataError` where the images cannot be divided into folds."""
    rows = splits.development
    folds = tuple((np.searchsorted(rows, fit), np.searchsorted(rows, score)) for fit, score in splits.folds(seed))

    def make(task: Task, threads: int) -> Problem:
        stored = [found[source] for source in task.sources]
        return problem(stored, images.keys[rows], splits.labels[rows], len(splits.classes), folds, views, threads)

    return make


def _try_all(
    run: Run, due: Sequence[Task], make: scheduler.Make, seed: int, jobs: int, progress: Progress | None, began: float
) -> None:
    """Try every trial that has no score yet; `began` is when the run did, were it one session."""
    known = run.trials()
    total, count = sum(task.count for task in due), len(known)
    if progress is not None and count:
        progress(min(count, total), total)
    for scores in scheduler.work(due, make, seed, known, jobs):
        run.append(scores, time.monotonic() - began)
        count += len(scores)
        if progress is not None:
            progress(min(count, total), total)
