"""Several MLP heads of one shape trained at once, as one Keras model. Importing this loads Keras.

All heads use the same batches, so that their first layers are one wide product; inner layers are one product per head.
They start from the same weights and share the noise of dropout, and gradients are separate: a head trained with others
equals the head trained alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras, reset_layer_names
from ...data.feature_matrix import FeatureMatrix
from ..layers import Dense
from ..linear.standardize import standardize
from . import mixup, schedules
from .optimizers import build_per_head_optimizer
from .parallel_mlp_model import ParallelMLPModel, find_head_axis
from .training_memory import parse_widths
from .variable_swap import VariableSwap

ops = load_keras().ops

_SCALER_BLOCK_VALUES = 1 << 21  # values of the features in a block that the scaler is fitted on
_PREDICT_ROWS = 256  # rows per forward pass; blocks are padded, so that it is traced once
_MIN_XLA_WORK = 5e9  # weights x steps from which fused updates save more than the 2 s of compiling with XLA
_STREAMS = {"order": 0, "noise": 1, "mix": 2}


@dataclass
class MLPTraining:
    """The state of one training, such as that of a fold, of all heads.

    Parameters
    ----------
    rows : ndarray of shape (m,)
        Row numbers to train on.
    mean, scale : ndarray of shape (d,), float64
        The scaler.
    rates : ndarray of shape (steps, heads or 1)
        Learning rates.
    generators
        Random generators for the order of rows, dropout and mixing.
    state
        Values of the model's and the optimizer's variables.
    step
        Number of steps done.
    """

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    rates: np.ndarray
    generators: dict[str, np.random.Generator]
    state: list[Any]
    step: int = 0


class ParallelMLP:
    """Heads of one shape, trained at once; the trainings of several folds share the compiled model.

    Parameters
    ----------
    features
        Rows (n, d).
    labels : ndarray of shape (n,)
        Class numbers.
    n_classes
        Number of classes.
    hyperparameter_sets
        Those of each head; they agree on ``hidden``, ``activation``, ``batch_norm``, ``batch_size``, ``optimizer``,
        ``cutmix``, and with CutMix on whether there is mixup.
    seed
        Seed of the initial weights, the order of rows, dropout and mixing.
    """

    def __init__(
        self,
        features: FeatureMatrix,
        labels: np.ndarray,
        n_classes: int,
        hyperparameter_sets: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> None:
        self._features, self._labels, self._n_classes, self._seed = features, labels, n_classes, seed
        self.hyperparameter_sets, self._widths = list(hyperparameter_sets), parse_widths(hyperparameter_sets[0]["hidden"])
        with reset_layer_names():
            self._network = ParallelMLPModel(features.shape[1], n_classes, hyperparameter_sets, seed)
            distinct_schedules = {(each["learning_rate"], each["schedule"], each["epochs"]) for each in hyperparameter_sets}
            self._has_one_rate = len(distinct_schedules) == 1
            trainable = self._network.trainable_variables
            self._optimizer = build_per_head_optimizer(
                hyperparameter_sets[0]["optimizer"],
                1 if self._has_one_rate else len(hyperparameter_sets),
                np.array([each["weight_decay"] for each in hyperparameter_sets]),
                [find_head_axis(variable) or 0 for variable in trainable],
            )
            self._optimizer.build(trainable)
            self.n_weights = sum(int(np.prod(each.shape)) for each in trainable)
            steps = max(each["epochs"] for each in hyperparameter_sets) * len(labels) / hyperparameter_sets[0]["batch_size"]
            use_xla = True if steps * self.n_weights > _MIN_XLA_WORK else "auto"
            self._network.compile(optimizer=self._optimizer, jit_compile=use_xla)
        rates_variable = self._optimizer.rates
        variables = [*self._network.variables, *self._optimizer.variables]
        self._variable_swap = VariableSwap([each for each in variables if each is not rates_variable])
        self._current_rates = np.zeros(0)

    def start_training(self, rows: np.ndarray) -> MLPTraining:
        """Start a training on some rows (m,) of the features."""
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        for _, block in self._features.iter_blocks(rows, max(1, _SCALER_BLOCK_VALUES // self._features.shape[1])):
            scaler.partial_fit(block)
        generators = {name: np.random.default_rng([self._seed, stream]) for name, stream in _STREAMS.items()}
        return MLPTraining(
            rows, scaler.mean_, scaler.scale_, self._compute_rates(len(rows)), generators, self._variable_swap.initial_state
        )

    def train_epoch(self, training: MLPTraining) -> None:
        """Train on all rows of `training` once, in a new order."""
        self._variable_swap.swap_in(training)
        size, row_shape = self.hyperparameter_sets[0]["batch_size"], self._features.row_shape
        order = training.rows[training.generators["order"].permutation(len(training.rows))]
        starts = range(0, len(order), size)
        mix_seed = training.generators["mix"].integers(2**31, size=2).tolist()
        mixes = (
            mixup.draw_mixes(self.hyperparameter_sets, row_shape, len(starts), mix_seed) if self._network.uses_mixing else []
        )
        for step, start in enumerate(starts):
            rows = order[start : start + size]
            inputs: dict[str, Any] = {"rows": self._read_standardized(training, rows)}
            if self._network.dropout.any():
                noise = training.generators["noise"]
                inputs["noise"] = [noise.random((len(rows), width), np.float32) for width in self._widths]
            if mixes:
                mix = mixes[step]
                inputs["rows"] = mix.apply_cutmix(inputs["rows"], row_shape)
                inputs["share"], inputs["label_share"] = (
                    mix.row_shares.astype(np.float32),
                    mix.label_shares.astype(np.float32),
                )
            self._set_rates(training.rates[training.step])
            self._network.train_on_batch(inputs, self._labels[rows])
            training.step += 1

    def predict(self, training: MLPTraining, rows: np.ndarray) -> np.ndarray:
        """Predict probabilities (m, heads, classes) of some rows (m,) of the features."""
        self._variable_swap.swap_in(training)
        predictions = []
        for start in range(0, len(rows), _PREDICT_ROWS):
            block = rows[start : start + _PREDICT_ROWS]
            padded = np.concatenate([block, np.full(_PREDICT_ROWS - len(block), block[0])])
            predictions.append(
                self._network.predict_on_batch({"rows": self._read_standardized(training, padded)})[: len(block)]
            )
        return np.concatenate(predictions)

    def build_layers(self, training: MLPTraining, head: int) -> tuple[Dense, ...]:
        """Return one trained head as layers for raw rows; scaler and batch normalization are folded into the first."""
        self._variable_swap.swap_in(training)
        network, activation = self._network, self.hyperparameter_sets[head]["activation"]
        kernels = [np.array(ops.convert_to_numpy(variable)) for variable in network.kernels]
        kernels = [kernel[:, head] if layer_index == 0 else kernel[head] for layer_index, kernel in enumerate(kernels)]
        biases = [np.array(ops.convert_to_numpy(variable))[head] for variable in network.biases]
        last = len(kernels) - 1
        layers = [
            Dense(kernel, bias, "softmax" if layer_index == last else activation)
            for layer_index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True))
        ]
        mean, scale = training.mean, training.scale
        if network.norm is not None:
            moving_mean, moving_variance = (
                np.array(ops.convert_to_numpy(variable), np.float64)
                for variable in (network.norm.moving_mean, network.norm.moving_variance)
            )
            mean, scale = mean + scale * moving_mean, scale * np.sqrt(moving_variance + network.norm.epsilon)
        return (layers[0].absorb_scaler(mean, scale), *layers[1:])

    def select_heads(self, heads: Sequence[int], trainings: Sequence[MLPTraining]) -> ParallelMLP:
        """Return a smaller model with some of the heads, to continue with; `trainings` are changed in place."""
        self._variable_swap.store()
        subset = ParallelMLP(
            self._features, self._labels, self._n_classes, [self.hyperparameter_sets[head] for head in heads], self._seed
        )
        for training in trainings:
            state = []
            for variable, value in zip(self._variable_swap.variables, training.state, strict=True):
                axis = find_head_axis(variable)
                state.append(value if axis is None else ops.take(value, np.array(heads), axis=axis))
            training.state, training.rates = state, subset._compute_rates(len(training.rows))
        return subset

    def _read_standardized(self, training: MLPTraining, rows: np.ndarray) -> np.ndarray:
        return standardize(self._features[rows], training.mean, training.scale)

    def _compute_rates(self, n_rows: int) -> np.ndarray:
        """Return the learning rate of each head at each step (steps, heads), or (steps, 1) if all have the same."""
        steps = -(-n_rows // self.hyperparameter_sets[0]["batch_size"])
        rated_sets = self.hyperparameter_sets[:1] if self._has_one_rate else self.hyperparameter_sets
        rates = np.zeros(
            (max(hyperparameters["epochs"] for hyperparameters in self.hyperparameter_sets) * steps, len(rated_sets)),
            np.float32,
        )
        for index, hyperparameters in enumerate(rated_sets):
            head_rates = hyperparameters["learning_rate"] * schedules.compute_factors(
                hyperparameters["schedule"], hyperparameters["epochs"] * steps
            )
            rates[: len(head_rates), index] = head_rates  # 0 after the head's last epoch
        return rates

    def _set_rates(self, rates: np.ndarray) -> None:
        if not np.array_equal(rates, self._current_rates):
            self._optimizer.rates.assign(rates)
            self._current_rates = rates
