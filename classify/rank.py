"""Ranking of cached taps by transferability scores, without training, and its agreement with trained heads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.errors import RunError
from ..cache.store import Store
from ..cache.typed_json import to_json
from ..extract.backbones.tap_ref import TapRef
from ..extract.images.images import Images
from ..extract.images.load import Progress
from ..extract.pixels.read_file import count_cores
from .data import select_features as sources
from .data.feature_matrix import FeatureMatrix
from .data.splits import Splits, split
from .diagnose.transferability import Moments, centroid_accuracy, h_score, knn_accuracy, log_me
from .heads.training_data import Folds
from .runs.run import Run

MEASURES = ("log_me", "h_score", "knn", "centroid")
_TapKeys = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class TapScores:
    """Scores of one tap, or of several side by side; higher is better for all of them.

    columns: number of features per row. knn, centroid: cross-validated accuracy. seconds: elapsed time, including
    reading.
    trained: cross-validated accuracy of the best head in a run on the same images.
    """

    tap_refs: tuple[TapRef, ...]
    depth: float | None
    columns: int
    log_me: float
    h_score: float
    knn: float
    centroid: float
    seconds: float
    trained: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "tap_refs": [asdict(tap_ref) for tap_ref in self.tap_refs]}


@dataclass(frozen=True, repr=False)
class Ranking:
    """Taps in order of their mean rank over the four scores, computed on the images outside the test split.

    left_out: number of missing images of each tap left out. run: a complete sweep of the same images, if there is one.
    """

    images: Images
    splits: Splits
    rows: tuple[TapScores, ...]
    left_out: Mapping[TapRef, int]
    run: Run | None

    def __repr__(self) -> str:
        lines = [f"{number:3}. {' + '.join(map(str, row.tap_refs))}" for number, row in enumerate(self.rows, start=1)]
        return "\n".join([f"<Ranking of {len(self.rows)} taps on {len(self.images)} images, best first>", *lines])

    def compute_ranks(self, measure: str) -> list[int]:
        """Return the rank of each row by a measure, 1 for the best; ties get the better rank."""
        values = [round(getattr(row, measure), 12) for row in self.rows]  # equal means of folds can differ by rounding
        return [1 + sum(other > value for other in values) for value in values]

    def compute_agreement(self) -> dict[str, dict[str, float | int | None]]:
        """Return Kendall's tau of each measure with the trained accuracies, its p-value and the number of taps.

        Empty without a run. Tau and p-value are None if undefined: fewer than three taps, or all values equal. The p-value
        is for the hypothesis of no association (Kendall, Biometrika 30 (1938); ties as in his tau-b, 1945).
        """
        from scipy.stats import kendalltau

        trained_rows = [row for row in self.rows if row.trained is not None]
        agreement: dict[str, dict[str, float | int | None]] = {}
        for measure in MEASURES if self.run else ():
            values, trained = [getattr(row, measure) for row in trained_rows], [row.trained for row in trained_rows]
            is_defined = len(trained_rows) > 2 and len(set(values)) > 1 and len(set(trained)) > 1
            result = kendalltau(values, trained) if is_defined else None
            agreement[measure] = {
                "tau": None if result is None else float(result.statistic),
                "p_value": None if result is None else float(result.pvalue),
                "taps": len(trained_rows),
            }
        return agreement

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        ranks = {measure: self.compute_ranks(measure) for measure in MEASURES}
        return {
            "data": self.images.summarize(),
            "splits": to_json(self.splits.summarize()),
            "ranking": [
                {**row.to_dict(), "ranks": {measure: ranks[measure][index] for measure in MEASURES}}
                for index, row in enumerate(self.rows)
            ],
            "run": None if self.run is None else str(self.run.path),
            "agreement": self.compute_agreement(),
            "left_out": [{**vars(tap_ref), "images_missing": n_missing} for tap_ref, n_missing in self.left_out.items()],
        }


def rank(
    images: Images,
    store: Store,
    query: sources.FeatureQuery | None = None,
    *,
    select: str | None = None,
    run: Path | str | None = None,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank cached taps by transferability scores on the images outside the test split, without training.

    LogME and H-score use all of these images; nearest neighbors and centroids are scored on the folds of a sweep with the
    same `select` and `seed`.

    Parameters
    ----------
    images : Images
        The images, with labels.
    store : Store
        The cache.
    query : FeatureQuery, optional
        The taps to rank; by default every cached tap.
    select : {"cv", "val"}, optional
        As in `split`.
    run : Path or str, optional
        A complete run to compare with; by default the latest one under `runs` with the same images and splits that holds
        all
        ranked taps.
    seed : int
        Seed of the folds.
    jobs : int, optional
        Number of threads; every core by default.
    progress : callable, optional
        Called with the number of taps scored and their total.

    Returns
    -------
    Ranking
        The taps, best first.

    Raises
    ------
    DataError, LayerError, RunError
        If labels, taps or the run cannot be used.
    """
    from threadpoolctl import threadpool_limits

    split(images, select)  # fails early if the labels cannot be used
    feature_store = images.feature_file or store
    selection = sources.find_features(feature_store, images.keys, query or sources.FeatureQuery())
    images = selection.drop_non_finite(images).sort_by_digest()
    splits = split(images, select)
    training_rows = splits.development
    folds = tuple(
        (np.searchsorted(training_rows, fit), np.searchsorted(training_rows, score))
        for fit, score in splits.iter_folds(seed)
    )
    reference_run = (
        _load_matching_run(run, images, splits) if run is not None else _find_latest_run(images, splits, selection.inputs)
    )
    trained_accuracies = {} if reference_run is None else _get_trained_accuracies(reference_run)
    rows = []
    for number, taps in enumerate(selection.inputs):
        started_at = time.perf_counter()
        features = sources.build_matrix([selection.row_readers[tap_ref] for tap_ref in taps], images.keys[training_rows])
        with threadpool_limits(jobs or count_cores()):
            scores = _score_taps(features, splits.labels[training_rows], folds)
        seconds = round(time.perf_counter() - started_at, 3)
        depth = selection.depths[taps[0]] if len(taps) == 1 else None
        rows.append(
            TapScores(
                taps,
                depth,
                features.shape[1],
                **scores,
                seconds=seconds,
                trained=trained_accuracies.get(_get_tap_keys(taps)),
            )
        )
        if progress is not None:
            progress(number + 1, len(selection.inputs))
    if run is not None and not any(row.trained is not None for row in rows):
        raise RunError(
            f"{run}: none of the ranked taps is in the run (taps in the run: {len(trained_accuracies)}); give a run of "
            "these taps, or rank with the -b and -l of the run"
        )
    unordered = Ranking(images, splits, tuple(rows), selection.left_out, reference_run)
    rank_sums = np.sum([unordered.compute_ranks(measure) for measure in MEASURES], axis=0)
    order = sorted(range(len(rows)), key=lambda row: (rank_sums[row], -rows[row].log_me, rows[row].tap_refs))
    return Ranking(images, splits, tuple(rows[row] for row in order), selection.left_out, reference_run)


