"""Learning curves and early stopping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training_data import TrainingData


@dataclass
class EarlyStopping:
    """The training curves of one head, and its predictions after the best epoch.

    Parameters
    ----------
    epochs
        Maximum number of epochs.
    patience
        Number of epochs without a lower ``val_loss`` after which training stops; 0 to never stop early.
    curves
        Values of each metric after each epoch, including ``val_loss``.
    predictions
        Predictions after the best epoch, for each fold.
    best_epoch
        Index of the epoch with the lowest ``val_loss``.
    min_epochs
        Minimum number of epochs; `patience` counts from there.
    """

    epochs: int
    patience: int
    curves: dict[str, list[float]]
    predictions: list[np.ndarray]
    best_epoch: int = 0
    min_epochs: int = 0

    def add_epoch(self, epoch_metrics: Mapping[str, float], predictions: Sequence[np.ndarray]) -> None:
        """Record the metrics of an epoch, and its predictions for each fold if it is the best so far."""
        if not self.predictions or epoch_metrics["val_loss"] < self.curves["val_loss"][self.best_epoch]:
            self.predictions = [prediction.copy() for prediction in predictions]
            self.best_epoch = len(self.curves["val_loss"])
        for name, value in epoch_metrics.items():
            self.curves[name].append(value)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or the last `patience` of them did not improve."""
        n_epochs = len(self.curves["val_loss"])
        return n_epochs == self.epochs or 0 < self.patience < n_epochs - max(self.best_epoch, self.min_epochs - 1)

    def to_fit_info(self) -> dict[str, Any]:
        """Return the number of epochs up to the best, and the curves, as JSON values."""
        return {
            "epochs": self.best_epoch + 1,
            "curves": {name: [round(value, 5) for value in curve] for name, curve in self.curves.items()},
        }


def train_subsample(data: TrainingData, rows: np.ndarray, held_out: np.ndarray, seed: int) -> np.ndarray:
    """Sample as many training images as are held out; return all rows of them.

    Parameters
    ----------
    data
        Its ``images`` are the image numbers of rows.
    rows : ndarray of shape (m,)
        Row numbers that are trained on.
    held_out : ndarray of shape (s,)
        Row numbers that are held out.
    seed
        Seed of the sample.
    """
    images = np.unique(data.images[rows])
    count = min(len(images), len(np.unique(data.images[held_out])))
    image_sample = np.random.default_rng([seed, count]).choice(images, count, replace=False)
    return rows[np.isin(data.images[rows], image_sample)]


def measure(data: TrainingData, rows: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute log-loss and accuracy of several heads, with predictions averaged over each image's views.

    Parameters
    ----------
    data
        Labels.
    rows : ndarray of shape (m,)
        Row numbers.
    predictions : ndarray of shape (m, heads, classes)
        Probabilities.

    Returns
    -------
    log_loss, accuracy : ndarray of shape (heads,)
    """
    images, first, inverse = np.unique(data.images[rows], return_index=True, return_inverse=True)
    mean = predictions[first]
    if len(images) < len(rows):
        mean = np.zeros(mean.shape)
        np.add.at(mean, inverse, predictions)
        mean /= np.bincount(inverse)[:, None, None]
    labels = data.labels[rows][first]
    loss = [data.target.compute_loss(labels, mean[:, head]) for head in range(mean.shape[1])]
    accuracy = [data.target.find_correct(labels, mean[:, head]).mean() for head in range(mean.shape[1])]
    return np.array(loss), np.array(accuracy)
