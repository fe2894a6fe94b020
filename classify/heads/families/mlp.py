"""Multilayer perceptrons in Keras, on standardized features; those of one shape are trained together.

A head consists of the standardized rows; optionally one batch normalization of them, without scale and offset, which the
next layer has anyway; for each hidden layer Dense (He normal), the activation and dropout; and a softmax layer (Glorot
uniform).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....cache.errors import HeadError
from ...evaluate.trial import Score
from ..head import Head
from ..head_family import HeadFamily
from ..neural.mlp_training import group_by_shape, train_group
from ..neural.schedules import SCHEDULES
from ..neural.training_memory import check_memory, parse_widths
from ..options import ChoiceOption, NumberOption, Option, ParsedOption
from ..training_data import TrainingData

_ACTIVATIONS = ("relu", "silu", "mish", "leaky_relu", "gelu")
OPTIMIZERS = ("sgd", "adam", "adamw", "radam", "ranger")


def _parse_hidden(text: str) -> int | str:
    widths = parse_widths(text)
    if min(widths) < 1:
        raise ValueError(text)
    return widths[0] if len(widths) == 1 else "x".join(map(str, widths))


def _parse_activation(text: str) -> str:
    return ChoiceOption((), _ACTIVATIONS).parse("silu" if text == "swish" else text)


def _parse_boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _parse_share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value


_PARSE_NUMBER, _PARSE_COUNT = NumberOption(()).parse, NumberOption((), int, 1).parse
# None stands for the optimizer's own default, as in Keras.
OPTIONS: dict[str, Option] = {
    "hidden": ParsedOption((128,), _parse_hidden, "a width such as 128, or widths such as 256x128"),
    "activation": ParsedOption(("relu",), _parse_activation, f"one of {', '.join(_ACTIVATIONS)} (swish is silu)"),
    "batch_norm": ParsedOption((False,), _parse_boolean, "true or false"),
    "dropout": ParsedOption((0.3,), _parse_share, "a number from 0 to below 1"),
    "optimizer": ParsedOption(("adam",), ChoiceOption((), OPTIMIZERS).parse, f"one of {', '.join(OPTIMIZERS)}"),
    "learning_rate": ParsedOption((None,), NumberOption((), exclusive=True).parse, "a number above 0"),
    "weight_decay": ParsedOption((None,), _PARSE_NUMBER, "a number of at least 0"),
    "schedule": ParsedOption(("constant",), ChoiceOption((), SCHEDULES).parse, f"one of {', '.join(SCHEDULES)}"),
    "label_smoothing": ParsedOption((0.0,), _parse_share, "a number from 0 to below 1"),
    "mixup": ParsedOption((0.0,), _PARSE_NUMBER, "alpha, a number of at least 0"),
    "cutmix": ParsedOption((0.0,), _PARSE_NUMBER, "alpha, a number of at least 0"),
    "batch_size": ParsedOption((64,), _PARSE_COUNT, "a whole number above 0"),
    "epochs": ParsedOption((40,), _PARSE_COUNT, "a whole number above 0"),
    "patience": ParsedOption((10,), NumberOption((), int).parse, "a number of epochs, 0 to never stop early"),
}


class MultilayerPerceptron(HeadFamily):
    """Multilayer perceptrons in Keras.

    Options
    -------
    hidden, activation, batch_norm, dropout
        The network: `256x128` are two hidden layers; batch normalization is applied to the inputs.
    optimizer
        Keras's SGD (momentum 0.9, Nesterov), Adam or AdamW, or `optimizers.RAdam` or `optimizers.Ranger`.
    learning_rate
        By default 0.01 for sgd, 0.001 for the others.
    weight_decay
        Decoupled weight decay of every weight, as in Keras; by default 0.004 for adamw, 0 for the others (adam with
        weight decay is adamw).
    schedule
        Schedule of the learning rate; see `schedules.compute_factors`.
    label_smoothing
        As in Keras's `CategoricalCrossentropy`.
    mixup, cutmix
        Alpha of the Beta distribution, 0 for none.
    batch_size, epochs
        As in Keras.
    patience
        Number of epochs without a lower log-loss after which training stops; 0 to never stop early.
    """

    name = "mlp"
    title = "a multilayer perceptron"
    options: Mapping[str, Option] = OPTIONS
    search_space: Mapping[str, str] = {  # the few options that matter most, around their defaults
        "hidden": "64/128/256/512",
        "learning_rate": "3e-4..1e-2",
        "dropout": "0..0.6",
        "batch_norm": "false/true",
        "label_smoothing": "0/0.1",
    }
    uses_keras = True

    def expand_grid(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """List the hyperparameters to try, with the defaults that depend on the optimizer filled in."""
        return [_fill_optimizer_defaults(hyperparameters) for hyperparameters in super().expand_grid(options)]

    def check(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> None:
        """Raise `HeadError` for CutMix on rows that are not maps, or if a network does not fit into memory."""
        if any(hyperparameters["cutmix"] for hyperparameters in hyperparameter_sets) and len(data.features.row_shape) != 3:
            raise HeadError(
                "head mlp: cutmix needs whole maps (height, width, channels), but rows have the shape "
                f"{data.features.row_shape}; leave cutmix out, or give one tap with the pool map"
            )
        for hyperparameters in hyperparameter_sets:
            widths = [data.features.shape[1], *parse_widths(hyperparameters["hidden"]), data.n_classes]
            check_memory(f"head mlp: hidden={hyperparameters['hidden']}", widths, len(data.folds))

    def group(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """Group what can be trained as one model that fits in memory."""
        return group_by_shape(data, hyperparameter_sets)

    def cross_validate(self, data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
        """Score all hyperparameters, each after its best epoch.

        The number of epochs is a hyperparameter like any other: the one with the lowest log-loss, averaged over the
        folds, is scored, and stored as ``fit_info["epochs"]`` for ``fit``. Folds are trained in step, one epoch of each
        in turn, so that early stopping uses the average over the folds.

        ``fit_info["curves"]`` has loss and accuracy after each epoch, averaged over the folds. ``val_loss`` and
        ``val_accuracy`` are computed on the held-out images; ``loss`` and ``accuracy`` in the same way, after the epoch
        and in inference mode (no dropout, mixing or smoothing; views averaged), on equally many images of the training
        set. A head that has diverged to NaN counts as predicting equal probabilities for all classes.
        """
        self.check(data, hyperparameter_sets)
        scores: dict[int, Score] = {}
        for group in self.group(data, hyperparameter_sets):
            start_time = time.perf_counter()
            early_stoppings = train_group(data, [hyperparameter_sets[index] for index in group], seed)
            seconds = (time.perf_counter() - start_time) / len(group)
            for index, early_stopping in zip(group, early_stoppings, strict=True):
                scores[index] = data.score(early_stopping.predictions, seconds, early_stopping.to_fit_info())
        return [scores[index] for index in range(len(hyperparameter_sets))]

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],
        seed: int,
    ) -> Head:
        """Train on all rows for ``fit_info["epochs"]`` epochs; the scaler and batch normalization are folded in."""
        from ..neural.parallel_mlp import ParallelMLP

        model = ParallelMLP(data.features, data.labels, data.n_classes, [hyperparameters], seed)
        training = model.start_training(np.arange(len(data.labels)))
        for _ in range(fit_info["epochs"]):
            model.train_epoch(training)
        return Head(model.build_layers(training, 0), data.target.class_names)


def _fill_optimizer_defaults(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    if hyperparameters["learning_rate"] is None:
        hyperparameters["learning_rate"] = 0.01 if hyperparameters["optimizer"] == "sgd" else 0.001
    if hyperparameters["weight_decay"] is None:
        hyperparameters["weight_decay"] = 0.004 if hyperparameters["optimizer"] == "adamw" else 0.0
    return hyperparameters