def _score_taps(features: FeatureMatrix, labels: np.ndarray, folds: Folds) -> dict[str, float]:
    moments = Moments.from_features(features, labels)
    rows = moments.reduce_features(features)
    return {
        "log_me": log_me(moments),
        "h_score": h_score(moments),
        "knn": knn_accuracy(rows, labels, folds),
        "centroid": centroid_accuracy(rows, labels, folds),
    }


def _get_tap_keys(taps: Sequence[TapRef]) -> _TapKeys:
    """Return what identifies taps in every run, whatever else was cached."""
    return tuple((tap_ref.extraction, tap_ref.layer, tap_ref.pool) for tap_ref in taps)


def _get_trained_accuracies(run: Run) -> dict[_TapKeys, float]:
    """Return the cross-validated accuracy of the best head on each input of a run."""
    scores = run.load_trials()
    accuracies: dict[_TapKeys, float] = {}
    for trial in scores.ranked:
        accuracies.setdefault(_get_tap_keys(trial.tap_refs), scores[trial].accuracy)
    return accuracies


def _is_same_data(run: Run, images: Images, splits: Splits) -> bool:
    """Return whether a run has the same images, with the same labels in the same splits."""
    role_of_row = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    data_images = {(image.digest, image.item.label or "", role_of_row[row]) for row, image in enumerate(images.used)}
    run_images = {(record.digest, record.label, record.split) for record in run.load_image_records()}
    return data_images == run_images and run.metadata.splits.select == splits.select


def _load_matching_run(path: Path | str, images: Images, splits: Splits) -> Run:
    run = Run.load(path)
    if not _is_same_data(run, images, splits):
        raise RunError(
            f"{path}: the run was not made from these {len(images.used)} images with the same labels and splits; "
            "give the DATA, --limit and --select of the run"
        )
    return run


def _find_latest_run(images: Images, splits: Splits, inputs: Sequence[Sequence[TapRef]]) -> Run | None:
    """Return the latest complete run under `runs` that has these images and every input."""
    files = Path("runs").glob("*/run.json")
    for file in sorted(files, key=lambda file: (-file.stat().st_mtime_ns, file)):
        try:
            run = Run.load(file.parent)
            if (
                _is_same_data(run, images, splits)
                and {_get_tap_keys(taps) for taps in inputs} <= _get_trained_accuracies(run).keys()
            ):
                return run
        except RunError:  # not a run that was asked for
            continue
    return None
