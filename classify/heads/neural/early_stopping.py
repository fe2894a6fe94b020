"""How the training of heads went, epoch by epoch, on images held out and on as many that were learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training_data import Problem


@dataclass
class Course:
    """How the training of one setting went: its curves, and what it answered for each fold after its best epoch.

    least: epochs that are done in any case, from which on `patience` counts.
    """

    epochs: int
    patience: int
    curves: dict[str, list[float]]
    answers: list[np.ndarray]
    best: int = 0
    least: int = 0

    def add(self, measured: Mapping[str, float], answers: Sequence[np.ndarray]) -> None:
        """Go on by an epoch: what was measured after it, and the answers for each fold, kept if it was the best."""
        if not self.answers or measured["val_loss"] < self.curves["val_loss"][self.best]:
            self.answers = [answer.copy() for answer in answers]
            self.best = len(self.curves["val_loss"])
        for name, value in measured.items():
            self.curves[name].append(value)

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or `patience` of them were no better than the best."""
        done = len(self.curves["val_loss"])
        return done == self.epochs or 0 < self.patience < done - max(self.best, self.least - 1)

    def detail(self) -> dict[str, Any]:
        """The epochs up to the best, and the curves, as JSON values."""
        return {
            "epochs": self.best + 1,
            "curves": {name: [round(value, 5) for value in curve] for name, curve in self.curves.items()},
        }


def as_many(problem: Problem, rows: np.ndarray, held_out: np.ndarray, seed: int) -> np.ndarray:
    """The rows, views and all, of as many images in `rows` as are held out."""
    images = np.unique(problem.images[rows])
    count = min(len(images), len(np.unique(problem.images[held_out])))
    chosen = np.random.default_rng([seed, count]).choice(images, count, replace=False)
    return rows[np.isin(problem.images[rows], chosen)]


def measure(problem: Problem, rows: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-loss and accuracy of each head, (heads,) each; answers (rows, heads, classes) of an image's views are averaged."""
    images, first, places = np.unique(problem.images[rows], return_index=True, return_inverse=True)
    mean = answers[first]
    if len(images) < len(rows):
        mean = np.zeros(mean.shape)
        np.add.at(mean, places, answers)
        mean /= np.bincount(places)[:, None, None]
    labels = problem.labels[rows][first]
    true = mean[np.arange(len(images)), :, labels]
    loss = -np.log(np.clip(true, np.finfo(np.float32).eps, 1.0)).mean(axis=0)
    return loss, (mean.argmax(axis=2) == labels[:, None]).mean(axis=0)
