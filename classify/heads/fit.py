"""Training one head: on what, and what it then answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.feature_matrix import Stored
from ..data.views import Shown, Views
from ..evaluate.trial import Score, Trial
from .head import Head
from .registry import FAMILIES
from .training_data import Folds, Problem


def problem(
    stored: Sequence[Stored],
    keys: np.ndarray,
    labels: np.ndarray,
    classes: int,
    folds: Folds = (),
    views: Views | None = None,
    threads: int = 1,
) -> Problem:
    """What heads are trained on: images `keys` (n,) with class numbers (n,) and folds of them, the taps side by side.

    An image is learnt from in every view there is, and scored in the plain one, or in all where views are averaged.
    """
    views = views or Views()
    shown = Shown.of(stored, keys, views.count)
    parts = tuple((shown.rows(fit), shown.rows(score, views.average)) for fit, score in folds)
    return Problem(shown.features, labels[shown.images], classes, parts, shown.images, threads)


def train(trial: Trial, score: Score, learnt: Problem, classes: Sequence[str], seed: int) -> Head:
    """The head of `trial`, trained on all rows of `learnt`."""
    head: Head = FAMILIES[trial.head].fit(learnt, trial.setting, score.detail, classes, seed)
    return head


def answers(head: Head, shown: Shown) -> np.ndarray:
    """Probabilities (images, classes) of the images shown, the mean over their views; a block of rows at a time."""
    found = np.concatenate([head.predict_proba(values) for _, values in shown.features.blocks()])
    return found if len(found) == int(shown.images[-1]) + 1 else shown.mean(found)
