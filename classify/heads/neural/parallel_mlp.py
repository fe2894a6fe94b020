"""Several MLP heads of one shape trained at once, as one Keras model. Importing this loads Keras.

The heads see the same batches, so that their first layers are one wide product; inner layers are products per head.
They also start from the same weights and share the noise of dropout, and nothing of one head enters another's gradient:
a head beside others is the head that it would be alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import fresh_names, load_keras
from ...data.feature_matrix import Matrix
from ..head import Dense
from ..linear.standardize import standardised
from . import mixup, schedules
from .optimizers import per_head
from .parallel_mlp_model import Network, head_axis
from .training_memory import widths_of
from .variable_swap import Turns

ops = load_keras().ops

_MEASURED = 1 << 21  # values of the features in a block whose mean and scale are measured
_SCORED = 256  # rows in one forward pass; blocks are filled up, so that it is traced once
_COMPILED = 5e9  # weights x steps from which compiling with XLA, some 2 s on a CPU, is regained by fused updates
_STREAMS = {"order": 0, "noise": 1, "mix": 2}


@dataclass
class Training:
    """One training of all heads of a stack: on which rows, how far it is, and everything that changes on the way.

    rows (n,): what is learnt from; mean, scale (d,): what they are standardised by (float64); rates (steps, heads or 1): the
    learning rates.
    """

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    rates: np.ndarray
    generators: dict[str, np.random.Generator]
    state: list[Any]
    step: int = 0


class Stack:
    """Heads whose settings differ in nothing that decides the shape of the work.

    settings agree on hidden, activation, batch_norm, batch_size, optimizer, cutmix, and (under CutMix) on whether there is
    mixup. Several trainings, one for each fold, take turns in one compiled model.
    """

    def __init__(
        self, features: Matrix, labels: np.ndarray, classes: int, settings: Sequence[Mapping[str, Any]], seed: int
    ) -> None:
        self._features, self._labels, self._classes, self._seed = features, labels, classes, seed
        self.settings, self._widths = list(settings), widths_of(settings[0]["hidden"])
        with fresh_names():
            self._network = Network(features.shape[1], classes, settings, seed)
            scheduled = {(each["learning_rate"], each["schedule"], each["epochs"]) for each in settings}
            self._one_rate = len(scheduled) == 1
            trained = self._network.trainable_variables
            self._optimizer = per_head(
                settings[0]["optimizer"],
                1 if self._one_rate else len(settings),
                np.array([each["weight_decay"] for each in settings]),
                [head_axis(variable) or 0 for variable in trained],
            )
            self._optimizer.build(trained)
            self.weights = sum(int(np.prod(each.shape)) for each in trained)
            steps = max(each["epochs"] for each in settings) * len(labels) / settings[0]["batch_size"]
            compiled = True if steps * self.weights > _COMPILED else "auto"
            self._network.compile(optimizer=self._optimizer, jit_compile=compiled)
        given = self._optimizer.rates
        variables = [*self._network.variables, *self._optimizer.variables]
        self._turns = Turns([each for each in variables if each is not given])
        self._given = np.zeros(0)

    def start(self, rows: np.ndarray) -> Training:
        """A training on some rows of the features, before its first step."""
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        for _, block in self._features.blocks(rows, max(1, _MEASURED // self._features.shape[1])):
            scaler.partial_fit(block)
        generators = {name: np.random.default_rng([self._seed, number]) for name, number in _STREAMS.items()}
        return Training(rows, scaler.mean_, scaler.scale_, self._rates(len(rows)), generators, self._turns.start)

    def epoch(self, training: Training) -> None:
        """Go through the rows of `training` once, in a new order."""
        self._turns.give(training)
        size, row_shape = self.settings[0]["batch_size"], self._features.row_shape
        order = training.rows[training.generators["order"].permutation(len(training.rows))]
        starts = range(0, len(order), size)
        mix_seed = training.generators["mix"].integers(2**31, size=2).tolist()
        mixes = mixup.draw(self.settings, row_shape, len(starts), mix_seed) if self._network.mixes else []
        for number, start in enumerate(starts):
            rows = order[start : start + size]
            inputs: dict[str, Any] = {"rows": self._scaled(training, rows)}
            if self._network.dropout.any():
                noise = training.generators["noise"]
                inputs["noise"] = [noise.random((len(rows), width), np.float32) for width in self._widths]
            if mixes:
                mix = mixes[number]
                inputs["rows"] = mix.cut(inputs["rows"], row_shape)
                inputs["share"], inputs["label_share"] = mix.rows.astype(np.float32), mix.labels.astype(np.float32)
            self._set_rates(training.rates[training.step])
            self._network.train_on_batch(inputs, self._labels[rows])
            training.step += 1

    def answers(self, training: Training, rows: np.ndarray) -> np.ndarray:
        """Probabilities (rows, heads, classes) of rows of the features, as `training` has left the heads."""
        self._turns.give(training)
        found = []
        for start in range(0, len(rows), _SCORED):
            block = rows[start : start + _SCORED]
            filled = np.concatenate([block, np.full(_SCORED - len(block), block[0])])
            found.append(self._network.predict_on_batch({"rows": self._scaled(training, filled)})[: len(block)])
        return np.concatenate(found)

    def layers(self, training: Training, head: int) -> tuple[Dense, ...]:
        """One head as layers that take raw rows: scaler and batch normalisation are folded into the first."""
        self._turns.give(training)
        network, activation = self._network, self.settings[head]["activation"]
        kernels = [np.array(ops.convert_to_numpy(each)) for each in network.kernels]
        kernels = [kernel[:, head] if number == 0 else kernel[head] for number, kernel in enumerate(kernels)]
        biases = [np.array(ops.convert_to_numpy(each))[head] for each in network.biases]
        last = len(kernels) - 1
        layers = [
            Dense(kernel, bias, "softmax" if number == last else activation)
            for number, (kernel, bias) in enumerate(zip(kernels, biases, strict=True))
        ]
        mean, scale = training.mean, training.scale
        if network.norm is not None:
            centre, spread = (
                np.array(ops.convert_to_numpy(each), np.float64)
                for each in (network.norm.moving_mean, network.norm.moving_variance)
            )
            mean, scale = mean + scale * centre, scale * np.sqrt(spread + network.norm.epsilon)
        return (layers[0].scaled(mean, scale), *layers[1:])

    def only(self, heads: Sequence[int], trainings: Sequence[Training]) -> Stack:
        """A stack of some of the heads, which goes on with `trainings` (changed in place) where this one stopped."""
        self._turns.store()
        smaller = Stack(self._features, self._labels, self._classes, [self.settings[head] for head in heads], self._seed)
        for training in trainings:
            state = []
            for variable, value in zip(self._turns.variables, training.state, strict=True):
                axis = head_axis(variable)
                state.append(value if axis is None else ops.take(value, np.array(heads), axis=axis))
            training.state, training.rates = state, smaller._rates(len(training.rows))
        return smaller

    def _scaled(self, training: Training, rows: np.ndarray) -> np.ndarray:
        return standardised(self._features[rows], training.mean, training.scale)

    def _rates(self, rows: int) -> np.ndarray:
        """The learning rate of each head at each step: (steps, heads), or (steps, 1) where all have the same."""
        steps = -(-rows // self.settings[0]["batch_size"])
        columns = self.settings[:1] if self._one_rate else self.settings
        rates = np.zeros((max(each["epochs"] for each in self.settings) * steps, len(columns)), np.float32)
        for place, each in enumerate(columns):
            own = each["learning_rate"] * schedules.factors(each["schedule"], each["epochs"] * steps)
            rates[: len(own), place] = own  # and 0 once the head's own epochs are over
        return rates

    def _set_rates(self, rates: np.ndarray) -> None:
        if not np.array_equal(rates, self._given):
            self._optimizer.rates.assign(rates)
            self._given = rates
