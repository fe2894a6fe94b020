"""How the training of heads went, epoch by epoch, on images held out and on as many that were learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training_data import TrainingData


@dataclass
class EarlyStopping:
    """How the training of one setting went: its curves, and what it answered for each fold after its best epoch.

    min_epochs: epochs that are done in any case, from which on `patience` counts.
    """

    epochs: int
    patience: int
    curves: dict[str, list[float]]
    predictions: list[np.ndarray]
    best_epoch: int = 0
    min_epochs: int = 0

    def add_epoch(self, epoch_metrics: Mapping[str, float], predictions: Sequence[np.ndarray]) -> None:
        """Go on by an epoch: what was measured after it, and the answers for each fold, kept if it was the best."""
        if not self.predictions or epoch_metrics["val_loss"] < self.curves["val_loss"][self.best_epoch]:
            self.predictions = [prediction.copy() for prediction in predictions]
            self.best_epoch = len(self.curves["val_loss"])
        for name, value in epoch_metrics.items():
            self.curves[name].append(value)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or `patience` of them were no better than the best."""
        n_epochs = len(self.curves["val_loss"])
        return n_epochs == self.epochs or 0 < self.patience < n_epochs - max(self.best_epoch, self.min_epochs - 1)

    def to_fit_info(self) -> dict[str, Any]:
        """The epochs up to the best, and the curves, as JSON values."""
        return {
            "epochs": self.best_epoch + 1,
            "curves": {name: [round(value, 5) for value in curve] for name, curve in self.curves.items()},
        }


def train_subsample(data: TrainingData, rows: np.ndarray, held_out: np.ndarray, seed: int) -> np.ndarray:
    """The rows, views and all, of as many images in `rows` as are held out."""
    images = np.unique(data.images[rows])
    count = min(len(images), len(np.unique(data.images[held_out])))
    image_sample = np.random.default_rng([seed, count]).choice(images, count, replace=False)
    return rows[np.isin(data.images[rows], image_sample)]


def measure(data: TrainingData, rows: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-loss and accuracy of each head, (heads,) each; answers (rows, heads, classes) of an image's views are averaged."""
    images, first, inverse = np.unique(data.images[rows], return_index=True, return_inverse=True)
    mean = predictions[first]
    if len(images) < len(rows):
        mean = np.zeros(mean.shape)
        np.add.at(mean, inverse, predictions)
        mean /= np.bincount(inverse)[:, None, None]
    labels = data.labels[rows][first]
    label_probability = mean[np.arange(len(images)), :, labels]
    loss = -np.log(np.clip(label_probability, np.finfo(np.float32).eps, 1.0)).mean(axis=0)
    return loss, (mean.argmax(axis=2) == labels[:, None]).mean(axis=0)
