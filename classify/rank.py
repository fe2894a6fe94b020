"""The cached taps in the order that scores without training put them in, and whether training agrees."""

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
    """The scores of one tap, or of several side by side; higher is better in all.

    columns: numbers in a row. knn, centroid: cross-validated accuracy. seconds: what it took, reading included. trained:
    cross-validated accuracy of the best head in a run of the same images.
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
        """JSON values."""
        return {**asdict(self), "tap_refs": [asdict(tap_ref) for tap_ref in self.tap_refs]}


@dataclass(frozen=True)
class Ranking:
    """Taps, the best by the mean of their four places first, of images of which only those outside the test split count.

    run: a finished sweep of the same images, if there is one.
    """

    images: Images
    splits: Splits
    rows: tuple[TapScores, ...]
    left_out: Mapping[TapRef, int]
    run: Run | None

    def compute_ranks(self, measure: str) -> list[int]:
        """The place of each row by a measure, 1 the best; equal scores share the better place."""
        values = [round(getattr(row, measure), 12) for row in self.rows]  # means of equal folds in another order are equal
        return [1 + sum(other > value for other in values) for value in values]

    def compute_agreement(self) -> dict[str, dict[str, float | int | None]]:
        """Kendall's tau of each measure with the trained ranking, its p-value, and of how many taps; {} without a run.

        None where there is no telling: fewer than three taps, or all alike. The p-value is that of no agreement at all
        (Kendall, Biometrika 30 (1938); ties as in his tau-b, 1945).
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
        """JSON values."""
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
    """Score every tap of `query`, without one every tap that is cached, on the images that may be learnt from.

    Nothing is trained. LogME and H-score are of all of those images; nearest neighbours and centroids are scored on the
    folds of a sweep with the same `select` and `seed`. `run` is a finished run to compare with; without it the latest one
    under `runs` of the same images, split the same way, that holds every tap ranked. `jobs`: threads of the products, every
    core unless given. Raises `DataError`, `LayerError`, `RunError`.
    """
    from threadpoolctl import threadpool_limits

    split(images, select)  # labels that cannot be used are found out first
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
            f"{run}: expected a run of the taps that are ranked, found one of {len(trained_accuracies)} others; name the "
            "run of these, or rank with its -b and -l"
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
    """What names taps in every run, whatever else lay in the cache."""
    return tuple((tap_ref.extraction, tap_ref.layer, tap_ref.pool) for tap_ref in taps)


def _get_trained_accuracies(run: Run) -> dict[_TapKeys, float]:
    """The cross-validated accuracy of the best head on each input of a run."""
    scores = run.load_trials()
    accuracies: dict[_TapKeys, float] = {}
    for trial in scores.ranked:
        accuracies.setdefault(_get_tap_keys(trial.tap_refs), scores[trial].accuracy)
    return accuracies


def _is_same_data(run: Run, images: Images, splits: Splits) -> bool:
    """Whether a run was of the same images, with the same labels in the same splits."""
    role_of_row = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    data_images = {(image.digest, image.item.label or "", role_of_row[row]) for row, image in enumerate(images.used)}
    run_images = {(record.digest, record.label, record.split) for record in run.load_image_records()}
    return data_images == run_images and run.metadata.splits.select == splits.select


def _load_matching_run(path: Path | str, images: Images, splits: Splits) -> Run:
    run = Run.load(path)
    if not _is_same_data(run, images, splits):
        raise RunError(
            f"{path}: expected a run of these {len(images.used)} images with the same splits, found one of other images "
            "or splits; give the DATA, --limit and --select that it was made with"
        )
    return run


def _find_latest_run(images: Images, splits: Splits, inputs: Sequence[Sequence[TapRef]]) -> Run | None:
    """The latest finished run under `runs` of these images that holds every input."""
    files = Path("runs").glob("*/run.json")
    for file in sorted(files, key=lambda file: (-file.stat().st_mtime_ns, file)):
        try:
            run = Run.load(file.parent)
            if (
                _is_same_data(run, images, splits)
                and {_get_tap_keys(taps) for taps in inputs} <= _get_trained_accuracies(run).keys()
            ):
                return run
        except RunError:  # nobody asked for this one
            continue
    return None
