"""The end of a sweep: retrain the winner, score it once on the test split, and write the results."""

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
_FEW_GROUPS = 20  # below which estimates of variance are unreliable


def finalize_sweep(
    run: Run,
    images: Images,
    splits: Splits,
    row_readers: Sequence[RowReader],
    jobs: int,
    advice: Advice,
    seconds: float,
) -> RunResult:
    """Retrain the winner, score it once on the test split, and write its head and the tables.

    Training and test rows are in memory one after the other.

    Parameters
    ----------
    run : Run
        The run, with all trials.
    images : Images
        The images.
    splits : Splits
        Their splits.
    row_readers : sequence of RowReader
        Rows of the winner's taps.
    jobs : int
        Number of threads.
    advice : Advice
        Recorded in the result.
    seconds : float
        Elapsed time of the run, recorded in the result.

    Returns
    -------
    RunResult
        The result of the run.
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
            *note_constant_probabilities(probabilities),
        ),
        advice=advice,
        seconds=seconds,
    )


def _compute_accuracy_cis(run: Run, scores: Mapping[Trial, Score], group_ids: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals, by groups, of the accuracies in the depth curve, by trial id."""
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
    """Summarize the near-duplicates of test images by the winner's features."""
    rows, names = splits.development, [image.name for image in images.used]
    matches = near_duplicates.find(
        ViewRows.from_readers(row_readers, images.keys[splits.test]).features.to_streaming(),
        ViewRows.from_readers(row_readers, images.keys[rows]).features.to_streaming(),
    )
    test_names, development_names = [names[row] for row in splits.test], [names[row] for row in rows]
    is_correct = splits.target.find_correct(splits.labels[splits.test], probabilities)
    return near_duplicates.summarize(matches, test_names, development_names, is_correct, splits.get_group_ids(splits.test))


def _find_runner_up(scores: Mapping[Trial, Score], comparison: significance.Comparison | None) -> RunnerUp | None:
    """Return the best trial with another head or other taps, compared with the winner on the same images."""
    if comparison is None:
        return None
    trial = next(trial for trial in scores if trial.id == comparison.runner_up)
    return RunnerUp.from_trial(trial, scores[trial], comparison)


def _note_missing_views(row_readers: Sequence[RowReader], keys: np.ndarray, count: int) -> list[str]:
    """Return a note on the augmented views that are missing; none if all are there."""
    n_missing = len(keys) * (1 + count) - len(ViewRows.from_readers(row_readers, keys, count).images) if count else 0
    note = (
        f"{n_missing} of the {len(keys) * count} augmented views gave NaN or infinity at a tap of the winner "
        "and were not used"
    )
    return [note] if n_missing else []


def note_constant_probabilities(probabilities: np.ndarray) -> list[str]:
    """Return a note if all test images have the same probabilities (n, classes), as constant features give them."""
    if len(probabilities) < 2 or (probabilities != probabilities[0]).any():
        return []
    return [
        "the winner gives all test images the same probabilities: its features are constant; use another layer, and check "
        "that the preprocessing is that of the network"
    ]


def list_notes(splits: Splits, winner: Trial, score: Score, selection_rows: np.ndarray | None = None) -> list[str]:
    """Return the caveats of the results. selection_rows: rows that heads were selected on, if not those of a sweep."""
    notes = []
    if score.fit_info.get("converged") is False:
        notes.append(
            f"the solver of {winner.head} did not converge in every fold, so its scores are those of its "
            "last iteration; try smaller values of C"
        )
    names = splits.target.stratum_names
    counts = np.bincount(splits.target.stratify(splits.labels[splits.test]), minlength=len(names))
    if absent_classes := [names[stratum] for stratum in np.nonzero(counts == 0)[0]]:
        notes.append(
            f"no test images of {', '.join(absent_classes[:5])}{' …' if len(absent_classes) > 5 else ''}: "
            "test accuracy says nothing about these classes"
        )
    if len(splits.test) < _FEW_TEST_IMAGES:
        notes.append(f"only {len(splits.test)} test images: the 95 % interval is wide")
    for subset_name, rows in (
        ("test images", splits.test),
        (
            "images that heads were selected on",
            splits.selection_rows if selection_rows is None else selection_rows,
        ),
    ):
        groups = splits.get_group_ids(rows)
        if groups is not None and (count := len(np.unique(groups))) < _FEW_GROUPS:
            notes.append(
                f"the {subset_name} come from only {count} groups, which count as the independent samples: "
                "the 95 % intervals are wide"
            )
    return notes
