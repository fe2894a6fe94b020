"""Training of a group of multilayer perceptrons on the folds, one epoch of each fold in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..training_data import TrainingData
from .early_stopping import EarlyStopping, measure, train_subsample
from .training_memory import estimate_training_bytes, parse_widths

if TYPE_CHECKING:
    from .parallel_mlp import MLPTraining, ParallelMLP

_MAX_MEMORY_BYTES = 1 << 29  # for the weights of the heads trained at once, and everything else of their size
_MIN_REBUILD_WEIGHTS = (
    1_000_000  # number of weights from which it pays to rebuild the model without the heads that have stopped
)


def group_by_shape(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Divide hyperparameters into groups that can be trained as one model and fit in memory; returns indices."""
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


def train_group(data: TrainingData, hyperparameter_sets: Sequence[Mapping[str, Any]], seed: int) -> list[EarlyStopping]:
    """Train heads of one shape in every fold, each until it stops early.

    Parameters
    ----------
    data
        Rows, labels and folds.
    hyperparameter_sets
        One group from `group_by_shape`.
    seed
        Seed of the initial weights, the order of rows, dropout and mixing.

    Returns
    -------
    list of EarlyStopping
        For each head its curves, and its predictions in every fold after its best epoch.
    """
    from .parallel_mlp import ParallelMLP

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
