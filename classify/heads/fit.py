"""Training one head: on what, and what it then answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.feature_matrix import RowReader
from ..data.views import ViewRows, Views
from ..evaluate.trial import Score, Trial
from .head import Head
from .registry import FAMILIES
from .training_data import Folds, TrainingData


def build_training_data(
    readers: Sequence[RowReader],
    keys: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    folds: Folds = (),
    views: Views | None = None,
    threads: int = 1,
) -> TrainingData:
    """What heads are trained on: images `keys` (n,) with class numbers (n,) and folds of them, the taps side by side.

    An image is learnt from in every view there is, and scored in the plain one, or in all where views are averaged.
    """
    views = views or Views()
    view_rows = ViewRows.from_readers(readers, keys, views.count)
    row_folds = tuple(
        (view_rows.select_rows(fit_images), view_rows.select_rows(score_images, views.average))
        for fit_images, score_images in folds
    )
    return TrainingData(view_rows.features, labels[view_rows.images], n_classes, row_folds, view_rows.images, threads)


def train(trial: Trial, score: Score, data: TrainingData, class_names: Sequence[str], seed: int) -> Head:
    """The head of `trial`, trained on all rows of `learnt`."""
    head: Head = FAMILIES[trial.head].fit(data, trial.hyperparameters, score.detail, class_names, seed)
    return head


def predict_proba(head: Head, view_rows: ViewRows) -> np.ndarray:
    """Probabilities (images, classes) of the images shown, the mean over their views; a block of rows at a time."""
    probabilities = np.concatenate([head.predict_proba(values) for _, values in view_rows.features.iter_blocks()])
    return probabilities if len(probabilities) == int(view_rows.images[-1]) + 1 else view_rows.average_views(probabilities)
