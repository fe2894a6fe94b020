"""Multilayer perceptrons in Keras, on standardised features; the settings of one shape are trained at once.

A head is, in this order: the standardised rows; batch normalisation, if asked for, there and nowhere else, without a scale
and an offset of its own, which the layer after it has anyway; then for each hidden layer Dense (He normal), the activation
and dropout; and a softmax layer (Glorot uniform).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ....cache.errors import HeadError
from ...evaluate.trial import Score
from ..head import Head
from ..neural.early_stopping import EarlyStopping, measure, train_subsample
from ..neural.schedules import SCHEDULES
from ..neural.training_memory import check_memory, estimate_training_bytes, parse_widths
from ..options import ChoiceOption, NumberOption, Option, ParsedOption, expand_combinations
from ..training_data import TrainingData

if TYPE_CHECKING:
    from ..neural.parallel_mlp import MLPTraining, ParallelMLP

_ACTIVATIONS = ("relu", "silu", "mish", "leaky_relu", "gelu")
OPTIMIZERS = ("sgd", "adam", "adamw", "radam", "ranger")
_MAX_MEMORY_BYTES = 1 << 29  # bytes that the weights of the heads trained at once, and all that goes with them, may take
# What a search draws from where nothing is said: the few things that matter most, about their defaults.
SPACE = {
    "hidden": "64/128/256/512",
    "learning_rate": "3e-4..1e-2",
    "dropout": "0..0.6",
    "batch_norm": "false/true",
    "label_smoothing": "0/0.1",
}
_MIN_REBUILD_WEIGHTS = (
    1_000_000  # weights in a stack from which it pays to build it again without the heads that have stopped
)


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
# A default of None is the optimizer's own, as in Keras.
OPTIONS: dict[str, Option] = {
    "hidden": ParsedOption((128,), _parse_hidden, "a width such as 128, or widths such as 256x128"),
    "activation": ParsedOption(("relu",), _parse_activation, f"one of {', '.join(_ACTIVATIONS)} (swish is silu)"),
    "batch_norm": ParsedOption((False,), _parse_boolean, "true or false"),
    "dropout": ParsedOption((0.3,), _parse_share, "a share from 0 to below 1"),
    "optimizer": ParsedOption(("adam",), ChoiceOption((), OPTIMIZERS).parse, f"one of {', '.join(OPTIMIZERS)}"),
    "learning_rate": ParsedOption((None,), NumberOption((), exclusive=True).parse, "a number above 0"),
    "weight_decay": ParsedOption((None,), _PARSE_NUMBER, "a number of at least 0"),
    "schedule": ParsedOption(("constant",), ChoiceOption((), SCHEDULES).parse, f"one of {', '.join(SCHEDULES)}"),
    "label_smoothing": ParsedOption((0.0,), _parse_share, "a share from 0 to below 1"),
    "mixup": ParsedOption((0.0,), _PARSE_NUMBER, "alpha, a number of at least 0"),
    "cutmix": ParsedOption((0.0,), _PARSE_NUMBER, "alpha, a number of at least 0"),
    "batch_size": ParsedOption((64,), _PARSE_COUNT, "a whole number above 0"),
    "epochs": ParsedOption((40,), _PARSE_COUNT, "a whole number above 0"),
    "patience": ParsedOption((10,), NumberOption((), int).parse, "a number of epochs, 0 for never to stop early"),
}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try: every combination of the values in `options`, over the defaults; raises `HeadError`.

    hidden, activation, batch_norm, dropout: the network. optimizer: Keras's SGD (momentum 0.9, Nesterov), Adam and AdamW,
    and `optimizers.RAdam` and `Ranger`. learning_rate: by default 0.01 for sgd, 0.001 for the others. weight_decay:
    decoupled, and of every weight, as in Keras; by default 0.004 for adamw, 0 for the others (adam with weight decay is
    adamw). schedule: `schedules.factors`. label_smoothing: the share spread over all classes. mixup, cutmix: alpha of the
    Beta distribution, 0 for none. patience: after so many epochs without a better log-loss a head stops.
    """
    return [_fill_optimizer_defaults(hyperparameters) for hyperparameters in expand_combinations("mlp", OPTIONS, options)]


