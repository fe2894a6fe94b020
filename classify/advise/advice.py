"""The advice at the end of a run: the scenario, its evidence and caveats, and what to try next."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np

from ...cache.spec import ExtractionSpec
from ...cache.store import Store, get_default_folder
from ...extract.backbones.graph import Layer
from ...extract.backbones.registry import allows_random_weights
from ...extract.images.images import Images
from ..data import select_features
from ..data.cached_taps import FeatureStore
from ..data.feature_matrix import RowReader
from ..data.splits import Splits
from ..diagnose import random_baseline
from ..diagnose.depth_peak import find_peaks
from ..evaluate import significance
from ..evaluate.confidence_intervals import design_effect, proportion_ci
from ..evaluate.trial import Score, Trial
from ..runs.advice import Advice, PretrainingGain
from ..runs.run import Run
from .context import AdviceContext
from .next_steps import suggest_steps
from .scenario import ScenarioEvidence, Size


def advise(run: Run, images: Images, splits: Splits, store: Store, feature_store: FeatureStore, jobs: int) -> Advice:
    """Return the advice of a run whose trials have finished.

    This takes milliseconds, or a few seconds if features with random weights are cached, to train heads on them.

    Parameters
    ----------
    run : Run
        With its trials.
    images : Images
        The data of the run.
    splits : Splits
        Of the images.
    store : Store
        The cache.
    feature_store : FeatureStore
        Where the features are: the cache, or the user's file.
    jobs : int
        Number of parallel jobs.

    Returns
    -------
    Advice
    """
    scores, specs = run.load_trials(), run.metadata.specs
    ranked_trials = scores.ranked
    best = ranked_trials[0]
    scored_rows = splits.development if splits.select == "cv" else splits.val
    groups = splits.get_selection_group_ids()
    peak_by_extraction = find_peaks(run.metadata.depths, scores, len(scored_rows), groups)
    best_extractions = {tap_ref.extraction for tap_ref in best.tap_refs}
    gain, gain_lacks = (
        (None, "features") if images.feature_file else _compute_gain(images, splits, store, specs, ranked_trials, jobs)
    )
    correct, group_ids = _select_correct(scores[best], splits, scored_rows, groups)
    majority_class_accuracy = float(np.bincount(splits.labels[scored_rows]).max() / len(scored_rows))
    evidence = ScenarioEvidence(
        size=_measure_size(splits, groups),
        peak=next(
            (
                peak_by_extraction[tap_ref.extraction]
                for tap_ref in best.tap_refs
                if tap_ref.extraction in peak_by_extraction
            ),
            None,
        ),
        other_peaks=[peak for name, peak in peak_by_extraction.items() if name not in best_extractions],
        gain=gain,
        gain_lacks=gain_lacks,
        accuracy_95=proportion_ci(correct, group_ids),
        majority_class_accuracy=majority_class_accuracy,
        chance_p_value=_compute_chance(
            correct, group_ids, majority_class_accuracy, len({(trial.tap_refs, trial.head) for trial in ranked_trials})
        ),
    )
    is_default_store = store.path == get_default_folder() or images.feature_file is not None
    context = AdviceContext(
        evidence=evidence,
        run=run.path,
        data=images.source.data,
        command_line=run.metadata.command,
        cache_options=() if is_default_store else ("--cache", str(store.path)),
        n_images=len(splits.development),
        views=run.metadata.views,
        seed=run.metadata.seed,
        from_images=images.feature_file is None,
        ranked_trials=ranked_trials,
        scores=scores,
        layers={} if images.feature_file else _load_layers(feature_store, specs),
        specs=specs,
        runner_up=significance.compare_with_runner_up(scores, len(scored_rows), groups),
    )
    return Advice(
        **vars(evidence.summarize()),
        next=tuple(suggest_steps(context)),
        peaks=tuple(peak_by_extraction.values()),
        pretraining_gain=gain,
    )


def is_outdated(run: Run, images: Images, splits: Splits, store: Store) -> bool:
    """Return whether features with random weights, cached since, would add to the advice of a finished run."""
    advice = run.result.advice
    if advice is None or advice.pretraining_gain is not None or images.feature_file is not None:
        return False
    return _open_twin_rows(images, splits, store, run.metadata.specs, run.load_trials().ranked[0]) is not None


def _measure_size(splits: Splits, groups: np.ndarray | None) -> Size:
    labels = splits.labels[splits.development]
    n_groups = None if groups is None else len(np.unique(groups[groups >= 0]))
    n_classes = len(splits.classes)
    return Size(len(labels), n_groups, n_classes, int(np.bincount(labels, minlength=n_classes).min()))


def _select_correct(
    score: Score, splits: Splits, scored_rows: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return whether each of `scored_rows` was predicted correctly, and their group indices."""
    indices = np.searchsorted(splits.development, scored_rows)
    return significance.unpack_correct(score)[indices], None if groups is None else groups[indices]


def _compute_chance(correct: np.ndarray, groups: np.ndarray | None, majority_class_accuracy: float, n_heads: int) -> float:
    """Return the p-value of the winner against the majority class, Bonferroni-corrected for `n_heads`."""
    from scipy.stats import binomtest

    effect = design_effect(correct, groups)
    total = max(1, round(len(correct) / effect))
    test_result = binomtest(
        min(total, round(float(correct.sum()) / effect)), total, majority_class_accuracy, alternative="greater"
    )
    return min(1.0, n_heads * float(test_result.pvalue))


def _load_layers(feature_store: FeatureStore, specs: Mapping[str, ExtractionSpec]) -> dict[str, list[Layer]]:
    """Return the layers of each network whose metadata is complete."""
    layers_by_extraction = {}
    for extraction in feature_store.iter_extractions():
        if extraction.name in specs:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a file of features may have less
                layers_by_extraction[extraction.name] = [Layer.from_dict(entry) for entry in extraction.layers]
    return layers_by_extraction


def _open_twin_rows(
    images: Images, splits: Splits, store: Store, specs: Mapping[str, ExtractionSpec], best_trial: Trial
) -> Sequence[RowReader] | None:
    return random_baseline.open_twin_rows(store, specs, best_trial.tap_refs, images.keys[splits.development])


def _compute_gain(
    images: Images,
    splits: Splits,
    store: Store,
    specs: Mapping[str, ExtractionSpec],
    ranked_trials: Sequence[Trial],
    jobs: int,
) -> tuple[PretrainingGain | None, str]:
    """Return the gain from pretraining, or None and the reason: `random`, `file`, `cached` or `few`."""
    best_trial = ranked_trials[0]
    own_specs = [specs[tap_ref.extraction] for tap_ref in best_trial.tap_refs]
    if all(spec.has_random_weights for spec in own_specs):
        return None, "random"
    random_readers = _open_twin_rows(images, splits, store, specs, best_trial)
    if random_readers is None:
        return None, "cached" if all(map(allows_random_weights, own_specs)) else "file"
    rows = splits.development
    groups = np.arange(len(rows)) if splits.groups is None else np.unique(splits.groups[rows], return_inverse=True)[1]
    head, hyperparameters = random_baseline.choose_quick_head(ranked_trials, best_trial)
    grid = [
        trial.hyperparameters for trial in ranked_trials if (trial.tap_refs, trial.head) == (best_trial.tap_refs, head)
    ] or [hyperparameters]
    labeled_images = random_baseline.LabeledImages(images.keys[rows], splits.labels[rows], groups, splits.target)
    gain = random_baseline.compute_gain(
        select_features.open_readers(store, best_trial.tap_refs), random_readers, labeled_images, head, grid, jobs
    )
    return gain, "" if gain else "few"
