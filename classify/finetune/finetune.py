"""Fine-tune the network of a finished run; the result is a new run whose winner is the fine-tuned network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ... import __version__
from ...cache.store import Store
from ...cache.typed_json import to_json
from ...extract.config import compute_hash
from ...extract.engine.extract import ExtractResult, extract_features
from ...extract.images.load import Progress
from ..export.export_result import ExportResult
from ..finish_run import finish_run
from ..report.page import ReportResult
from ..report.report_config import ReportConfig
from ..runs.failed_step import FailedStep
from ..runs.finetuned_weights import FinetunedWeights
from ..runs.metadata import FinetuneOrigin, RunMetadata, SweptTap
from ..runs.result import FinetuneSummary
from ..runs.run import Run
from . import checkpoint
from .checkpoint import Checkpoint
from .finalize import TrainingOutcome, finalize
from .prepare import FinetuneSetup
from .train_loop import Epoch
from .trainer import Trainer


def _ignore_epoch(_: Epoch) -> None:
    """Do nothing."""


@dataclass(frozen=True, repr=False)
class FinetuneResult:
    """The new run, its exported model and its report; as in `PipelineResult`, None for one of them that failed."""

    run: Run
    export_result: ExportResult | None
    report_result: ReportResult | None
    failed_steps: tuple[FailedStep, ...] = ()

    def __repr__(self) -> str:
        parts = (self.run, self.export_result, self.report_result, *self.failed_steps)
        return "\n".join(["<FinetuneResult>", *(f"  {part!r}" for part in parts if part is not None)])

    @property
    def summary(self) -> FinetuneSummary:
        """The summary of the fine-tuning."""
        summary = self.run.result.finetune
        assert summary is not None  # as it is no run of a sweep
        return summary

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "data": self.run.metadata.data.to_dict(),
            **to_json(self.run.summarize()),
            "finetune": {**to_json(self.run.metadata.finetune), **to_json(self.summary)},
            "exported": self.export_result and self.export_result.to_dict(),
            "reported": self.report_result and self.report_result.to_dict(),
            "failed": to_json(self.failed_steps),
        }


def finetune(
    setup: FinetuneSetup,
    store: Store,
    *,
    command: str = "",
    on_epoch: Callable[[Epoch], None] = _ignore_epoch,
    stage: Callable[[str], Progress] | None = None,
) -> FinetuneResult:
    """Cache the maps, train, score once on the test split, export and report.

    The head is initialized with the frozen one, refitted on the images that are not held out. The best epoch is selected on
    the validation split of the run, or on its first fold; then, with `config.refit`, the network is trained again for as
    many epochs on everything but the test split. An interrupted fine-tuning resumes after its last epoch; a complete one is
    only exported and reported again.

    Parameters
    ----------
    setup : FinetuneSetup
        What `prepare` returned.
    store : Store
        The cache, open for writing.
    command : str
        The command line, recorded in the run.
    on_epoch : callable
        Called with each finished `Epoch`.
    stage : callable, optional
        Called with the name of each stage; returns a callable that is told (done, total).

    Returns
    -------
    FinetuneResult

    Raises
    ------
    DataError, RunError
        If images are missing, or the run folder cannot be used; and what extraction raises. Where the export or the report
        fails, the result has its error among the `failed_steps`.
    """
    config_hash = _compute_config_hash(setup)
    name = f"{setup.run.path.resolve().name}-{(setup.cut or setup.mode).replace('/', '-')}-{config_hash[:8]}"
    run = Run(setup.config.out or setup.run.path.parent / name)
    run.begin(_build_metadata(setup, config_hash, command))
    if not run.complete:
        with run.lock():
            _train(run, setup, store, on_epoch, stage)
    elif run.metadata.data != setup.run.metadata.data:  # the same images may have been moved or renamed
        with run.lock():
            _score_again(run, setup, store)
    checkpoint.delete(run)
    return FinetuneResult(run, *finish_run(run, store, None, setup.backbone_specs, ReportConfig(), command))


def _train(
    run: Run,
    setup: FinetuneSetup,
    store: Store,
    on_epoch: Callable[[Epoch], None],
    stage: Callable[[str], Progress] | None,
) -> None:
    training_checkpoint = Checkpoint.load(run)
    start_stage = _add_heartbeat(run, stage)
    extraction_results = fill_cache(setup, store, start_stage)
    trainer = Trainer(setup, store, training_checkpoint, on_epoch, start_stage("fine-tuning"))
    try:
        early_stopping, initial_metrics = trainer.find_best_epoch()
        tuned = trainer.train_final(early_stopping)
        score = trainer.score(early_stopping, time.monotonic() - training_checkpoint.start_time)
        outcome = TrainingOutcome(tuned, score, initial_metrics, trainer.predict_sample())
        finalize(run, setup, store, outcome, training_checkpoint.start_time, extraction_results)
    finally:
        trainer.close()


def _score_again(run: Run, setup: FinetuneSetup, store: Store) -> None:
    """Write the tables of a complete run again, after its images were moved or renamed."""
    trial, summary = setup.tuned_trial, run.result.finetune
    assert summary is not None  # as the run is complete
    outcome = TrainingOutcome(FinetunedWeights.load(run, trial), run.load_trials()[trial], summary.initial_metrics)
    finalize(run, setup, store, outcome, time.monotonic() - run.result.seconds)


def _add_heartbeat(run: Run, stage: Callable[[str], Progress] | None) -> Callable[[str], Progress]:
    """Return `stage` with progress callbacks that also renew the lock of the run."""

    def start_stage(name: str) -> Progress:
        display = stage(name) if stage else None

        def progress(n_done: int, total: int) -> None:
            run.heartbeat()
            if display is not None:
                display(n_done, total)

        return progress

    return start_stage


def _compute_config_hash(setup: FinetuneSetup) -> str:
    """Return the digest of everything that affects the result: the frozen run, and the trial with the whole config."""
    return compute_hash(
        [setup.run.metadata.config_hash, setup.tuned_trial.to_dict(), setup.spec.digest, setup.map_views.version]
    )


def _build_metadata(setup: FinetuneSetup, config_hash: str, command: str) -> RunMetadata:
    """Return the metadata of the new run: that of the frozen run, whose trials it includes, with the changes."""
    frozen_metadata = setup.run.metadata
    extraction_ids = {tap.extraction for tap in frozen_metadata.taps}
    new_taps = [
        SweptTap.from_tap_ref(tap_ref, frozen_metadata.depths.get(frozen_tap_ref))
        for tap_ref, frozen_tap_ref in zip(setup.tuned_trial.tap_refs, setup.trial.tap_refs, strict=True)
        if tap_ref.extraction not in extraction_ids
    ]
    return replace(
        frozen_metadata,
        config_hash=config_hash,
        command=command,
        humeris=__version__,
        taps=(*frozen_metadata.taps, *new_taps),
        specs={**frozen_metadata.specs, setup.spec.folder_name: setup.spec},
        views=replace(frozen_metadata.views, average=False),  # the tuned network sees the plain one
        finetune=FinetuneOrigin(str(setup.run.path), setup.trial.id, setup.tuned_trial),
        result=None,
    )


def fill_cache(setup: FinetuneSetup, store: Store, stage: Callable[[str], Progress] | None = None) -> list[ExtractResult]:
    """Extract what the cache lacks: taps of the frozen head that were pruned, and the maps."""
    results: list[ExtractResult] = []
    for images, config in setup.list_extractions():
        results += extract_features(images, store, config, progress=stage)
    return results
