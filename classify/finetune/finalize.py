"""Complete a fine-tuning: score the network once on the test split, compare it with the frozen head, write the run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from ...cache.errors import ParityError
from ...cache.store import Store
from ...extract.engine.extract import ExtractResult
from ...extract.pixels.decode_pool import DecoderPool
from ...extract.pixels.read_file import count_cores
from ..data import select_features
from ..evaluate import significance
from ..evaluate.confidence_intervals import proportion_ci
from ..evaluate.trial import Score, Trial
from ..export.rebuild_backbone import rebuild_backbone
from ..export.stack_model import stack_model
from ..runs import tables
from ..runs.finetuned_weights import FinetunedWeights
from ..runs.predictions import read_predictions
from ..runs.result import BestTrial, FinetuneSummary, FrozenBaseline, RunnerUp, RunResult, TestAccuracy
from ..runs.run import Run
from ..sweep.finalize import list_notes, summarize_near_duplicates
from . import batches as feed
from .prepare import FinetuneSetup

_MAX_DIFFERENCE = 0.05  # of a probability: more than float16 maps and merged batch normalizations can cause


@dataclass(frozen=True)
class MapPredictions:
    """Probabilities (n, classes) of the fine-tuned network from the cached maps of the images `rows` (n,)."""

    rows: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class TrainingOutcome:
    """The result of a training.

    score: of the best epoch on the held-out images. initial_metrics: before the first epoch. map_predictions: of some of the
    held-out images; None if the input is images.
    """

    tuned: FinetunedWeights
    score: Score
    initial_metrics: Mapping[str, float]
    map_predictions: MapPredictions | None = None


def finalize(
    run: Run,
    setup: FinetuneSetup,
    store: Store,
    outcome: TrainingOutcome,
    start_time: float,
    extract_results: Sequence[ExtractResult] = (),
) -> None:
    """Predict the test images from pixels with the network as it will be exported, and complete the run.

    Raises `ParityError` if the network was trained on cached maps and predicts otherwise from pixels than from maps.
    """
    splits, images, trial = setup.splits, setup.images, setup.tuned_trial
    score, initial_metrics, map_predictions = outcome.score, outcome.initial_metrics, outcome.map_predictions
    rows = splits.test if map_predictions is None else np.concatenate([splits.test, map_predictions.rows])
    all_probabilities = _predict_from_pixels(setup, outcome.tuned, rows)
    probabilities = all_probabilities[: len(splits.test)]
    difference = (
        None if map_predictions is None else _check_parity(setup, map_predictions, all_probabilities[len(splits.test) :])
    )
    frozen_scores = {each: trial_score for each, trial_score in setup.run.load_trials().items() if each.head != trial.head}
    outcome.tuned.save(run, trial)
    saved_trials = run.load_trials()
    scores = {**frozen_scores, trial: score}
    run.append(
        {each: trial_score for each, trial_score in scores.items() if each not in saved_trials},
        time.monotonic() - start_time,
    )
    tables.write(run, images, splits, scores, probabilities)
    group_ids = splits.get_group_ids(splits.test)
    readers = select_features.open_readers(store, setup.trial.tap_refs)
    runner_up = _compare_on_held_out(setup, trial, score)
    previous = run.result.finetune if run.complete else None
    run.finish(
        RunResult(
            best=BestTrial.from_trial(trial, score),
            runner_up=runner_up,
            test=splits.target.score(splits.labels[splits.test], probabilities, group_ids),
            test_plain=None,
            groups=None if runner_up is None else runner_up.comparison.groups,
            accuracy_95={**setup.run.result.accuracy_95, trial.id: _compute_accuracy_interval(setup, score)},
            near_duplicates=summarize_near_duplicates(images, splits, readers, probabilities),
            notes=(*list_notes(splits, trial, score, setup.fold[1]), *_build_notes(score, initial_metrics, setup.mode)),
            advice=None,
            seconds=round(time.monotonic() - start_time, 3),
            finetune=FinetuneSummary(
                initial_metrics=initial_metrics,
                held_out=len(setup.fold[1]),
                frozen=_compare_on_test(setup, trial, probabilities),
                max_map_difference=difference if previous is None else previous.max_map_difference,
                cached=tuple(each.to_dict() for each in extract_results if each.computed)
                if previous is None
                else previous.cached,
            ),
        ),
        setup.run.metadata.data,
    )


def _predict_from_pixels(setup: FinetuneSetup, tuned: FinetunedWeights, rows: np.ndarray) -> np.ndarray:
    """Return probabilities (n, classes) of images from their pixels, by the network that an export would write."""
    from .trainable_tail import predict

    backbone = rebuild_backbone(setup.spec, setup.backbone_specs, tuned_weights=tuned.weights)
    model, jobs = stack_model(backbone, setup.taps, tuned.head), setup.config.jobs or count_cores()
    with DecoderPool(jobs) as decoders, closing(feed.make_image_batches(setup, rows, False, decoders)) as image_batches:
        return predict(model, image_batches)


def _check_parity(setup: FinetuneSetup, map_predictions: MapPredictions, pixel_probabilities: np.ndarray) -> float:
    """Return the largest difference of a probability between maps and pixels; raises `ParityError` if it is too large."""
    largest_difference = float(np.abs(map_predictions.probabilities - pixel_probabilities).max())
    if {setup.config.precision, setup.spec.precision} == {"float32"} and not largest_difference <= _MAX_DIFFERENCE:
        raise ParityError(
            f"{setup.run.path}: the fine-tuned network predicts otherwise from pixels than from cached maps (probabilities "
            f"differ by {largest_difference:.2g}); check the cache with `humeris cache verify`"
        )
    return largest_difference


def _compare_on_held_out(setup: FinetuneSetup, trial: Trial, score: Score) -> RunnerUp | None:
    """Return the comparison with the frozen trial on the held-out images, as the runner-up of the run.

    None if the frozen trial was scored on averages over views, while the fine-tuned network sees plain images.
    """
    if setup.run.metadata.views.average:
        return None
    splits, frozen, frozen_score = setup.splits, setup.trial, setup.score
    rows, held_out = splits.development, setup.fold[1]
    indices = np.searchsorted(rows, held_out)
    mask = np.zeros(len(rows), bool)
    mask[indices] = True
    group_ids = splits.get_selection_group_ids()
    masked_groups = None if group_ids is None else np.where(mask, group_ids, -1)
    tuned_correct, frozen_correct = (significance.unpack_correct(each)[: len(rows)] & mask for each in (score, frozen_score))
    comparison = significance.compare_predictions(
        trial.id, frozen.id, tuned_correct, frozen_correct, len(held_out), masked_groups
    )
    return RunnerUp.from_trial(frozen, frozen_score, comparison)


def _compute_accuracy_interval(setup: FinetuneSetup, score: Score) -> tuple[float, float]:
    """Return the 95 % CI of the accuracy on the held-out images, which are fewer than those of the frozen trials."""
    splits, held_out = setup.splits, setup.fold[1]
    rows = splits.development
    return proportion_ci(significance.unpack_correct(score)[np.searchsorted(rows, held_out)], splits.get_group_ids(held_out))


def _compare_on_test(setup: FinetuneSetup, trial: Trial, probabilities: np.ndarray) -> FrozenBaseline | None:
    """Return the frozen winner's test accuracy and the comparison with it; None if the run did not score that trial."""
    result = setup.run.result
    if result.best.id != setup.trial.id:
        return None
    baseline = FrozenBaseline(
        setup.trial, result.seconds, TestAccuracy.from_scores(result.single_view_test), comparison=None
    )
    if result.test_plain is not None:
        return baseline  # with averaged views, predictions of plain images are not stored
    predicted_classes = {
        prediction.name: prediction.predicted for prediction in read_predictions(setup.run.path / "predictions.csv")
    }
    splits = setup.splits
    names = [setup.images.used[row].name for row in splits.test]
    labels = splits.labels[splits.test]
    frozen_correct = np.array(
        [predicted_classes.get(name) == label for name, label in zip(names, splits.target.decode(labels), strict=True)]
    )
    group_ids = splits.get_group_ids(splits.test)
    tuned_correct = splits.target.find_correct(labels, probabilities)
    comparison = significance.compare_predictions(
        trial.id, setup.trial.id, tuned_correct, frozen_correct, len(labels), group_ids
    )
    return replace(baseline, comparison=comparison)


def _build_notes(score: Score, initial_metrics: Mapping[str, float], mode: str) -> list[str]:
    """Return caveats that follow from the training curves."""
    best = score.fit_info["epochs"] - 1
    lowest = score.fit_info["curves"]["val_loss"][best]
    if lowest < initial_metrics["val_loss"]:
        return []
    evidence = f"on the held-out images (log-loss {lowest:.3f}, {initial_metrics['val_loss']:.3f} before training)"
    if mode == "random":
        return [f"no epoch improved on the random weights {evidence}; train for more epochs, or with another learning rate"]
    return [
        f"no epoch improved on the frozen network {evidence}; use the frozen run, or try a lower learning rate, a later "
        "layer or augmentation"
    ]
