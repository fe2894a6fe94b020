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
from ..extract.backbones.backbone_spec import Request
from ..extract.images.load import Images, Progress
from ..extract.pixels.read_file import cores
from .data import select_features as sources
from .data.feature_matrix import Matrix
from .data.splits import Splits, split
from .diagnose.transferability import Moments, centroid_accuracy, h_score, knn_accuracy, log_me
from .evaluate.trial import Source, ranked
from .heads.training_data import Folds
from .runs.run import Run

MEASURES = ("log_me", "h_score", "knn", "centroid")
_Taps = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Scored:
    """The scores of one tap, or of several side by side; higher is better in all.

    columns: numbers in a row. knn, centroid: cross-validated accuracy. seconds: what it took, reading included. trained:
    cross-validated accuracy of the best head in a run of the same images.
    """

    sources: tuple[Source, ...]
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
        return {**asdict(self), "sources": [asdict(source) for source in self.sources]}


@dataclass(frozen=True)
class Ranking:
    """Taps, the best by the mean of their four places first, of images of which only those outside the test split count.

    run: a finished sweep of the same images, if there is one.
    """

    images: Images
    splits: Splits
    rows: tuple[Scored, ...]
    left_out: Mapping[Source, int]
    run: Run | None

    def places(self, measure: str) -> list[int]:
        """The place of each row by a measure, 1 the best; equal scores share the better place."""
        values = [round(getattr(row, measure), 12) for row in self.rows]  # means of equal folds in another order are equal
        return [1 + sum(other > value for other in values) for value in values]

    def agreement(self) -> dict[str, dict[str, float | int | None]]:
        """Kendall's tau of each measure with the trained ranking, its p-value, and of how many taps; {} without a run.

        None where there is no telling: fewer than three taps, or all alike. The p-value is that of no agreement at all
        (Kendall, Biometrika 30 (1938); ties as in his tau-b, 1945).
        """
        from scipy.stats import kendalltau

        both = [row for row in self.rows if row.trained is not None]
        found: dict[str, dict[str, float | int | None]] = {}
        for measure in MEASURES if self.run else ():
            values, trained = [getattr(row, measure) for row in both], [row.trained for row in both]
            telling = len(both) > 2 and len(set(values)) > 1 and len(set(trained)) > 1
            result = kendalltau(values, trained) if telling else None
            found[measure] = {
                "tau": None if result is None else float(result.statistic),
                "p_value": None if result is None else float(result.pvalue),
                "taps": len(both),
            }
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        places = {measure: self.places(measure) for measure in MEASURES}
        return {
            "data": self.images.summary(),
            "splits": self.splits.summary(),
            "ranking": [
                {**row.to_dict(), "places": {measure: places[measure][number] for measure in MEASURES}}
                for number, row in enumerate(self.rows)
            ],
            "run": None if self.run is None else str(self.run.path),
            "agreement": self.agreement(),
            "left_out": [{**vars(source), "images_missing": lacking} for source, lacking in self.left_out.items()],
        }


def rank(
    images: Images,
    store: Store,
    *,
    requests: Sequence[Request] = (),
    patterns: Sequence[str] = (),
    pools: Sequence[str] = (),
    select: str | None = None,
    run: Path | str | None = None,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Score every tap asked for (see `sources.Wanted`) on the images that may be learnt from, without training.

    LogME and H-score are of all of those; nearest neighbours and centroids are scored on the folds of a sweep with the same
    `select` and `seed`. `run` is a finished run to compare with; without it the latest one under `runs` of the same images,
    split the same way, that holds every tap ranked. `jobs`: threads of the products, every core unless given. Raises
    `DataError`, `LayerError`, `RunError`.
    """
    from threadpoolctl import threadpool_limits

    split(images, select)  # labels that cannot be used are found out first
    shelf = images.given or store
    found = sources.find(shelf, images.keys, sources.Wanted(requests, patterns, pools))
    images = found.finite(images).by_digest()
    splits = split(images, select)
    learnt = splits.development
    folds = tuple((np.searchsorted(learnt, fit), np.searchsorted(learnt, score)) for fit, score in splits.folds(seed))
    compared = _given(run, images, splits) if run is not None else _latest(images, splits, found.inputs)
    trained = {} if compared is None else _trained(compared)
    rows = []
    for number, taps in enumerate(found.inputs):
        began = time.perf_counter()
        features = sources.matrix([found.complete[source] for source in taps], images.keys[learnt])
        with threadpool_limits(jobs or cores()):
            scores = _score(features, splits.labels[learnt], folds)
        seconds = round(time.perf_counter() - began, 3)
        depth = found.depth[taps[0]] if len(taps) == 1 else None
        rows.append(Scored(taps, depth, features.shape[1], **scores, seconds=seconds, trained=trained.get(_taps(taps))))
        if progress is not None:
            progress(number + 1, len(found.inputs))
    if run is not None and not any(row.trained is not None for row in rows):
        raise RunError(
            f"{run}: expected a run of the taps that are ranked, found one of {len(trained)} others; name the run of "
            "these, or rank with its -b and -l"
        )
    unordered = Ranking(images, splits, tuple(rows), found.left_out, compared)
    places = np.sum([unordered.places(measure) for measure in MEASURES], axis=0)
    order = sorted(range(len(rows)), key=lambda row: (places[row], -rows[row].log_me, rows[row].sources))
    return Ranking(images, splits, tuple(rows[row] for row in order), found.left_out, compared)


def _score(features: Matrix, labels: np.ndarray, folds: Folds) -> dict[str, float]:
    moments = Moments.of(features, labels)
    rows = moments.rows(features)
    return {
        "log_me": log_me(moments),
        "h_score": h_score(moments),
        "knn": knn_accuracy(rows, labels, folds),
        "centroid": centroid_accuracy(rows, labels, folds),
    }


def _taps(taps: Sequence[Source]) -> _Taps:
    """What names taps in every run, whatever else lay in the cache."""
    return tuple((source.extraction, source.layer, source.pool) for source in taps)


def _trained(run: Run) -> dict[_Taps, float]:
    """The cross-validated accuracy of the best head on each input of a run."""
    scores = run.trials()
    found: dict[_Taps, float] = {}
    for trial in ranked(scores):
        found.setdefault(_taps(trial.sources), scores[trial].accuracy)
    return found


def _same(run: Run, images: Images, splits: Splits) -> bool:
    """Whether a run was of the same images, with the same labels in the same splits."""
    role = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    here = {(image.digest, image.item.label or "", role[row]) for row, image in enumerate(images.used)}
    there = {(record.digest, record.label, record.split) for record in run.images()}
    return here == there and run.description["splits"]["select"] == splits.select


def _given(path: Path | str, images: Images, splits: Splits) -> Run:
    run = Run.load(path)
    if not _same(run, images, splits):
        raise RunError(
            f"{path}: expected a run of these {len(images.used)} images with the same splits, found one of other images "
            "or splits; give the DATA, --limit and --select that it was made with"
        )
    return run


def _latest(images: Images, splits: Splits, inputs: Sequence[Sequence[Source]]) -> Run | None:
    """The latest finished run under `runs` of these images that holds every input."""
    files = Path("runs").glob("*/run.json")
    for file in sorted(files, key=lambda file: (-file.stat().st_mtime_ns, file)):
        try:
            run = Run.load(file.parent)
            if _same(run, images, splits) and {_taps(taps) for taps in inputs} <= _trained(run).keys():
                return run
        except RunError:  # nobody asked for this one
            continue
    return None
