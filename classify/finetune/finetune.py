"""Fine-tuning: from a finished run to another one, whose winner is the tuned network with its head."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...cache.store import Store
from ...extract.backbones.backbone_spec import Request
from ...extract.engine.extract import Extracted, extract_all
from ...extract.images.load import Progress
from ...extract.pixels.read_file import cores
from ..export.export import export
from ..export.export_result import Exported
from ..report.page import Reported, report
from ..runs.finetuned_weights import Tuned
from ..runs.run import Run
from . import checkpoint
from .checkpoint import Checkpoint
from .finalize import conclude
from .prepare import Prepared
from .train_loop import Epoch
from .trainer import Work


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
    elif run.description["data"] != prepared.run.description["data"]:  # the same images may have been moved or renamed
        with run.claimed():
            _score_again(run, prepared, store, requests, jobs)
    checkpoint.remove(run)
    reported = report([run.path], cache=store.path)
    exported = export(run, store, run.path / "model.keras", requests=_named(prepared, requests), command=command)
    return Finetuned(run, exported, reported)


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
    kept, named = Checkpoint.of(run), _named(prepared, requests)
    alive = _beating(run, stage)
    extracted = fill(prepared, store, jobs, alive)
    progress = alive("fine-tuning")
    work = Work(prepared, store, named, jobs or cores(), kept, told, progress)
    try:
        course, start = work.choose()
        tuned = work.tuned(course)
        score = work.score(course, time.monotonic() - kept.began)
        conclude(run, prepared, tuned, score, start, work.sample(), store, named, extracted, work.jobs, kept.began)
    finally:
        work.close()


def _score_again(run: Run, prepared: Prepared, store: Store, requests: Sequence[Request], jobs: int | None) -> None:
    """Write the tables of a complete run for its images as they are called now."""
    trial, began = prepared.tuned, time.monotonic() - float(run.description["seconds"])
    tuned, score, start = Tuned.load(run, trial), run.trials()[trial], run.description["finetune"]["before"]
    conclude(run, prepared, tuned, score, start, None, store, _named(prepared, requests), [], jobs or cores(), began)


def _beating(run: Run, stage: Callable[[str], Progress] | None) -> Callable[[str], Progress]:
    """`stage` whose progress also tells other processes that this one is alive."""

    def named(name: str) -> Progress:
        shown = stage(name) if stage else None

        def progress(done: int, total: int) -> None:
            run.beat()
            if shown is not None:
                shown(done, total)

        return progress

    return named


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
    described["views"] = {**described["views"], "average": False}  # the tuned network sees the plain one
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
    taps, views = [str(tap) for tap in prepared.taps], prepared.frozen_views
    done = extract_all(
        prepared.images, [prepared.frozen_request], taps, store, views=views.count,
        policy=views.parsed, jobs=jobs, progress=stage,
    )  # fmt: skip
    if prepared.cut is not None:
        done += extract_all(
            prepared.learnt, [prepared.frozen_request], [f"{prepared.cut}:map"], store, views=prepared.views,
            policy=prepared.policy, compression=prepared.compression, jobs=jobs, progress=stage,
        )  # fmt: skip
    return done
