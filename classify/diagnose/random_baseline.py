"""Gain from pretraining: the same head on the same taps of the same network with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...cache.errors import HumerisError
from ...cache.spec import DESCRIPTIVE_FIELDS, ExtractionSpec
from ...cache.store import Store
from ...extract.backbones.tap_ref import TapRef
from ..data import select_features
from ..data.feature_matrix import RowReader
from ..data.group_sampling import assign_folds, sample
from ..data.splits import FOLDS
from ..evaluate import significance
from ..evaluate.target import Target
from ..evaluate.trial import Score, Trial, rank_trials
from ..heads.fit import build_training_data
from ..heads.registry import find_head_family, get_head_family
from ..heads.training_data import Folds
from ..runs.advice import PretrainingGain

_MAX_VALUES = 100_000_000  # numbers read at most, except for the minimum of images
_MAX_IMAGES, _MIN_IMAGES = 5000, 200  # images
_MAX_OPERATIONS = 2e8  # rows times columns times classes, above which heads other than ridge take too long


@dataclass(frozen=True)
class LabeledImages:
    """Images for training: keys (n,), labels (n, …) as encoded by `target`, and group numbers (n,)."""

    keys: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    target: Target


def find_random_init_twin(store: Store, spec: ExtractionSpec) -> str | None:
    """Return the folder of the extraction that differs from `spec` only in having random weights; None if there is none."""
    ignored_fields = {*DESCRIPTIVE_FIELDS, "weights_sha256"}
    spec_fields = {name: value for name, value in spec.to_dict().items() if name not in ignored_fields}
    for extraction in store.iter_extractions():
        other_fields = {name: value for name, value in extraction.spec.to_dict().items() if name not in ignored_fields}
        if extraction.spec.has_random_weights and other_fields == spec_fields:
            return extraction.name
    return None


def open_twin_rows(
    store: Store, specs: Mapping[str, ExtractionSpec], taps: Sequence[TapRef], keys: np.ndarray
) -> list[RowReader] | None:
    """Open the rows of the images `keys` (n,) at the same taps of the networks with random weights.

    specs: those of the taps' extractions, by folder. Returns None unless all rows are cached.
    """
    twins = {name: find_random_init_twin(store, specs[name]) for name in {tap.extraction for tap in taps}}
    if not all(twins.values()):
        return None
    try:
        readers = select_features.open_readers(store, [replace(tap, extraction=twins[tap.extraction] or "") for tap in taps])
    except HumerisError:  # another process removed the rows
        return None
    any_readers: list[Any] = list(readers)
    return None if any(reader.find_missing(keys).any() for reader in any_readers) else readers


def is_quick(head: str) -> bool:
    """Return whether a head family trains in seconds on any single tap."""
    family = find_head_family(head)
    return family is not None and not family.uses_keras and not family.uses_all_taps


def choose_quick_head(ranked_trials: Sequence[Trial], best: Trial) -> tuple[str, Mapping[str, Any]]:
    """Return the head to compare with and its hyperparameters.

    It is that of `best` if it trains quickly, else of the first trial on its taps that does, else a default.
    ranked_trials: trials, best first.
    """
    if is_quick(best.head):
        return best.head, best.hyperparameters
    for trial in ranked_trials:
        if trial.tap_refs == best.tap_refs and is_quick(trial.head):
            return trial.head, trial.hyperparameters
    (hyperparameters,) = get_head_family("logreg").expand_grid({"C": "0.01"})
    return "logreg", hyperparameters


def compute_gain(
    own_readers: Sequence[RowReader],
    random_readers: Sequence[RowReader],
    labeled_images: LabeledImages,
    head: str,
    grid: Sequence[Mapping[str, Any]],
    jobs: int,
) -> PretrainingGain | None:
    """Compute the gain from pretraining by cross-validation; None if some class has too few images.

    Both sets of rows use the same folds, which keep groups whole. To take only seconds, many images or very wide rows are
    sampled, and with many classes the head is ridge regression, which needs one decomposition.

    Parameters
    ----------
    own_readers, random_readers : sequence of RowReader
        Rows of the pretrained network and of its random initialization, at the same taps.
    labeled_images : LabeledImages
        The images.
    head : str
        The head family.
    grid : sequence of mapping
        Hyperparameters to try.
    jobs : int
        Number of threads.

    Returns
    -------
    PretrainingGain or None
        Both accuracies and their difference.
    """
    n_features = sum(reader.read(labeled_images.keys[:1]).size for reader in own_readers)
    rows = sample(
        labeled_images.labels, labeled_images.groups, min(_MAX_IMAGES, max(_MIN_IMAGES, _MAX_VALUES // n_features)), 0
    )
    if len(rows) * n_features * labeled_images.target.n_outputs > _MAX_OPERATIONS:
        head, grid = "ridge", get_head_family("ridge").expand_grid({})
    labels, groups = labeled_images.labels[rows], np.unique(labeled_images.groups[rows], return_inverse=True)[1]
    folds = _make_folds(labeled_images.target.stratify(labels), groups, len(labeled_images.target.stratum_names))
    if not folds:
        return None
    scores: dict[Trial, Score] = {}
    for name, readers in (("own", own_readers), ("random", random_readers)):
        training_data = build_training_data(
            readers, labeled_images.keys[rows], labels, labeled_images.target, folds, threads=jobs
        )
        tap_refs = (TapRef(name, name, name, name),)
        cv_scores = get_head_family(head).cross_validate(training_data, grid, 0)
        score_by_trial = {
            Trial(tap_refs, head, hyperparameters): score for hyperparameters, score in zip(grid, cv_scores, strict=True)
        }
        best = rank_trials(score_by_trial)[0]
        scores[best] = score_by_trial[best]
    own_trial, random_trial = scores
    is_ungrouped = len(np.unique(groups)) == len(groups)
    comparison = significance.compare_with_runner_up(scores, len(rows), None if is_ungrouped else groups)
    assert comparison is not None  # there are two trials
    low, high = comparison.difference_95
    difference_95 = (low, high) if comparison.winner == own_trial.id else (-high, -low)
    return PretrainingGain(scores[own_trial].accuracy, scores[random_trial].accuracy, difference_95, len(rows), head)


def _make_folds(labels: np.ndarray, groups: np.ndarray, n_classes: int) -> Folds:
    """Return (fit, score) rows of up to `FOLDS` folds; () if a class would have no training images in one."""
    label_group_pairs = np.unique(np.stack([labels, groups]), axis=1)[0]
    n_folds = min(FOLDS, int(np.bincount(label_group_pairs, minlength=n_classes).min()))
    fold_of_row = assign_folds(labels, groups, max(1, n_folds), 0)
    folds = tuple((np.nonzero(fold_of_row != number)[0], np.nonzero(fold_of_row == number)[0]) for number in range(n_folds))
    return (
        folds
        if all(len(np.unique(labels[train_rows])) == n_classes and len(test_rows) for train_rows, test_rows in folds)
        else ()
    )
