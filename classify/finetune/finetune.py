"""Fine-tuning: from a finished run to another one, whose winner is the tuned network with its head."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...cache.store import Store
from ...extract.backbone import Backbone
from ...extract.extraction import Extracted, extract_all
from ...extract.images import Progress
from ...extract.request import Request
from ...extract.source import cores
from .. import sources
from ..head import Head
from ..heads.course import Course, as_many
from ..matrix import Matrix
from ..model.export import export
from ..model.exported import Exported
from ..model.rebuild import rebuilt
from ..problem import Problem
from ..report.page import Reported, report
from ..run import Run
from ..training import problem, train
from ..trial import Score
from ..views import Views
from . import feed, training
from .checkpoint import Checkpoint
from .conclusion import Sample, conclude
from .feed import Batches
from .prepare import Prepared
from .training import Epoch, Watched
from .tuned import Tuned

_SAMPLED = 64  # images whose answers from maps and from pixels are compared
_MEASURED = 1 << 21  # values of the features in a block whose mean and deviation are measured


def _silent(_: Epoch) -> None:
    """What is told where nobody listens."""


@dataclass(frozen=True)
class Finetuned:
    """A finished fine-tuning: its run, the model, and the page about it."""

    run: Run
    exported: Exported
    reported: Reported

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "data": self.run.description["data"],
            **self.run.summary(),
            "finetune": self.run.description["finetune"],
            "exported": self.exported.to_dict(),
            "reported": self.reported.to_dict(),
        }


def finetune(
    prepared: Prepared,
    store: Store,
    *,
    requests: Sequence[Request] = (),
    out: Path | None = None,
    jobs: int | None = None,
    command: str = "",
    told: Callable[[Epoch], None] = _silent,
    stage: Callable[[str], Progress] | None = None,
) -> Finetuned:
    """Cache the maps, train, score once on the test split, export, report.

    The head begins as the frozen one, trained on the images that are not held out. The best epoch is found on the run's
    validation split, or on its first fold; then, unless the recipe says no, training is done once more for as many epochs
    on everything but the test split. A fine-tuning that was interrupted goes on after its last epoch; one that is complete
    is exported and reported again. `told` hears of every epoch. Raises `DataError`, `RunError` and what extraction
    raises.
    """
    plan = _plan(prepared)
    name = f"{prepared.run.path.resolve().name}-{(prepared.cut or prepared.kind).replace('/', '-')}-{plan[:8]}"
    run = Run(out or prepared.run.path.parent / name)
    run.begin({**_described(prepared), "plan": plan, "command": command, "humeris": __version__})
    if not run.complete:
        with run.claimed():
            _train(run, prepared, store, requests, jobs, told, stage)
    Checkpoint(run).remove()
    exported = export(run, store, run.path / "model.keras", requests=_named(prepared, requests), command=command)
    return Finetuned(run, exported, report([run.path], cache=store.path))


def _named(prepared: Prepared, requests: Sequence[Request]) -> Sequence[Request]:
    """What says where the network is that is trained."""
    return [prepared.request] if prepared.kind == "random" else requests


def _train(
    run: Run,
    prepared: Prepared,
    store: Store,
    requests: Sequence[Request],
    jobs: int | None,
    told: Callable[[Epoch], None],
    stage: Callable[[str], Progress] | None,
) -> None:
    began, kept = time.monotonic() - run.spent(), Checkpoint.of(run)
    extracted = fill(prepared, store, jobs, stage)
    progress = stage("fine-tuning") if stage else None
    work = _Work(prepared, store, _named(prepared, requests), jobs or cores(), kept, told, progress)
    course, start = work.choose()
    tuned = work.tuned(course)
    score = work.score(course, time.monotonic() - began)
    named = _named(prepared, requests)
    conclude(run, prepared, tuned, score, start, work.sample(), store, named, extracted, work.jobs, began)


def _plan(prepared: Prepared) -> str:
    """Digest of everything that decides the result."""
    run = prepared.run.description["plan"]
    value = [run, prepared.tuned.to_dict(), prepared.spec.digest]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _described(prepared: Prepared) -> dict[str, Any]:
    """What the new run says from its beginning: as the frozen run, whose trials it holds."""
    frozen = prepared.run.description
    kept = ("splits", "sources", "left_out", "heads", "views", "seed", "data")
    described = {name: frozen[name] for name in kept if name in frozen}
    known = {source["extraction"] for source in described["sources"]}
    depth = {(source["extraction"], source["layer"], source["pool"]): source.get("depth") for source in described["sources"]}
    new = [
        {**vars(source), "depth": depth.get((old.extraction, old.layer, old.pool))}
        for source, old in zip(prepared.tuned.sources, prepared.trial.sources, strict=True)
        if source.extraction not in known
    ]
    return {
        **described,
        "sources": [*described["sources"], *new],
        "specs": {**frozen["specs"], prepared.spec.folder: prepared.spec.to_dict()},
        "finetune": {"run": str(prepared.run.path), "start": prepared.trial.id, "trial": prepared.tuned.to_dict()},
    }


def fill(prepared: Prepared, store: Store, jobs: int | None, stage: Callable[[str], Progress] | None) -> list[Extracted]:
    """Compute what the cache lacks: the run's own taps, were they pruned, and the maps."""
    taps = [str(tap) for tap in prepared.taps]
    done = extract_all(prepared.images, [prepared.frozen_request], taps, store, jobs=jobs, progress=stage)
    if prepared.cut is not None:
        done += extract_all(
            prepared.images, [prepared.frozen_request], [f"{prepared.cut}:map"], store, views=prepared.views,
            policy=prepared.policy, compression=prepared.compression, jobs=jobs, progress=stage,
        )  # fmt: skip
    return done