def _fill_optimizer_defaults(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """The setting with what the optimizer decides filled in."""
    if hyperparameters["learning_rate"] is None:
        hyperparameters["learning_rate"] = 0.01 if hyperparameters["optimizer"] == "sgd" else 0.001
    if hyperparameters["weight_decay"] is None:
        hyperparameters["weight_decay"] = 0.004 if hyperparameters["optimizer"] == "adamw" else 0.0
    return hyperparameters


def check(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> None:
    """Raise `HeadError` where a setting cannot be trained on such rows, or in the memory there is."""
    if any(hyperparameters["cutmix"] for hyperparameters in hyperparameter_sets) and len(data.features.row_shape) != 3:
        raise HeadError(
            f"head mlp: expected whole maps (height, width, channels) for cutmix, found rows of shape "
            f"{data.features.row_shape}; leave cutmix out, or choose one tap whose pool is map"
        )
    for hyperparameters in hyperparameter_sets:
        widths = [data.features.shape[1], *parse_widths(hyperparameters["hidden"]), data.n_classes]
        check_memory(f"head mlp: hidden={hyperparameters['hidden']}", widths, len(data.folds))


def cross_validate(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting.

    The number of epochs is a setting like any other: the one with the lowest log-loss, averaged over the folds, is kept
    (`detail["epochs"]`), scored, and `fit` trains for as many. Folds are trained in step, an epoch of each in turn, so that
    a setting stops early on the average over its folds, after `patience` epochs that were no better than its best.

    detail["curves"]: loss and accuracy after each epoch, means over folds. `val_loss` and `val_accuracy` are of the images
    held out; `loss` and `accuracy` are taken in the same way, after the epoch and as the head would answer (no dropout, no
    mixing, no smoothing, views averaged), on as many images that it learnt from. A head that has diverged, and answers NaN,
    is taken to hold all classes for equally likely.
    """
    check(data, hyperparameter_sets)
    scores: dict[int, Score] = {}
    for group in groups(data, hyperparameter_sets):
        start_time = time.perf_counter()
        early_stoppings = _train_group(data, [hyperparameter_sets[index] for index in group], seed)
        seconds = (time.perf_counter() - start_time) / len(group)
        for index, early_stopping in zip(group, early_stoppings, strict=True):
            scores[index] = data.score(early_stopping.predictions, seconds, early_stopping.to_fit_info())
    return [scores[index] for index in range(len(hyperparameter_sets))]


def fit(
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    fit_info: Mapping[str, Any],
    class_names: Sequence[str],
    seed: int,
) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs; scaler and batch normalisation are folded in."""
    from ..neural.parallel_mlp import ParallelMLP

    model = ParallelMLP(data.features, data.labels, len(class_names), [hyperparameters], seed)
    training = model.start_training(np.arange(len(data.labels)))
    for _ in range(fit_info["epochs"]):
        model.train_epoch(training)
    return Head(model.build_layers(training, 0), tuple(class_names))


def groups(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The places of settings that can be trained as one model, in groups that fit in memory."""
    indices_by_shape: dict[Any, list[int]] = {}
    for index, hyperparameters in enumerate(hyperparameter_sets):
        names = ("hidden", "activation", "batch_norm", "batch_size", "optimizer", "cutmix")
        uses_both = bool(hyperparameters["cutmix"] and hyperparameters["mixup"])
        indices_by_shape.setdefault((*(hyperparameters[name] for name in names), uses_both), []).append(index)
    groups = []
    for indices in indices_by_shape.values():
        widths = [data.features.shape[1], *parse_widths(hyperparameter_sets[indices[0]]["hidden"]), data.n_classes]
        n_groups = -(-len(indices) // max(1, _MAX_MEMORY_BYTES // estimate_training_bytes(widths, len(data.folds))))
        groups += [group.tolist() for group in np.array_split(indices, n_groups)]
    return groups


def _train_group(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[EarlyStopping]:
    from ..neural.parallel_mlp import ParallelMLP

    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    early_stoppings = [
        EarlyStopping(hyperparameters["epochs"], hyperparameters["patience"], {name: [] for name in names}, [])
        for hyperparameters in hyperparameter_sets
    ]
    model = ParallelMLP(data.features, data.labels, data.n_classes, hyperparameter_sets, seed)
    trainings = [model.start_training(rows) for rows, _ in data.folds]
    train_samples = [train_subsample(data, fit_rows, held_out, seed) for fit_rows, held_out in data.folds]
    active_heads = list(range(len(hyperparameter_sets)))
    while active_heads:
        predictions, fold_metrics = [], []
        for training, rows, (_, held_out) in zip(trainings, train_samples, data.folds, strict=True):
            model.train_epoch(training)
            predictions.append(_predict_finite(model, training, held_out))
            fold_metrics.append([*measure(data, rows, _predict_finite(model, training, rows))])
            fold_metrics[-1] += measure(data, held_out, predictions[-1])
        mean = np.mean(fold_metrics, axis=0)
        for index, head in enumerate(active_heads):
            if not early_stoppings[head].is_finished:
                epoch_metrics = dict(zip(names, mean[:, index].tolist(), strict=True))
                early_stoppings[head].add_epoch(
                    epoch_metrics, [fold_prediction[:, index] for fold_prediction in predictions]
                )
        remaining = [index for index, head in enumerate(active_heads) if not early_stoppings[head].is_finished]
        if not remaining or (len(remaining) <= len(active_heads) / 2 and model.n_weights >= _MIN_REBUILD_WEIGHTS):
            active_heads = [active_heads[index] for index in remaining]
            model = model.select_heads(remaining, trainings) if remaining else model
    return early_stoppings


def _predict_finite(model: ParallelMLP, training: MLPTraining, rows: np.ndarray) -> np.ndarray:
    predictions = model.predict(training, rows)
    return np.where(np.isfinite(predictions), predictions, np.float32(1 / predictions.shape[2]))
