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

from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData
from humeris.extract.backbones import device
from humeris.extract.backbones.keras_runtime import load_keras

mlp = get_head_family("mlp")


def make_dataset(n_rows: int, n_columns: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose classes overlap, with a part that no linear head sees."""
    random = np.random.default_rng(0)
    labels = random.integers(n_classes, size=n_rows)
    hidden = random.normal(size=(n_classes, 32))[labels] + random.normal(size=(n_rows, 32)) * 1.5
    features = np.tanh(hidden @ random.normal(size=(32, n_columns)) / 6) + random.normal(size=(n_rows, n_columns))
    return features.astype(np.float32), labels


def build_peer(hyperparameters: Mapping[str, Any], n_columns: int, n_classes: int) -> Any:
    """The network as a user of Keras writes it."""
    keras = load_keras()
    network = keras.Sequential(
        [
            keras.Input((n_columns,)),
            keras.layers.Dense(hyperparameters["hidden"], activation="relu", kernel_initializer="he_normal"),
            keras.layers.Dropout(hyperparameters["dropout"]),
            keras.layers.Dense(n_classes, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(hyperparameters["learning_rate"])
    network.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def fit_each(settings: Sequence[Mapping[str, Any]], x: np.ndarray, y: np.ndarray, clock: Clock) -> None:
    """Each by `fit`, on all rows."""
    for hyperparameters in settings:
        batch_size, n_classes = hyperparameters["batch_size"], int(y.max()) + 1
        with clock("first"):
            network = build_peer(hyperparameters, x.shape[1], n_classes)
            network.fit(x, y, batch_size=batch_size, verbose=0)
        with clock("epochs"):
            network.fit(x, y, batch_size=batch_size, epochs=hyperparameters["epochs"] - 1, verbose=0)


def train_parallel(settings: Sequence[Mapping[str, Any]], x: np.ndarray, y: np.ndarray, clock: Clock) -> None:
    """All heads on all rows, as `mlp.fit` does it for one."""
    from humeris.classify.heads.neural.parallel_mlp import ParallelMLP

    with clock("first"):
        model = ParallelMLP(FeatureMatrix.from_array(x), y, int(y.max()) + 1, settings, 0)
        training = model.start_training(np.arange(len(y)))
        model.train_epoch(training)
    with clock("epochs"):
        for _ in range(settings[0]["epochs"] - 1):
            model.train_epoch(training)
        model.build_layers(training, 0)


def validate_each(settings: Sequence[Mapping[str, Any]], training_data: TrainingData, scaled: np.ndarray) -> list[float]:
    """Accuracy of each on the first fold, after the epoch with the lowest log-loss, by `fit`."""
    (train_rows, test_rows), y, accuracies = training_data.folds[0], training_data.labels, []
    for hyperparameters in settings:
        network = build_peer(hyperparameters, scaled.shape[1], training_data.n_classes)
        history = network.fit(
            scaled[train_rows],
            y[train_rows],
            batch_size=hyperparameters["batch_size"],
            epochs=hyperparameters["epochs"],
            validation_data=(scaled[test_rows], y[test_rows]),
            verbose=0,
        ).history
        accuracies.append(history["val_accuracy"][int(np.argmin(history["val_loss"]))])
    return accuracies


class Clock:
    """Sums of wall and processor seconds by name."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time spent inside under `name`."""
        start_times = np.array([time.perf_counter(), time.process_time()])
        yield
        elapsed = np.array([time.perf_counter(), time.process_time()]) - start_times
        self.sums[name] = self.sums.get(name, np.zeros(2)) + elapsed


def summarize(ours: Sequence[np.ndarray], peers: Sequence[np.ndarray]) -> dict[str, Any]:
    """Medians over turns of (wall, processor) seconds, and their ratios."""
    our_median, peer_median = np.median(ours, axis=0), np.median(peers, axis=0)
    return {
        "seconds": round(our_median[0], 2),
        "fit_seconds": round(peer_median[0], 2),
        "times_fit": round(peer_median[0] / our_median[0], 2),
        "times_fit_in_processor_seconds": round(peer_median[1] / our_median[1], 2),
        "times_fit_each_turn": [
            round(peer_turn[0] / our_turn[0], 2) for our_turn, peer_turn in zip(ours, peers, strict=True)
        ],
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"rows": 4000, "columns": 1280, "classes": 10, "heads": 32, "hidden": 128, "epochs": 5}
    for name, default in {**numbers, "folds": 5, "turns": 3, "peers": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    rates = "/".join(f"{rate:.6f}" for rate in np.geomspace(1e-4, 1e-2, arguments.heads))
    settings = mlp.expand_grid(
        {"hidden": arguments.hidden, "learning_rate": rates, "epochs": arguments.epochs, "patience": 0}
    )
    features, labels = make_dataset(arguments.rows, arguments.columns, arguments.classes)
    scaled = StandardScaler().fit_transform(features)
    peer_settings = settings[:: max(1, arguments.heads // arguments.peers)]
    training_data = TrainingData.from_arrays(
        features, labels, list(StratifiedKFold(arguments.folds, shuffle=True, random_state=0).split(features, labels))
    )
    fit_each(peer_settings[:1], scaled[:128], labels[:128], Clock())  # TensorFlow wakes up
    ours, peers, loads, accuracy = [], [], [], {}
    for _ in range(arguments.turns):
        our_clock, peer_clock = Clock(), Clock()
        loads.append(round(os.getloadavg()[0], 2))
        train_parallel(settings, features, labels, our_clock)
        fit_each(settings, scaled, labels, peer_clock)
        loads.append(round(os.getloadavg()[0], 2))
        with our_clock("cross_validation"):
            scores = mlp.cross_validate(training_data, settings, 0)
        with peer_clock("cross_validation"):
            peer_accuracies = validate_each(peer_settings, training_data, scaled)
        peer_clock.sums["cross_validation"] *= arguments.folds * arguments.heads / len(peer_settings)
        our_accuracies = [
            score.folds[0]
            for score, hyperparameters in zip(scores, settings, strict=True)
            if hyperparameters in peer_settings
        ]
        accuracy = {"ours": round(float(np.mean(our_accuracies)), 4), "fit": round(float(np.mean(peer_accuracies)), 4)}
        for clock, sums in ((our_clock, ours), (peer_clock, peers)):
            sums.append({**clock.sums, "whole": clock.sums["first"] + clock.sums["epochs"]})
    result: dict[str, Any] = {
        "asked": vars(arguments),
        "backend": load_keras().backend.backend(),
        "gpus": device.format_visible_gpus(),
        "cores": os.cpu_count(),
        "load": loads,
    }
    for name in ("epochs", "whole", "cross_validation"):
        result[name] = summarize([turn[name] for turn in ours], [turn[name] for turn in peers])
    print(json.dumps({**result, "accuracy_on_the_first_fold": accuracy}, indent=2))


if __name__ == "__main__":
    main()