class _Work:
    """The two trainings, on the images of a prepared fine-tuning."""

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        requests: Sequence[Request],
        jobs: int,
        kept: Checkpoint,
        told: Callable[[Epoch], None],
        progress: Progress | None,
    ) -> None:
        self._prepared, self._store, self._requests, self.jobs = prepared, store, requests, jobs
        self._kept, self._told, self._progress = kept, told, progress
        self._seed = int(prepared.run.description["seed"])
        self._fit, self._held = next(prepared.splits.folds(self._seed))
        self._network: Any = None

    def choose(self) -> tuple[Course, dict[str, float]]:
        """Find the best epoch."""
        recipe, labels = self._prepared.recipe, self._prepared.splits.labels
        blank = Problem.of(np.zeros((len(labels), 1), np.float32), labels, [])
        seen = np.sort(as_many(blank, self._fit, self._held, self._seed))
        watched = Watched(self._batches(self._held, False), labels[self._held], self._batches(seen, False), labels[seen])
        course, start, self._network = training.choose(
            lambda: self._make(self._fit),
            self._batches(self._fit, True),
            watched,
            recipe,
            self._kept,
            self._told,
            self._progress,
        )
        return course, start

    def tuned(self, course: Course) -> Tuned:
        """The network that comes out."""
        if self._prepared.recipe.refit:
            rows = self._prepared.splits.development
            self._network = self._make(rows)
            batches = self._batches(rows, True)
            training.refit(
                self._network, batches, course.best + 1, self._prepared.recipe, self._kept, self._told, self._progress
            )
        return Tuned(*self._network.tuned())

    def score(self, course: Course, seconds: float) -> Score:
        """How the best epoch did on the images held out, as a sweep scores its trials."""
        splits = self._prepared.splits
        rows = splits.development
        fold = (np.searchsorted(rows, self._fit), np.searchsorted(rows, self._held))
        labels = splits.labels[rows]
        held = Problem(
            Matrix.of(np.zeros((len(rows), 1), np.float32)), labels, len(splits.classes), (fold,), np.arange(len(rows))
        )
        return held.score(course.answers, seconds, course.detail())

    def sample(self) -> Sample | None:
        """Some images held out, as the tuned network answers their cached maps."""
        if self._prepared.cut is None:
            return None
        rows = self._held[np.unique(np.linspace(0, len(self._held) - 1, _SAMPLED).astype(int))]
        return Sample(rows, self._network.answers(self._batches(rows, False)))

    def _batches(self, rows: np.ndarray, train: bool) -> Batches:
        return feed.batches(self._prepared, self._store, rows, train, self.jobs)

    def _make(self, rows: np.ndarray) -> Any:
        """The network with the head that is trained on `rows` while everything below it is frozen."""
        from . import network

        prepared = self._prepared
        head, mean, deviation = self._head(rows)
        if prepared.kind == "random":
            return network.Network(self._built(), prepared.taps, None, network.fresh(head, self._seed))
        return network.Network(self._built(), prepared.taps, prepared.cut, head, mean, deviation)

    def _built(self) -> Backbone:
        recipe = self._prepared.recipe
        return rebuilt(self._prepared.spec, self._requests, fold=False, precision=recipe.precision)

    def _head(self, rows: np.ndarray) -> tuple[Head, np.ndarray, np.ndarray]:
        """The frozen head of `rows`, and the mean and deviation (d,) of their features."""
        from sklearn.preprocessing import StandardScaler

        from . import network

        prepared, splits = self._prepared, self._prepared.splits
        views = Views.from_dict(prepared.run.description["views"])
        stored = sources.stored(self._store, prepared.trial.sources, views)
        learnt = problem(
            stored, prepared.images.keys[rows], splits.labels[rows], len(splits.classes), views=views, threads=self.jobs
        )
        head = train(prepared.trial, prepared.score, learnt, splits.classes, self._seed)
        network.check(head, prepared.trial.head, f"{prepared.run.path}, trial {prepared.trial.id}")
        scaler = StandardScaler()
        for _, block in learnt.features.blocks(size=max(1, _MEASURED // learnt.features.shape[1])):
            scaler.partial_fit(block)
        return head, scaler.mean_, scaler.scale_
