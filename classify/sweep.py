"""Stage two: train heads over cached features, choose one honestly, score it once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, starmap
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..cache.features import Features
from ..cache.store import Store
from ..extract.dataset import Refusal
from ..extract.feature_file import FileRows
from ..extract.images import Images, Progress
from ..extract.request import Request
from ..extract.source import cores
from ..extract.taps import Tap
from . import metrics, sources, tables
from .family import FAMILIES, Family, parse
from .head import Head
from .matrix import Matrix
from .problem import Problem
from .run import Run
from .splits import Splits, split
from .trial import Score, Source, Trial, ranked


@dataclass(frozen=True)
class _Task:
    """The trials of one family on one source; they are solved together."""

    source: Source
    family: Family

    @property
    def trials(self) -> list[Trial]:
        return [Trial((self.source,), self.family.name, setting) for setting in self.family.settings]


def sweep(
    images: Images,
    store: Store,
    heads: Sequence[Family | str],
    *,
    requests: Sequence[Request] = (),
    patterns: Sequence[str] = (),
    pools: Sequence[str] = (),
    only: Collection[tuple[str, Tap]] | None = None,
    select: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Run:
    """Train every head on every tap asked for, cached or in DATA; the run, whose winner was scored once on the test split.

    The winner is the first of `ranked` by its scores on the folds (or the validation split), is trained again on everything
    but the test split, and only then meets the test split. A run that was interrupted goes on where it stopped; one that
    is complete is returned as it is. Raises `DataError`, `RunError`.
    """
    families = [parse(head) if isinstance(head, str) else head for head in heads]
    split(images, select)  # labels that cannot be used are found out first
    shelf = images.given or store
    found = sources.find(shelf, images.keys, requests, patterns, pools, only)
    images = _finite(images, found.not_finite).by_digest()
    splits = split(images, select)
    plan = _plan(images, splits, list(found.complete), families, seed)
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
            "heads": [{"head": family.name, "settings": list(family.settings)} for family in families],
            "seed": seed,
        }
    )
    data = {**images.summary(), "listing": _digest([(image.name, image.digest.hex()) for image in images.used])}
    if not run.complete or run.description.get("data") != data:  # the same images may have been moved or renamed since
        began = time.monotonic()
        _try_all(run, found.complete, images.keys, splits, families, seed, jobs or cores(), progress)
        _conclude(run, images, splits, shelf, seed, {"data": data, "seconds": round(time.monotonic() - began, 3)})
    return run


def _finite(images: Images, bad: np.ndarray) -> Images:
    """The images without those of the mask `bad` (n,), which are refused."""
    refused = [images.used[row].name for row in np.nonzero(bad)[0]]
    return images.without({name: Refusal(name, "not_finite", "NaN or infinite activations") for name in refused})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plan(images: Images, splits: Splits, found: Sequence[Source], families: Sequence[Family], seed: int) -> str:
    """Digest of everything that decides the result, so that the same question finds its own run again."""
    return _digest(
        [
            [(image.digest.hex(), image.item.label, image.item.split, image.item.group) for image in images.used],
            splits.select,
            [vars(source) for source in found],
            [(family.name, list(family.settings)) for family in families],
            seed,
        ]
    )


def _try_all(
    run: Run,
    found: Mapping[Source, Features | FileRows],
    keys: np.ndarray,
    splits: Splits,
    families: Sequence[Family],
    seed: int,
    jobs: int,
    progress: Progress | None,
) -> None:
    """Solve every task that has no score yet; Keras heads come last, in this process, where they use every core."""
    done = run.trials()
    tasks = [_Task(source, family) for family in families for source in found]
    left = [task for task in tasks if not all(trial in done for trial in task.trials)]
    rows = splits.development
    folds = tuple((np.searchsorted(rows, fit), np.searchsorted(rows, score)) for fit, score in splits.folds(seed))
    count = len(tasks) - len(left)

    def arguments(keras: bool) -> Iterator[tuple[Any, ...]]:
        for task in left:
            if task.family.uses_keras == keras:
                features = sources.matrix([found[task.source]], keys[rows])
                yield task, Problem(features, splits.labels[rows], len(splits.classes), folds, np.arange(len(rows))), seed

    for task, scores in chain(_parallel(_solve, arguments(False), jobs), _parallel(_solve, arguments(True), 1)):
        run.append(dict(zip(task.trials, scores, strict=True)))
        count += 1
        if progress is not None:
            progress(count, len(tasks))


def _solve(task: _Task, problem: Problem, seed: int) -> tuple[_Task, list[Score]]:
    return task, task.family.module.cross_validate(problem, task.family.settings, seed)


def _parallel(function: Callable[..., Any], arguments: Iterator[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """Results as they come, from as many processes; arguments are made only as they are needed."""
    if jobs == 1:
        yield from starmap(function, arguments)
    else:
        from joblib import Parallel, delayed

        pool = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs + 1)
        yield from pool(starmap(delayed(function), arguments))


def train(trial: Trial, score: Score, features: Matrix, labels: np.ndarray, classes: Sequence[str], seed: int) -> Head:
    """The head of `trial`, trained on all of features (n, d) and labels (n,)."""
    problem = Problem(features, labels, len(classes), (), np.arange(len(labels)))
    head: Head = FAMILIES[trial.head].fit(problem, trial.setting, score.detail, classes, seed)
    return head


def _conclude(
    run: Run, images: Images, splits: Splits, store: sources.Shelf, seed: int, described: Mapping[str, Any]
) -> None:
    """Train the winner, score it once, write everything down."""
    scores = run.trials()
    chosen = ranked(scores)[0]
    features = sources.load(store, chosen.sources, images.keys)
    rows = splits.development
    head = run.head(chosen) or train(chosen, scores[chosen], features.take(rows), splits.labels[rows], splits.classes, seed)
    probabilities = head.predict_proba(features[splits.test])
    run.save_head(chosen, head)
    tables.write(run, images, splits, scores, probabilities)
    run.finish(
        {
            **described,
            "best": {"id": chosen.id, **chosen.to_dict(), "score": scores[chosen].to_dict()},
            "test": metrics.report(splits.labels[splits.test], probabilities, splits.classes),
        }
    )
