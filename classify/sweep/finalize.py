"""The end of a sweep: the winner trained once more, scored once, and everything written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...extract.images.images import Images
from ..data.feature_matrix import RowReader
from ..data.splits import Splits
from ..data.views import ViewRows
from ..diagnose import near_duplicates
from ..evaluate import significance
from ..evaluate.confidence_intervals import proportion_ci
from ..evaluate.trial import Score, Trial
from ..heads.fit import build_training_data, predict_proba, train
from ..runs import tables
from ..runs.advice import Advice
from ..runs.result import BestTrial, NearDuplicateSummary, RunnerUp, RunResult
from ..runs.run import Run

_FEW_TEST_IMAGES = 100  # test images, below which the 95 % interval is about 16 points wide at an accuracy of 0.8
_FEW_GROUPS = 20  # below which variances are hardly known


def finalize_sweep(
    run: Run,
    images: Images,
    splits: Splits,
    row_readers: Sequence[RowReader],
    jobs: int,
    advice: Advice,
    seconds: float,
) -> RunResult:
    """Train the winner, score it once, and write it and the tables; what the run ends with.

    What is learnt from and what is tested on are in memory one after the other.
    """
    scores, views = run.load_trials(), run.metadata.views
    best_trial = scores.ranked[0]
    rows, test_keys = splits.development, images.keys[splits.test]
    head = run.load_head(best_trial)
    if head is None:
        training_data = build_training_data(
            row_readers, images.keys[rows], splits.labels[rows], splits.target, (), views, jobs
        )
        head = train(best_trial, scores[best_trial], training_data, run.metadata.seed)
        del training_data
    probabilities = predict_proba(head, ViewRows.from_readers(row_readers, test_keys, views.count if views.average else 0))
    plain_probabilities = (
        predict_proba(head, ViewRows.from_readers(row_readers, test_keys)) if views.average else probabilities
    )
    run.save_head(best_trial, head)
    tables.write(run, images, splits, scores, probabilities)
    selection_groups, test_groups = splits.get_selection_group_ids(), splits.get_group_ids(splits.test)
    comparison = significance.compare_with_runner_up(scores, len(splits.selection_rows), selection_groups)
    development_keys = images.keys if views.average else images.keys[rows]
    return RunResult(
        best=BestTrial.from_trial(best_trial, scores[best_trial]),
        runner_up=_find_runner_up(scores, comparison),
        test=splits.target.score(splits.labels[splits.test], probabilities, test_groups),
        test_plain=splits.target.score(splits.labels[splits.test], plain_probabilities, test_groups)
        if views.average
        else None,
        groups=None if selection_groups is None else len(np.unique(selection_groups[selection_groups >= 0])),
        accuracy_95={} if selection_groups is None else _compute_accuracy_cis(run, scores, selection_groups),
        near_duplicates=summarize_near_duplicates(images, splits, row_readers, probabilities),
        notes=(
            *list_notes(splits, best_trial, scores[best_trial]),
            *_note_missing_views(row_readers, development_keys, views.count),
        ),
        advice=advice,
        seconds=seconds,
    )


def _compute_accuracy_cis(run: Run, scores: Mapping[Trial, Score], group_ids: np.ndarray) -> dict[str, tuple[float, float]]:
    """The 95 % intervals of the accuracies in the table, by groups, by the trial's id."""
    curve_trial_ids = {point.trial for point in run.compute_depth_curve()}
    correct_by_trial = {
        trial.id: significance.unpack_correct(score)[: len(group_ids)][group_ids >= 0]
        for trial, score in scores.items()
        if trial.id in curve_trial_ids
    }
    return {trial_id: proportion_ci(correct, group_ids[group_ids >= 0]) for trial_id, correct in correct_by_trial.items()}


def summarize_near_duplicates(
    images: Images, splits: Splits, row_readers: Sequence[RowReader], probabilities: np.ndarray
) -> NearDuplicateSummary:
    """Test images that nearly equal others, as the winner's features show them."""
    rows, names = splits.development, [image.name for image in images.used]
    matches = near_duplicates.find(
        ViewRows.from_readers(row_readers, images.keys[splits.test]).features.to_streaming(),
        ViewRows.from_readers(row_readers, images.keys[rows]).features.to_streaming(),
    )
    test_names, development_names = [names[row] for row in splits.test], [names[row] for row in rows]
    is_correct = splits.target.find_correct(splits.labels[splits.test], probabilities)
    return near_duplicates.summarize(matches, test_names, development_names, is_correct, splits.get_group_ids(splits.test))


def _find_runner_up(scores: Mapping[Trial, Score], comparison: significance.Comparison | None) -> RunnerUp | None:
    """The best trial of another head or other taps, and how it compares with the winner on the same images."""
    if comparison is None:
        return None
    trial = next(trial for trial in scores if trial.id == comparison.runner_up)
    return RunnerUp.from_trial(trial, scores[trial], comparison)


def _note_missing_views(row_readers: Sequence[RowReader], keys: np.ndarray, count: int) -> list[str]:
    """How many of the views that should be seen are not there, if any."""
    n_missing = len(keys) * (1 + count) - len(ViewRows.from_readers(row_readers, keys, count).images) if count else 0
    note = f"{n_missing} of the {len(keys) * count} augmented views gave NaN or infinity at a tap of the winner: not used"
    return [note] if n_missing else []


def list_notes(splits: Splits, winner: Trial, score: Score, selection_rows: np.ndarray | None = None) -> list[str]:
    """What makes the figures less sure than they look; selection_rows: rows, if others than a sweep chooses by."""
    notes = []
    if score.fit_info.get("converged") is False:
        notes.append(
            f"the solver of {winner.head} was stopped before it had converged in every fold, and its scores are of where it "
            "stood; try smaller values of C"
        )
    names = splits.target.stratum_names
    counts = np.bincount(splits.target.stratify(splits.labels[splits.test]), minlength=len(names))
    if absent_classes := [names[stratum] for stratum in np.nonzero(counts == 0)[0]]:
        notes.append(
            f"no test image of {', '.join(absent_classes[:5])}{' …' if len(absent_classes) > 5 else ''}: nothing is known "
            "of these"
        )
    if len(splits.test) < _FEW_TEST_IMAGES:
        notes.append(f"only {len(splits.test)} test images: mind the width of the interval")
    for subset_name, rows in (
        ("test images", splits.test),
        (
            "images that heads were chosen by",
            splits.selection_rows if selection_rows is None else selection_rows,
        ),
    ):
        groups = splits.get_group_ids(rows)
        if groups is not None and (count := len(np.unique(groups))) < _FEW_GROUPS:
            notes.append(
                f"the {subset_name} come from only {count} groups, which are what counts: mind the width of the intervals"
            )
    return notes
