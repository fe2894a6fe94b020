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
from ..neural.early_stopping import Course, as_many, measure
from ..neural.schedules import SCHEDULES
from ..neural.training_memory import fits_memory, needed, widths_of
from ..options import Numbers, Option, Parsed, Words, combinations
from ..training_data import Problem

if TYPE_CHECKING:
    from ..neural.parallel_mlp import Stack, Training

_ACTIVATIONS = ("relu", "silu", "mish", "leaky_relu", "gelu")
OPTIMIZERS = ("sgd", "adam", "adamw", "radam", "ranger")
_MEMORY = 1 << 29  # bytes that the weights of the heads trained at once, and all that goes with them, may take
# What a search draws from where nothing is said: the few things that matter most, about their defaults.
SPACE = {
    "hidden": "64/128/256/512",
    "learning_rate": "3e-4..1e-2",
    "dropout": "0..0.6",
    "batch_norm": "false/true",
    "label_smoothing": "0/0.1",
}
_NARROWED = 1_000_000  # weights in a stack from which it pays to build it again without the heads that have stopped


def _hidden(text: str) -> int | str:
    widths = widths_of(text)
    if min(widths) < 1:
        raise ValueError(text)
    return widths[0] if len(widths) == 1 else "x".join(map(str, widths))


def _activation(text: str) -> str:
    return Words((), _ACTIVATIONS).value("silu" if text == "swish" else text)


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value


