"""Many MLP heads: humeris trains them as one Keras model; the peer is a Keras model for each, `fit` one after another.

Both train the same network (Dense, ReLU, dropout 0.3, softmax; Adam at a rate per head; batches of 64) on the same
standardised rows for as many epochs. Turns alternate; ratios are of medians, in wall time and in processor seconds, which
are steadier where other work disturbs; `load` is the machine's before each part.
epochs: training alone, after a first epoch in which both trace and compile. whole: the same with that first epoch.
cross_validation: `mlp.cross_validate` of all settings on all folds, which also measures the training curve anew, against
`fit(validation_data=...)` of a few settings (`--peers`) on the first fold, scaled up to all settings and folds.
Goal: 32 heads at least twice as fast on two cores, ten times on a GPU, at the same accuracy.

    python benchmarks/mlp_heads.py
    python benchmarks/mlp_heads.py --heads 8 --rows 400 --columns 256 --epochs 20
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from humeris.classify.data.feature_matrix import Matrix
from humeris.classify.heads.families import mlp
from humeris.classify.heads.training_data import Problem
from humeris.extract.backbones import device
from humeris.extract.backbones.keras_runtime import load_keras


def rows_of(rows: int, columns: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose classes overlap, with a part that no linear head sees."""
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=rows)
    hidden = random.normal(size=(classes, 32))[labels] + random.normal(size=(rows, 32)) * 1.5
    features = np.tanh(hidden @ random.normal(size=(32, columns)) / 6) + random.normal(size=(rows, columns))
    return features.astype(np.float32), labels


def peer(setting: Mapping[str, Any], columns: int, classes: int) -> Any:
    """The network as a user of Keras writes it."""
    keras = load_keras()
    network = keras.Sequential(
        [
            keras.Input((columns,)),
            keras.layers.Dense(setting["hidden"], activation="relu", kernel_initializer="he_normal"),
            keras.layers.Dropout(setting["dropout"]),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(setting["learning_rate"])
    network.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def fit_each(settings: Sequence[Mapping[str, Any]], x: np.ndarray, y: np.ndarray, clock: Clock) -> None:
    """Each by `fit`, on all rows."""
    for setting in settings:
        size, classes = setting["batch_size"], int(y.max()) + 1
        with clock("first"):
            network = peer(setting, x.shape[1], classes)
            network.fit(x, y, batch_size=size, verbose=0)
        with clock("epochs"):
            network.fit(x, y, batch_size=size, epochs=setting["epochs"] - 1, verbose=0)


def train_stack(settings: Sequence[Mapping[str, Any]], x: np.ndarray, y: np.ndarray, clock: Clock) -> None:
    """All heads on all rows, as `mlp.fit` does it for one."""
    from humeris.classify.heads.neural.parallel_mlp import Stack

    with clock("first"):
        stack = Stack(Matrix.of(x), y, int(y.max()) + 1, settings, 0)
        training = stack.start(np.arange(len(y)))
        stack.epoch(training)
    with clock("epochs"):
        for _ in range(settings[0]["epochs"] - 1):
            stack.epoch(training)
        stack.layers(training, 0)


def validated(settings: Sequence[Mapping[str, Any]], problem: Problem, scaled: np.ndarray) -> list[float]:
    """Accuracy of each on the first fold, after the epoch with the lowest log-loss, by `fit`."""
    (learnt, held), y, found = problem.folds[0], problem.labels, []
    for setting in settings:
        network = peer(setting, scaled.shape[1], problem.classes)
        history = network.fit(
            scaled[learnt],
            y[learnt],
            batch_size=setting["batch_size"],
            epochs=setting["epochs"],
            validation_data=(scaled[held], y[held]),
            verbose=0,
        ).history
        found.append(history["val_accuracy"][int(np.argmin(history["val_loss"]))])
    return found


class Clock:
    """Sums of wall and processor seconds by name."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time spent inside under `name`."""
        began = np.array([time.perf_counter(), time.process_time()])
        yield
        spent = np.array([time.perf_counter(), time.process_time()]) - began
        self.sums[name] = self.sums.get(name, np.zeros(2)) + spent


def compared(ours: Sequence[np.ndarray], peers: Sequence[np.ndarray]) -> dict[str, Any]:
    """Medians over turns of (wall, processor) seconds, and their ratios."""
    mine, theirs = np.median(ours, axis=0), np.median(peers, axis=0)
    return {
        "seconds": round(mine[0], 2),
        "fit_seconds": round(theirs[0], 2),
        "times_fit": round(theirs[0] / mine[0], 2),
        "times_fit_in_processor_seconds": round(theirs[1] / mine[1], 2),
        "times_fit_each_turn": [round(b[0] / a[0], 2) for a, b in zip(ours, peers, strict=True)],
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"rows": 4000, "columns": 1280, "classes": 10, "heads": 32, "hidden": 128, "epochs": 5}
    for name, default in {**numbers, "folds": 5, "turns": 3, "peers": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    rates = "/".join(f"{rate:.6f}" for rate in np.geomspace(1e-4, 1e-2, asked.heads))
    settings = mlp.settings({"hidden": asked.hidden, "learning_rate": rates, "epochs": asked.epochs, "patience": 0})
    features, labels = rows_of(asked.rows, asked.columns, asked.classes)
    scaled = StandardScaler().fit_transform(features)
    few = settings[:: max(1, asked.heads // asked.peers)]
    problem = Problem.of(
        features, labels, list(StratifiedKFold(asked.folds, shuffle=True, random_state=0).split(features, labels))
    )
    fit_each(few[:1], scaled[:128], labels[:128], Clock())  # TensorFlow wakes up
    ours, peers, loads, accuracy = [], [], [], {}
    for _ in range(asked.turns):
        mine, theirs = Clock(), Clock()
        loads.append(round(os.getloadavg()[0], 2))
        train_stack(settings, features, labels, mine)
        fit_each(settings, scaled, labels, theirs)
        loads.append(round(os.getloadavg()[0], 2))
        with mine("cross_validation"):
            scores = mlp.cross_validate(problem, settings, 0)
        with theirs("cross_validation"):
            found = validated(few, problem, scaled)
        theirs.sums["cross_validation"] *= asked.folds * asked.heads / len(few)
        chosen = [score.folds[0] for score, setting in zip(scores, settings, strict=True) if setting in few]
        accuracy = {"ours": round(float(np.mean(chosen)), 4), "fit": round(float(np.mean(found)), 4)}
        for clock, kept in ((mine, ours), (theirs, peers)):
            kept.append({**clock.sums, "whole": clock.sums["first"] + clock.sums["epochs"]})
    result: dict[str, Any] = {
        "asked": vars(asked),
        "backend": load_keras().backend.backend(),
        "gpus": device.visible(),
        "cores": os.cpu_count(),
        "load": loads,
    }
    for name in ("epochs", "whole", "cross_validation"):
        result[name] = compared([each[name] for each in ours], [each[name] for each in peers])
    print(json.dumps({**result, "accuracy_on_the_first_fold": accuracy}, indent=2))


if __name__ == "__main__":
    main()
