"""Multilayer perceptrons in Keras, on standardised features; the settings of one shape are trained at once.

A head is, in this order: the standardised rows; batch normalisation, if asked for, there and nowhere else, without a scale
and an offset of its own, which the layer after it has anyway; then for each hidden layer Dense (He normal), the activation
and dropout; and a softmax layer (Glorot uniform).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import HeadError
from ..head import Head
from ..problem import Problem
from ..trial import Score
from .schedules import SCHEDULES
from .weights import fits_memory, needed

if TYPE_CHECKING:
    from .stacked import Stack, Training

_ACTIVATIONS = ("relu", "silu", "mish", "leaky_relu", "gelu")
_OPTIMIZERS = ("sgd", "adam", "adamw", "radam", "ranger")
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
    sizes = [int(size) for size in text.split("x")]
    if min(sizes) < 1:
        raise ValueError
    return sizes[0] if len(sizes) == 1 else "x".join(map(str, sizes))


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _one_of(names: Sequence[str], **others: str) -> Callable[[str], str]:
    return ({name: name for name in names} | others).__getitem__


def _number(kind: type, least: float, below: float = float("inf"), *, over: bool = False) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not least <= value < below or (over and value == least):
            raise ValueError
        return value

    return read


# option -> (default, how its text is read, what is expected); None: the optimizer's own, as in Keras
_OPTIONS: dict[str, tuple[Any, Callable[[str], Any], str]] = {
    "hidden": (128, _hidden, "a width such as 128, or widths such as 256x128"),
    "activation": ("relu", _one_of(_ACTIVATIONS, swish="silu"), f"one of {', '.join(_ACTIVATIONS)} (swish is silu)"),
    "batch_norm": (False, _boolean, "true or false"),
    "dropout": (0.3, _number(float, 0, 1), "a share from 0 to below 1"),
    "optimizer": ("adam", _one_of(_OPTIMIZERS), f"one of {', '.join(_OPTIMIZERS)}"),
    "learning_rate": (None, _number(float, 0, over=True), "a number above 0"),
    "weight_decay": (None, _number(float, 0), "a number of at least 0"),
    "schedule": ("constant", _one_of(SCHEDULES), f"one of {', '.join(SCHEDULES)}"),
    "label_smoothing": (0.0, _number(float, 0, 1), "a share from 0 to below 1"),
    "mixup": (0.0, _number(float, 0), "alpha, a number of at least 0"),
    "cutmix": (0.0, _number(float, 0), "alpha, a number of at least 0"),
    "batch_size": (64, _number(int, 1), "a whole number above 0"),
    "epochs": (40, _number(int, 1), "a whole number above 0"),
    "patience": (10, _number(int, 0), "a number of epochs, 0 for never to stop early"),
}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try: every combination of the values in `options`, over the defaults; raises `HeadError`.

    A value is one, a list, or `a/b/c`. hidden, activation, batch_norm, dropout: the network. optimizer: Keras's SGD
    (momentum 0.9, Nesterov), Adam and AdamW, and `optimizers.RAdam` and `Ranger`. learning_rate: by default 0.01 for sgd,
    0.001 for the others. weight_decay: decoupled, and of every weight, as in Keras; by default 0.004 for adamw, 0 for the
    others (adam with weight decay is adamw). schedule: `schedules.factors`. label_smoothing: the share spread over all
    classes. mixup, cutmix: alpha of the Beta distribution, 0 for none. patience: after so many epochs without a better
    log-loss a head stops.
    """
    if unknown := set(options) - set(_OPTIONS):
        raise HeadError(f"head mlp: expected an option of {', '.join(_OPTIONS)}; found {sorted(unknown)[0]!r}")
    values = [dict.fromkeys(_values(name, options[name]) if name in options else [_OPTIONS[name][0]]) for name in _OPTIONS]
    return [_resolved(dict(zip(_OPTIONS, each, strict=True))) for each in itertools.product(*values)]


def _values(name: str, given: Any) -> list[Any]:
    _, read, expected = _OPTIONS[name]
    texts = [str(value) for value in given] if isinstance(given, list | tuple) else str(given).split("/")
    try:
        return [read(text.strip()) for text in texts]
    except (ValueError, KeyError) as error:
        raise HeadError(f"head mlp: expected {name} as {expected}, or a/b/c for several; found {given!r}") from error


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
        widths = [problem.features.shape[1], *map(int, str(setting["hidden"]).split("x")), problem.classes]
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
    from .stacked import Stack

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
        sizes = [problem.features.shape[1], *map(int, str(tried[places[0]]["hidden"]).split("x")), problem.classes]
        parts = -(-len(places) // max(1, _MEMORY // needed(sizes, len(problem.folds))))
        groups += [part.tolist() for part in np.array_split(places, parts)]
    return groups


@dataclass
class _Course:
    """How the training of one setting went: its curves, and what it answered for each fold after its best epoch."""

    epochs: int
    patience: int
    curves: dict[str, list[float]]
    answers: list[np.ndarray]
    best: int = 0

    def add(self, measured: Mapping[str, float], answers: Sequence[np.ndarray]) -> None:
        if not self.answers or measured["val_loss"] < self.curves["val_loss"][self.best]:
            self.answers = [answer.copy() for answer in answers]
            self.best = len(self.curves["val_loss"])
        for name, value in measured.items():
            self.curves[name].append(value)

    @property
    def over(self) -> bool:
        done = len(self.curves["val_loss"])
        return done == self.epochs or 0 < self.patience < done - self.best

    def detail(self) -> dict[str, Any]:
        return {
            "epochs": self.best + 1,
            "curves": {name: [round(value, 5) for value in curve] for name, curve in self.curves.items()},
        }


def _train_together(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[_Course]:
    from .stacked import Stack

    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    courses = [_Course(each["epochs"], each["patience"], {name: [] for name in names}, []) for each in tried]
    stack = Stack(problem.features, problem.labels, problem.classes, tried, seed)
    trainings = [stack.start(rows) for rows, _ in problem.folds]
    seen = [_as_many(problem, learnt, held_out, seed) for learnt, held_out in problem.folds]
    heads = list(range(len(tried)))
    while heads:
        answers, measured = [], []
        for training, rows, (_, held_out) in zip(trainings, seen, problem.folds, strict=True):
            stack.epoch(training)
            answers.append(_answers(stack, training, held_out))
            measured.append([*_measure(problem, rows, _answers(stack, training, rows))])
            measured[-1] += _measure(problem, held_out, answers[-1])
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


def _as_many(problem: Problem, rows: np.ndarray, held_out: np.ndarray, seed: int) -> np.ndarray:
    """The rows, views and all, of as many images in `rows` as are held out."""
    images = np.unique(problem.images[rows])
    count = min(len(images), len(np.unique(problem.images[held_out])))
    chosen = np.random.default_rng([seed, count]).choice(images, count, replace=False)
    return rows[np.isin(problem.images[rows], chosen)]


def _answers(stack: Stack, training: Training, rows: np.ndarray) -> np.ndarray:
    answers = stack.answers(training, rows)
    return np.where(np.isfinite(answers), answers, np.float32(1 / answers.shape[2]))


def _measure(problem: Problem, rows: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
