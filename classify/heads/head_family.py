"""Interface of head families, with defaults for simple ones."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ..evaluate.single_label import SingleLabel
from ..evaluate.target import Target
from ..evaluate.trial import Score
from .head import Head
from .options import Option, expand_combinations
from .training_data import TrainingData


@dataclass(frozen=True)
class Regularization:
    """The option of a head family that controls the strength of regularization.

    Parameters
    ----------
    option
        Its name, such as ``"C"``.
    is_inverse
        Whether a larger value regularizes less, as scikit-learn's ``C`` does.
    """

    option: str
    is_inverse: bool = False


class HeadFamily(ABC):
    """A kind of head: its options, and how it is cross-validated and fitted.

    To add one, write a subclass in a file of ``families/`` and add it to ``registry.py``; from outside the package, pass
    an instance to ``register_head_family``. A subclass needs ``name``, ``title`` and ``fit``; to share work between folds
    or hyperparameters, override ``cross_validate`` too. Instances hold no training state and can be pickled, since they
    are sent to worker processes.

    Attributes
    ----------
    name
        Name on the command line: ``--head NAME``. Also stored in runs.
    title
        The family in words, as within a sentence: ``"logistic regression"``.
    options
        The options that users may set, with the values tried by default.
    search_space
        Ranges or lists for a random search if the user gives none: option to ``"a/b"`` or ``"low..high"``.
    uses_keras
        Whether training uses Keras, which uses every core by itself: such heads are trained one after another in the main
        process.
    uses_all_taps
        Whether a head takes the features of all taps side by side, instead of one tap.
    regularization
        The option for the strength of regularization, if there is one.
    """

    name: str
    title: str
    options: Mapping[str, Option] = MappingProxyType({})
    search_space: Mapping[str, str] = MappingProxyType({})
    uses_keras: bool = False
    uses_all_taps: bool = False
    regularization: Regularization | None = None

    def expand_grid(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """List the hyperparameters to try.

        Parameters
        ----------
        options
            Option to a value, a list of values, or text such as ``"0.1/1"``. Other options have their defaults.

        Returns
        -------
        list of dict
            Every combination once, as JSON values, which are stored in runs.

        Raises
        ------
        HeadError
            If there is no such option, or a value is invalid.
        """
        return expand_combinations(self.name, self.options, options)

    def check(  # noqa: B027 - most families can be trained on any rows
        self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Raise `HeadError` if some hyperparameters cannot be trained on these rows, before anything is trained."""

    def can_predict(self, target: Target) -> bool:
        """Return whether heads of this family can be trained on this kind of labels; by default only on class numbers."""
        return isinstance(target, SingleLabel)

    def group(
        self,
        data: TrainingData,  # noqa: ARG002 - for families that group by memory
        hyperparameter_sets: Sequence[Mapping[str, Any]],
    ) -> list[list[int]]:
        """Divide hyperparameters into groups, each of which is trained and recorded before the next starts.

        Returns
        -------
        list of list of int
            Indices into `hyperparameter_sets`, each in one group. By default all are in one group, so that they can share
            work.
        """
        return [list(range(len(hyperparameter_sets)))]

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score hyperparameters on the held-out rows of each fold.

        By default each fold is fitted by ``fit``, with a copy of its rows in memory.

        Parameters
        ----------
        data
            Rows, labels and folds.
        hyperparameter_sets
            Sets of hyperparameters from ``expand_grid``.
        seed
            Seed of everything random.

        Returns
        -------
        list of Score
            One for each set, in that order. A score's ``fit_info`` is passed on to ``fit``.
        """
        start_time = time.perf_counter()
        predictions: list[list[np.ndarray]] = [[] for _ in hyperparameter_sets]
        for fit_rows, held_out in data.folds:
            fit_data = data.select_rows(fit_rows)
            for fold_predictions, hyperparameters in zip(predictions, hyperparameter_sets, strict=True):
                head = self.fit(fit_data, hyperparameters, {}, seed)
                fold_predictions.append(head.predict_proba(data.features[held_out]))
        seconds = (time.perf_counter() - start_time) / len(hyperparameter_sets)
        return [data.score(fold_predictions, seconds) for fold_predictions in predictions]

    @abstractmethod
    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Fit a head on all rows.

        Parameters
        ----------
        data
            Rows and labels; folds are ignored.
        hyperparameters
            One set from ``expand_grid``.
        fit_info
            The ``fit_info`` of the score from cross-validation, such as the number of epochs.
        seed
            Seed of everything random.
        """

    def can_finetune(self, hyperparameters: Mapping[str, Any]) -> bool:  # noqa: ARG002 - for families with several kinds
        """Return whether such a head can be trained further by gradient descent: its last layer is a weighted sum."""
        return True
