"""Fit the head of one trial, and predict with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.feature_matrix import RowReader
from ..data.views import ViewRows, Views
from ..evaluate.target import Target
from ..evaluate.trial import Score, Trial
from .head import Head
from .registry import get_head_family
from .training_data import Folds, TrainingData


def build_training_data(
    readers: Sequence[RowReader],
    keys: np.ndarray,
    labels: np.ndarray,
    target: Target,
    folds: Folds = (),
    views: Views | None = None,
    threads: int = 1,
) -> TrainingData:
    """Put the features of several taps side by side as training data.

    An image is trained on in every view, and scored in its plain view, or in all views if views are averaged.

    Parameters
    ----------
    readers
        A reader of the rows of each tap.
    keys : ndarray of shape (images, 32)
        Digests of the images.
    labels : ndarray of shape (images, …)
        Labels as encoded by `target`.
    target
        The kind of labels.
    folds
        (fit, score) image numbers.
    views
        The augmented views, if any.
    threads
        Number of threads for training.
    """
    views = views or Views()
    view_rows = ViewRows.from_readers(readers, keys, views.count)
    row_folds = tuple(
        (view_rows.select_rows(fit_images), view_rows.select_rows(score_images, views.average))
        for fit_images, score_images in folds
    )
    return TrainingData(view_rows.features, labels[view_rows.images], target, row_folds, view_rows.images, threads)


def train(trial: Trial, score: Score, data: TrainingData, seed: int) -> Head:
    """Fit the head of a trial on all rows; `score` is that of the trial, which has the number of epochs."""
    return get_head_family(trial.head).fit(data, trial.hyperparameters, score.fit_info, seed)


def predict_proba(head: Head, view_rows: ViewRows) -> np.ndarray:
    """Return probabilities (images, classes), averaged over each image's views; computed in blocks of rows."""
    probabilities = np.concatenate([head.predict_proba(values) for _, values in view_rows.features.iter_blocks()])
    return probabilities if len(probabilities) == int(view_rows.images[-1]) + 1 else view_rows.average_views(probabilities)
