"""Stage two of the pipeline: train heads on cached features, select one, score it once on the test split."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ... import __version__
from ...cache.store import Store
from ...extract.backbones.tap_ref import TapRef
from ...extract.backbones.taps import Tap
from ...extract.config import compute_hash
from ...extract.images.images import Images
from ...extract.images.load import Progress
from ...extract.pixels.read_file import count_cores
from ..advise import advice
from ..data import select_features
from ..data.feature_matrix import RowReader
from ..data.splits import Splits, split
from ..data.views import Views
from ..heads.fit import build_training_data
from ..heads.head_grid import HeadGrid
from ..heads.training_data import TrainingData
from ..runs.data_summary import DataSummary
from ..runs.metadata import HeadSummary, LeftOutTap, RunMetadata, SweptTap
from ..runs.run import Run
from . import scheduler
from .finalize import finalize_sweep
from .scheduler import Task
from .sweep_config import SweepConfig


def sweep(
    images: Images,
    store: Store,
    config: SweepConfig,
    *,
    only_taps: Collection[tuple[str, Tap]] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Run:
    """Train every head on every tap, cached or in DATA, select the best, and score it once on the test split.

    The winner is the first by `rank_trials` on the folds (or the validation split). It is retrained on everything outside
    the
    test split, and only then scored on the test split. An interrupted run is resumed; a complete run is returned as it
    is,
    except that its advice is updated if features of a random initialization have been cached since.

    Parameters
    ----------
    images : Images
        As returned by `load_images`, with labels.
    store : Store
        The cache; only read, except for cached results of advice.
    config : SweepConfig
        What to sweep over.
    only_taps : collection of (str, Tap), optional
        Restrict the sweep to these taps, by the digest of the extraction's spec; the config's layers still define
        concatenations.
    command : str
        The command line, recorded in the run.
    progress : callable, optional
        Called with the number of finished trials and their total.

    Returns
    -------
    Run
        The complete run, in the folder `config.out`.

    Raises
    ------
    DataError, LayerError, HeadError, RunError
        If labels, taps, heads or the folder cannot be used.
    """
    images = images.sort_by_digest()
    splits = split(images, config.select)  # fails early if the labels cannot be used
    feature_store = images.feature_file or store
    query = config.query if only_taps is None else replace(config.query, backbone_specs=(), only_taps=only_taps)
    selection = select_features.find_features(feature_store, images.keys, query)
    if selection.not_finite.any():
        images = selection.drop_non_finite(images)
        splits = split(images, config.select)
    views, seed = config.view_set, config.seed
    pending_tasks = _build_tasks(selection, config.head_grids)
    make_data = _build_data_factory(images, splits, selection.row_readers, views, seed)
    scheduler.check_hyperparameters(pending_tasks, make_data)
    config_hash = compute_config_hash(images, splits, pending_tasks, config)
    run = Run(config.out or Path("runs") / f"{images.dataset.title}-{config_hash[:8]}")
    extraction_names = {tap_ref.extraction for tap_ref in selection.row_readers}
    listing = compute_hash([(image.name, image.digest.hex()) for image in images.used])
    data, jobs = DataSummary.from_images(images, listing), config.jobs or count_cores()
    run.begin(
        RunMetadata(
            config_hash=config_hash,
            command=command,
            humeris=__version__,
            data=data,
            splits=splits.summarize(),
            taps=tuple(SweptTap.from_tap_ref(tap_ref, selection.depths[tap_ref]) for tap_ref in selection.row_readers),
            left_out=tuple(LeftOutTap.from_tap_ref(*entry) for entry in selection.left_out.items()),
            specs={
                extraction.name: extraction.spec
                for extraction in feature_store.iter_extractions()
                if extraction.name in extraction_names
            },
            heads=tuple(
                HeadSummary(
                    head_grid.family.name, tuple(head_grid.hyperparameter_sets), tuple(head_grid.halving_rounds) or None
                )
                for head_grid in config.head_grids
            ),
            views=views,
            seed=seed,
        )
    )
    if not run.complete or run.metadata.data != data:  # the same images may have been moved or renamed since
        with run.lock():
            started_at = time.monotonic() - run.get_elapsed()  # of all sessions together
            _run_trials(run, pending_tasks, make_data, seed, jobs, progress, started_at)
            row_readers = [selection.row_readers[tap_ref] for tap_ref in run.load_trials().ranked[0].tap_refs]
            advice_result = advice.advise(run, images, splits, store, feature_store, jobs)
            seconds = round(time.monotonic() - started_at, 3)
            run.finish(finalize_sweep(run, images, splits, row_readers, jobs, advice_result, seconds), data)
    elif advice.is_outdated(run, images, splits, store):
        with run.lock():
            advice_result = advice.advise(run, images, splits, store, feature_store, jobs)
            run.finish(replace(run.result, advice=advice_result))
    return run


def compute_config_hash(images: Images, splits: Splits, pending_tasks: Sequence[Task], config: SweepConfig) -> str:
    """Return a digest of everything that determines the result, so that the same configuration finds its own run again.

    Resolved settings enter with their results: the images, the selection method, the taps, and the heads with their
    hyperparameters. All other settings enter as they are, including ones added later.
    """
    return compute_hash(
        [
            [(image.digest.hex(), image.item.label, image.item.split, image.item.group) for image in images.used],
            splits.select,
            [
                [
                    [(tap_ref.extraction, tap_ref.layer, tap_ref.pool) for tap_ref in task.tap_refs],
                    [
                        (head_grid.family.name, list(head_grid.hyperparameter_sets), head_grid.halving_rounds)
                        for head_grid in task.head_grids
                    ],
                ]
                for task in pending_tasks
            ],
            config.view_set.version,
            config.get_result_settings(),
        ]
    )


def _build_tasks(selection: select_features.FeatureSelection, head_grids: Sequence[HeadGrid]) -> list[Task]:
    """Return the tasks: for each input, the families that train without Keras, then those that train with it.

    Families that use all taps get them side by side.
    """
    all_taps = tuple(selection.row_readers)
    pending_tasks = []
    for uses_keras in (False, True):
        matching_grids = [head_grid for head_grid in head_grids if head_grid.family.uses_keras == uses_keras]
        single_tap_grids = tuple(head_grid for head_grid in matching_grids if not head_grid.family.uses_all_taps)
        all_tap_grids = tuple(head_grid for head_grid in matching_grids if head_grid.family.uses_all_taps)
        grids_by_taps = {taps: single_tap_grids for taps in selection.inputs if single_tap_grids}
        if all_tap_grids:
            grids_by_taps[all_taps] = grids_by_taps.get(all_taps, ()) + all_tap_grids
        pending_tasks += [Task(taps, task_grids) for taps, task_grids in grids_by_taps.items()]
    return pending_tasks


def _build_data_factory(
    images: Images, splits: Splits, row_readers: Mapping[TapRef, RowReader], views: Views, seed: int
) -> scheduler.DataFactory:
    """Return the function that builds the data of a task; raises `DataError` if the images cannot be divided into folds."""
    rows = splits.development
    folds = tuple(
        (np.searchsorted(rows, fit_rows), np.searchsorted(rows, score_rows))
        for fit_rows, score_rows in splits.iter_folds(seed)
    )

    def make_data(task: Task, threads: int) -> TrainingData:
        task_readers = [row_readers[tap_ref] for tap_ref in task.tap_refs]
        return build_training_data(
            task_readers, images.keys[rows], splits.labels[rows], splits.target, folds, views, threads
        )

    return make_data


def _run_trials(
    run: Run,
    pending_tasks: Sequence[Task],
    make_data: scheduler.DataFactory,
    seed: int,
    jobs: int,
    progress: Progress | None,
    started_at: float,
) -> None:
    """Run every trial that has no score yet. started_at: start time, shifted by the elapsed time of earlier sessions."""
    previous_scores = run.load_trials()
    total, n_finished = sum(task.n_trials for task in pending_tasks), len(previous_scores)
    if progress is not None and n_finished:
        progress(min(n_finished, total), total)
    for new_scores in scheduler.run_tasks(pending_tasks, make_data, seed, previous_scores, jobs):
        run.append(new_scores, time.monotonic() - started_at)
        n_finished += len(new_scores)
        if progress is not None:
            progress(min(n_finished, total), total)