_NUMBER, _COUNT = Numbers(()).value, Numbers((), int, 1).value
# A default of None is the optimizer's own, as in Keras.
OPTIONS: dict[str, Option] = {
    "hidden": Parsed((128,), _hidden, "a width such as 128, or widths such as 256x128"),
    "activation": Parsed(("relu",), _activation, f"one of {', '.join(_ACTIVATIONS)} (swish is silu)"),
    "batch_norm": Parsed((False,), _boolean, "true or false"),
    "dropout": Parsed((0.3,), _share, "a share from 0 to below 1"),
    "optimizer": Parsed(("adam",), Words((), OPTIMIZERS).value, f"one of {', '.join(OPTIMIZERS)}"),
    "learning_rate": Parsed((None,), Numbers((), open=True).value, "a number above 0"),
    "weight_decay": Parsed((None,), _NUMBER, "a number of at least 0"),
    "schedule": Parsed(("constant",), Words((), SCHEDULES).value, f"one of {', '.join(SCHEDULES)}"),
    "label_smoothing": Parsed((0.0,), _share, "a share from 0 to below 1"),
    "mixup": Parsed((0.0,), _NUMBER, "alpha, a number of at least 0"),
    "cutmix": Parsed((0.0,), _NUMBER, "alpha, a number of at least 0"),
    "batch_size": Parsed((64,), _COUNT, "a whole number above 0"),
    "epochs": Parsed((40,), _COUNT, "a whole number above 0"),
    "patience": Parsed((10,), Numbers((), int).value, "a number of epochs, 0 for never to stop early"),
}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try: every combination of the values in `options`, over the defaults; raises `HeadError`.

    hidden, activation, batch_norm, dropout: the network. optimizer: Keras's SGD (momentum 0.9, Nesterov), Adam and AdamW,
    and `optimizers.RAdam` and `Ranger`. learning_rate: by default 0.01 for sgd, 0.001 for the others. weight_decay:
    decoupled, and of every weight, as in Keras; by default 0.004 for adamw, 0 for the others (adam with weight decay is
    adamw). schedule: `schedules.factors`. label_smoothing: the share spread over all classes. mixup, cutmix: alpha of the
    Beta distribution, 0 for none. patience: after so many epochs without a better log-loss a head stops.
    """
    return [_resolved(setting) for setting in combinations("mlp", OPTIONS, options)]


def _resolved(setting: dict[str, Any]) -> dict[str, Any]:
    """The setting with what the optimizer decides filled in."""
    if setting["learning_rate"] is None:
        setting["learning_rate"] = 0.01 if setting["optimizer"] == "sgd" else 0.001
    if setting["weight_decay"] is None:
        setting["weight_decay"] = 0.004 if setting["optimizer"] == "adamw" else 0.0
    return setting


def check(problem: Problem, tried: Sequence[Mapping[str, Any]]) -> None:
    """Raise `HeadError` where a setting cannot be trained on such rows, or in the memory there is."""
    if any(setting["cutmix"] for setting in tried) and len(problem.features.row_shape) != 3:
        raise HeadError(
            f"head mlp: expected whole maps (height, width, channels) for cutmix, found rows of shape "
            f"{problem.features.row_shape}; leave cutmix out, or choose one tap whose pool is map"
        )
    for setting in tried:
        widths = [problem.features.shape[1], *widths_of(setting["hidden"]), problem.classes]
        fits_memory(f"head mlp: hidden={setting['hidden']}", widths, len(problem.folds))


def cross_validate(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting.

    The number of epochs is a setting like any other: the one with the lowest log-loss, averaged over the folds, is kept
    (`detail["epochs"]`), scored, and `fit` trains for as many. Folds are trained in step, an epoch of each in turn, so that
    a setting stops early on the average over its folds, after `patience` epochs that were no better than its best.

    detail["curves"]: loss and accuracy after each epoch, means over folds. `val_loss` and `val_accuracy` are of the images
    held out; `loss` and `accuracy` are taken in the same way, after the epoch and as the head would answer (no dropout, no
    mixing, no smoothing, views averaged), on as many images that it learnt from. A head that has diverged, and answers NaN,
    is taken to hold all classes for equally likely.
    """
    check(problem, tried)
    scores: dict[int, Score] = {}
    for group in groups(problem, tried):
        began = time.perf_counter()
        courses = _train_together(problem, [tried[place] for place in group], seed)
        seconds = (time.perf_counter() - began) / len(group)
        for place, course in zip(group, courses, strict=True):
            scores[place] = problem.score(course.answers, seconds, course.detail())
    return [scores[place] for place in range(len(tried))]


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],
    classes: Sequence[str],
    seed: int,
) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs; scaler and batch normalisation are folded in."""
    from ..neural.parallel_mlp import Stack

    stack = Stack(problem.features, problem.labels, len(classes), [setting], seed)
    training = stack.start(np.arange(len(problem.labels)))
    for _ in range(detail["epochs"]):
        stack.epoch(training)
    return Head(stack.layers(training, 0), tuple(classes))


def groups(problem: Problem, tried: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The places of settings that can be trained as one model, in groups that fit in memory."""
    same: dict[Any, list[int]] = {}
    for place, setting in enumerate(tried):
        names = ("hidden", "activation", "batch_norm", "batch_size", "optimizer", "cutmix")
        mixes = bool(setting["cutmix"] and setting["mixup"])
        same.setdefault((*(setting[name] for name in names), mixes), []).append(place)
    groups = []
    for places in same.values():
        sizes = [problem.features.shape[1], *widths_of(tried[places[0]]["hidden"]), problem.classes]
        parts = -(-len(places) // max(1, _MEMORY // needed(sizes, len(problem.folds))))
        groups += [part.tolist() for part in np.array_split(places, parts)]
    return groups


def _train_together(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[Course]:
    from ..neural.parallel_mlp import Stack

    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    courses = [Course(each["epochs"], each["patience"], {name: [] for name in names}, []) for each in tried]
    stack = Stack(problem.features, problem.labels, problem.classes, tried, seed)
    trainings = [stack.start(rows) for rows, _ in problem.folds]
    seen = [as_many(problem, learnt, held_out, seed) for learnt, held_out in problem.folds]
    heads = list(range(len(tried)))
    while heads:
        answers, measured = [], []
        for training, rows, (_, held_out) in zip(trainings, seen, problem.folds, strict=True):
            stack.epoch(training)
            answers.append(_answers(stack, training, held_out))
            measured.append([*measure(problem, rows, _answers(stack, training, rows))])
            measured[-1] += measure(problem, held_out, answers[-1])
        mean = np.mean(measured, axis=0)
        for place, head in enumerate(heads):
            if not courses[head].over:
                found = dict(zip(names, mean[:, place].tolist(), strict=True))
                courses[head].add(found, [answer[:, place] for answer in answers])
        left = [place for place, head in enumerate(heads) if not courses[head].over]
        if not left or (len(left) <= len(heads) / 2 and stack.weights >= _NARROWED):
            heads = [heads[place] for place in left]
            stack = stack.only(left, trainings) if left else stack
    return courses


def _answers(stack: Stack, training: Training, rows: np.ndarray) -> np.ndarray:
    answers = stack.answers(training, rows)
    return np.where(np.isfinite(answers), answers, np.float32(1 / answers.shape[2]))
