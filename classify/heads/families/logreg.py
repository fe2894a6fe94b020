"""Logistic regression over a path of C, standardized inside each fold; all folds and values of C are solved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily, Regularization
from ..linear import regularization_path
from ..linear.losses import Logistic, Loss, Multinomial
from ..linear.temperature import softmax
from ..options import NumberOption, Option
from ..training_data import TrainingData


class LogisticRegression(HeadFamily):
    """scikit-learn's `LogisticRegression`: multinomial, or binary for two classes, with an L2 penalty.

    Options
    -------
    C
        Inverse regularization strength; solved in ascending order, each solution starting from the previous one.
    """

    name = "logreg"
    title = "logistic regression"
    options: Mapping[str, Option] = {"C": NumberOption((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), minimum=1e-12, maximum=1e12)}
    regularization = Regularization("C", is_inverse=True)

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score every C; ``fit_info["converged"]`` says whether every fold converged. See `joint_solver` for the method."""
        order = sorted(range(len(hyperparameter_sets)), key=lambda index: hyperparameter_sets[index]["C"])
        results = regularization_path.cross_validate(
            data, _choose_loss(data), [hyperparameter_sets[index]["C"] for index in order]
        )
        scores: dict[int, Score] = {}
        for index, result in zip(order, results, strict=True):
            predictions = [softmax(_expand_binary(logits).astype(np.float64)) for logits in result.logits]
            scores[index] = data.score(predictions, result.seconds, {"converged": result.converged})
        return [scores[index] for index in range(len(hyperparameter_sets))]

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Fit on all rows; the scaler is folded into the weights."""
        fold, weights, bias = regularization_path.fit(data, _choose_loss(data), hyperparameters["C"])
        return Head((fold.to_dense_layer(_expand_binary(weights), _expand_binary(bias[None])[0]),), data.target.class_names)


def _choose_loss(data: TrainingData) -> Loss:
    return Logistic() if data.n_classes == 2 else Multinomial()


def _expand_binary(logits: np.ndarray) -> np.ndarray:
    """Return logits (n, classes) for logits (n, k).

    k is 1 for two classes, where `softmax([-z/2, z/2])` is `[1 - s(z), s(z)]`.
    """
    return logits if logits.shape[1] > 1 else np.hstack([-logits / 2, logits / 2])
