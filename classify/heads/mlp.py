"""A small multilayer perceptron in Keras, on standardised features."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...cache.errors import HeadError
from ...extract.runtime import fresh_names, load_keras, seeded
from .. import metrics
from ..head import Dense, Head
from ..problem import Problem
from ..trial import Score

# setting -> (default, type)
_OPTIONS: dict[str, tuple[Any, type]] = {
    "hidden": (128, int),
    "dropout": (0.3, float),
    "learning_rate": (1e-3, float),
    "batch_size": (64, int),
    "epochs": (40, int),
}


def settings(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to try: every combination of `a/b/c` lists in `options`, over the defaults."""
    if unknown := set(options) - set(_OPTIONS):
        raise HeadError(f"head mlp: expected an option of {', '.join(_OPTIONS)}; found {sorted(unknown)[0]!r}")
    tried: list[dict[str, Any]] = [{}]
    for name, (default, kind) in _OPTIONS.items():
        try:
            values = [kind(value) for value in str(options.get(name, default)).split("/")]
        except ValueError as error:
            raise HeadError(f"head mlp: expected {name} as {kind.__name__} or a/b/c, found {options[name]!r}") from error
        if not all(0 < value < float("inf") or (name == "dropout" and value == 0) for value in values):
            raise HeadError(f"head mlp: expected {name} above 0, found {options[name]!r}")
        if name == "dropout" and max(values) >= 1:
            raise HeadError(f"head mlp: expected dropout below 1, found {options[name]!r}")
        tried = [{**setting, name: value} for setting in tried for value in dict.fromkeys(values)]
    return tried


def cross_validate(problem: Problem, tried: Sequence[Mapping[str, Any]], seed: int) -> list[Score]:
    """The score of each setting.

    The number of epochs is a setting like any other: the one with the lowest log-loss, averaged over the folds, is kept
    (`detail["epochs"]`), and `fit` trains for as many.
    """
    from sklearn.preprocessing import StandardScaler

    features, labels = problem.features.array(), problem.labels
    scores = []
    for setting in tried:
        began = time.perf_counter()
        model = _Model(features.shape[1], problem.classes, setting, seed)
        answers: list[list[np.ndarray]] = []
        curves: dict[str, list[list[float]]] = {}
        for fit_rows, score_rows in problem.folds:
            scaler = StandardScaler().fit(features[fit_rows])
            held_out = (scaler.transform(features[score_rows]), labels[score_rows])
            history = model.train(scaler.transform(features[fit_rows]), labels[fit_rows], setting["epochs"], held_out)
            answers.append(model.answers)
            for name, curve in history.items():
                curves.setdefault(name, []).append(curve)
        mean = {name: np.mean(curve, axis=0) for name, curve in curves.items()}
        epoch = int(np.argmin(mean["val_loss"]))
        detail = {"epochs": epoch + 1, "curves": {name: curve.round(5).tolist() for name, curve in mean.items()}}
        scores.append(problem.score([fold[epoch] for fold in answers], time.perf_counter() - began, detail))
    return scores


def fit(
    problem: Problem,
    setting: Mapping[str, Any],
    detail: Mapping[str, Any],
    classes: Sequence[str],
    seed: int,
) -> Head:
    """The head fitted on all rows for `detail["epochs"]` epochs, with the scaler folded in."""
    from sklearn.preprocessing import StandardScaler

    features, labels = problem.features.array(), problem.labels
    scaler = StandardScaler().fit(features)
    model = _Model(features.shape[1], len(classes), setting, seed)
    model.train(scaler.transform(features), labels, detail["epochs"])
    first, second = model.dense()
    return Head((first.scaled(scaler.mean_, scaler.scale_), second), tuple(classes))


class _Model:
    """A compiled network that can be trained again from the same start, so that it is traced once for all folds."""

    def __init__(self, columns: int, classes: int, setting: Mapping[str, Any], seed: int) -> None:
        keras = load_keras()
        self._setting, self._seed = setting, seed
        self.answers: list[np.ndarray] = []
        with fresh_names(), seeded(seed):
            self._network = keras.Sequential(
                [
                    keras.Input((columns,)),
                    keras.layers.Dense(setting["hidden"], activation="relu", kernel_initializer="he_normal"),
                    keras.layers.Dropout(setting["dropout"]),
                    keras.layers.Dense(classes, activation="softmax"),
                ]
            )
        optimizer = keras.optimizers.Adam(setting["learning_rate"])
        self._network.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        optimizer.build(self._network.trainable_variables)
        variables = self._network.variables + optimizer.variables
        self._start = [(variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in variables]

    def train(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        epochs: int,
        held_out: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict[str, list[float]]:
        """Train from the start; loss and accuracy of each epoch, and `val_…` on the rows held out.

        Batch by batch: on a few hundred rows `fit` spends most of an epoch setting up its iterators.
        """
        for variable, value in self._start:
            variable.assign(value)
        shuffle = np.random.default_rng(self._seed)
        size = self._setting["batch_size"]
        curves: dict[str, list[float]] = {}
        self.answers = []
        for _ in range(epochs):
            order = shuffle.permutation(len(features))
            self._network.reset_metrics()
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                logs = self._network.train_on_batch(features[rows], labels[rows], return_dict=True)
            if held_out is not None:
                probabilities = self._probabilities(held_out[0])
                self.answers.append(probabilities)
                logs["val_loss"] = metrics.log_loss(held_out[1], probabilities)
                logs["val_accuracy"] = (probabilities.argmax(axis=1) == held_out[1]).mean()
            for name, value in logs.items():
                curves.setdefault(name, []).append(float(value))
        return curves

    def _probabilities(self, features: np.ndarray) -> np.ndarray:
        blocks = np.array_split(features, -(-len(features) // 4096))
        return np.concatenate([self._network.predict_on_batch(block) for block in blocks])

    def dense(self) -> tuple[Dense, Dense]:
        """The trained layers; dropout does nothing at inference."""
        hidden, output = (layer for layer in self._network.layers if layer.weights)
        arrays = [np.array(weight, dtype=np.float32) for layer in (hidden, output) for weight in layer.get_weights()]
        return Dense(arrays[0], arrays[1], "relu"), Dense(arrays[2], arrays[3], "softmax")
