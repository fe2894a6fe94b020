"""Interface of the kinds of labels: how labels are encoded, and how predictions are scored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from ...cache.errors import DataError
from .metrics import ClassificationScores


@dataclass(frozen=True)
class Target(ABC):
    """A kind of labels: how they are encoded, and how predictions are scored and turned into decisions.

    To add one, write a subclass in a file beside this one and add it to ``target_registry.py``; from outside the package,
    pass the class to ``register_target``. Splits, heads, parity checks, predictions and reports use the target of their
    run, and know nothing else about labels. ``HeadFamily.can_predict`` says which targets a head family supports. Targets
    are values: they can be compared and pickled.

    In the methods, `labels` are encoded labels (n, …), and `predictions` are the outputs (n, n_outputs) of a head or
    model.

    Parameters
    ----------
    class_names : tuple of str
        Names of the outputs, in the order of the columns of the predictions.

    Attributes
    ----------
    name : str
        Stored in runs and exported models.
    activation : str
        Keras's name of the activation of the output layer.
    loss : str
        Keras's class of the loss that networks are trained with, on ``to_matrix`` and the outputs before the activation.
    min_classes : int
        Minimum number of class names of a data set.
    """

    class_names: tuple[str, ...]

    name: ClassVar[str]
    activation: ClassVar[str]
    loss: ClassVar[str]
    min_classes: ClassVar[int] = 2

    @classmethod
    @abstractmethod
    def matches(cls, labels: Sequence[str]) -> bool:
        """Return whether these labels, as the data gives them, are of this kind."""

    @classmethod
    @abstractmethod
    def from_labels(cls, labels: Sequence[str]) -> Self:
        """Return the target of a data set's labels, which decide the class names."""

    @property
    def n_outputs(self) -> int:
        """The number of columns of the predictions."""
        return len(self.class_names)

    @abstractmethod
    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """Return labels as numbers (n, …); raises `DataError` for a label that is not in the data set."""

    def can_encode(self, label: str) -> bool:
        """Return whether `encode` accepts this label."""
        try:
            self.encode([label])
        except DataError:
            return False
        return True

    @abstractmethod
    def decode(self, labels: np.ndarray) -> list[str]:
        """Return encoded labels, or decisions, as text."""

    @abstractmethod
    def to_matrix(self, labels: np.ndarray) -> np.ndarray:
        """Return encoded labels in the form that `loss` takes, (n, n_outputs) float32."""

    def get_loss_config(self, label_smoothing: float) -> dict[str, Any]:
        """Return the arguments of Keras's `loss`; by default those of a cross-entropy on outputs before the activation."""
        return {"from_logits": True, "label_smoothing": label_smoothing}

    @abstractmethod
    def stratify(self, labels: np.ndarray) -> np.ndarray:
        """Return the stratum (n,) of each encoded label; splits and folds are stratified by it.

        Strata are numbered as in `stratum_names`, and every training set must contain each of them.
        """

    @property
    def stratum_names(self) -> tuple[str, ...]:
        """The names of the strata; by default there is one for each class."""
        return self.class_names

    @abstractmethod
    def decide(self, predictions: np.ndarray) -> np.ndarray:
        """Return the decisions, encoded as labels are."""

    @abstractmethod
    def find_correct(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Return a mask (n,) of the images whose prediction counts as correct."""

    @abstractmethod
    def find_disagreements(self, reference: np.ndarray, predictions: np.ndarray, margin: float = -math.inf) -> np.ndarray:
        """Return a mask (n,) of the images for which predictions and reference predictions decide differently.

        Reference outputs that differ by at most `margin` may be exchanged; by default every difference counts.
        """

    @abstractmethod
    def replace_non_finite(self, predictions: np.ndarray) -> np.ndarray:
        """Return the predictions with rows that are not finite replaced by an uninformed prediction."""

    @abstractmethod
    def compute_loss(self, labels: np.ndarray, predictions: np.ndarray) -> float:
        """Return the mean loss that trials are ranked by."""

    @abstractmethod
    def score(self, labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray | None = None) -> ClassificationScores:
        """Return all scores; `groups` (n,) are group numbers of images that are not independent."""

    @abstractmethod
    def rank_classes(self, prediction: np.ndarray, top: int) -> tuple[tuple[str, float], ...]:
        """Return the `top` highest outputs of one image's prediction (n_outputs,), with their class names, best first."""
