"""The trainable part of a network with its head, as one Keras model. Importing this loads Keras."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...cache.errors import HeadError
from ...extract.backbones import device
from ...extract.backbones.build import Backbone
from ...extract.backbones.keras_runtime import load_keras
from ...extract.backbones.taps import Tap
from ...extract.pixels.read_file import map_in_order
from ..evaluate.target import Target
from ..export import stack_model
from ..heads.head import Head
from ..heads.layers import Dense, HeadLayer, Standardize, activate
from ..heads.neural.optimizers import build_optimizer
from .finetune_config import FinetuneConfig

keras = load_keras()
# TensorFlow warns about models that are compiled more than once, which is intended here.
logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())

_PREFETCH = 4  # batches that are prepared ahead


class Network:
    """A network from a cut (or from images) up to its taps, with a head that outputs logits.

    Parameters
    ----------
    backbone : Backbone
        The network, without merged batch normalization; its layers are shared and changed.
    taps : sequence of Tap
        The inputs of the head.
    cut : str or None
        The layer whose maps are the input; None for images.
    head : Head
        The initial head; its last layer must be `Dense`.
    target : Target
        What a label is.
    mean, deviation : ndarray of shape (d,), optional
        Of the features. The head is trained on standardized features, so that one learning rate suits all of them; this
        does not change its predictions.
    """

    def __init__(
        self,
        backbone: Backbone,
        taps: Sequence[Tap],
        cut: str | None,
        head: Head,
        target: Target,
        mean: np.ndarray | None = None,
        deviation: np.ndarray | None = None,
    ) -> None:
        graph = backbone.graph
        self._head, self._target, self._scale = (
            head,
            target,
            None if mean is None or deviation is None else (mean, deviation),
        )
        layers = _make_trainable(head.layers, self._scale)
        image, values = stack_model.build_features(backbone, taps)
        self.model = keras.Model(
            image if cut is None else graph.outputs[cut], stack_model.apply_layers(layers, values), name="finetuned"
        )
        operation_ids = set(map(id, self.model.operations))
        # Layers that are also used below the cut are not trained, since the maps were computed with them.
        ids_below_cut = set() if cut is None else set(map(id, keras.Model(graph.image, graph.outputs[cut]).operations))
        self.tail = {
            name: operation
            for name, operation in graph.operations.items()
            if id(operation) in operation_ids - ids_below_cut and getattr(operation, "weights", None)
        }
        named_layers = zip(stack_model.list_layer_names(layers), layers, strict=True)
        self._dense_layers = [self.model.get_layer(name) for name, layer in named_layers if isinstance(layer, Dense)]

    def compile(self, config: FinetuneConfig, *, head_only: bool) -> None:
        """Compile the model to train the head only, or everything, with a new optimizer."""
        for layer in self.tail.values():
            for sublayer in layer._flatten_layers() if hasattr(layer, "_flatten_layers") else [layer]:
                is_batch_norm = isinstance(sublayer, keras.layers.BatchNormalization)
                sublayer.trainable = not head_only and (config.train_batch_norm or not is_batch_norm)
        rate = config.head_learning_rate if head_only else config.learning_rate
        optimizer = build_optimizer(config.optimizer, float(rate or 0), float(config.weight_decay or 0))
        if config.precision == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        # On a CPU, TensorFlow's own convolutions are up to seven times as fast as those of XLA.
        use_xla = keras.backend.backend() != "tensorflow" or bool(device.list_gpus(keras))
        loss_config = {"class_name": self._target.loss, "config": self._target.get_loss_config(config.label_smoothing)}
        loss = keras.losses.deserialize(loss_config)
        self.model.compile(optimizer=optimizer, loss=loss, jit_compile=use_xla)
        optimizer.build(self.model.trainable_variables)

    def train_epoch(self, batches: Any, rates: np.ndarray | None = None, progress: Any = None) -> None:
        """Train on every batch once. rates (batches,): the learning rate of each batch, if there is a schedule."""
        current_rate = None
        for number, (images, labels) in enumerate(_iterate_batches(batches)):
            if rates is not None and rates[number] != current_rate:
                current_rate = rates[number]
                self.model.optimizer.learning_rate = float(current_rate)
            self.model.train_on_batch(images, labels)
            if progress is not None:
                progress(number + 1)

    def predict_proba(self, batches: Any) -> np.ndarray:
        """Return probabilities (n, classes) float32 of the images of all batches, in order."""
        return activate(predict(self.model, batches), self._target.activation)

    def get_state(self) -> list[np.ndarray]:
        """Return the variables of the model and of the optimizer."""
        variables = [*self.model.variables, *self.model.optimizer.variables]
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Restore the variables that `get_state` returned."""
        for variable, value in zip([*self.model.variables, *self.model.optimizer.variables], state, strict=True):
            variable.assign(value)

    def get_weights_and_head(self) -> tuple[dict[str, list[np.ndarray]], Head]:
        """Return the weights of the layers above the cut, by layer, and the head on features that are not standardized."""
        dense_layers = iter(self._dense_layers)
        layers: list[HeadLayer] = []
        for layer in self._head.layers:
            if isinstance(layer, Dense):
                weights, bias = (np.array(array, np.float32) for array in next(dense_layers).get_weights())
                layer = replace(layer, weights=weights, bias=bias)
                if not layers and self._scale is not None:
                    layer = layer.absorb_scaler(*self._scale)
            layers.append(layer)
        return {name: layer.get_weights() for name, layer in self.tail.items()}, replace(self._head, layers=tuple(layers))


def check_trainable(head: Head, target: Target, name: str, location: str) -> None:
    """Raise `HeadError` unless a head can be trained by gradient descent."""
    last = head.layers[-1]
    if not isinstance(last, Dense) or last.activation != target.activation:
        raise HeadError(
            f"{location}: head {name} cannot be trained by gradient descent, since its last layer is not dense; "
            "give another trial of leaderboard.csv with --trial, one of logreg, svm, ridge, lda or mlp"
        )


def reinitialize(head: Head, seed: int) -> Head:
    """Return the head with initial weights (Glorot uniform, biases 0), without its scaler."""
    layers: list[HeadLayer] = []
    for number, layer in enumerate(head.layers):
        if isinstance(layer, Dense):
            layer_seed = int(np.random.default_rng([seed, number]).integers(2**31))
            weights = keras.initializers.GlorotUniform(seed=layer_seed)(layer.weights.shape)
            kernel = np.array(keras.ops.convert_to_numpy(weights), np.float32)
            layers.append(replace(layer, weights=kernel, bias=np.zeros_like(layer.bias)))
        elif not isinstance(layer, Standardize):
            layers.append(layer)
    return replace(head, layers=tuple(layers))


def _make_trainable(layers: Sequence[HeadLayer], scale: tuple[np.ndarray, np.ndarray] | None) -> list[HeadLayer]:
    """Return the layers with a linear output, on standardized features if `scale` is given."""
    first, last = layers[0], layers[-1]
    assert isinstance(last, Dense)
    changed: list[HeadLayer] = [*layers[:-1], replace(last, activation="linear")]
    if scale is not None and isinstance(first, Dense):
        mean, deviation = (array.astype(np.float64) for array in scale)
        dense = changed[0]
        assert isinstance(dense, Dense)
        weights = dense.weights.astype(np.float64)
        bias = dense.bias + mean @ weights
        changed[0] = replace(dense, weights=(weights * deviation[:, None]).astype(np.float32), bias=bias.astype(np.float32))
        changed.insert(0, Standardize(mean.astype(np.float32), (1 / deviation).astype(np.float32)))
    return changed


def predict(model: Any, batches: Any) -> np.ndarray:
    """Return the outputs (n, …) float32 of a model for all batches, in order; a short batch is padded."""
    outputs, full_size = [], 0
    for images, _ in _iterate_batches(batches):
        count, full_size = len(images), max(full_size, len(images))
        padded = np.concatenate([images, np.repeat(images[:1], full_size - count, axis=0)]) if count < full_size else images
        outputs.append(np.asarray(model.predict_on_batch(padded), np.float32)[:count])
    return np.concatenate(outputs)


def _iterate_batches(batches: Any) -> Any:
    return map_in_order(batches.__getitem__, range(len(batches)), batches.n_readers, min(_PREFETCH, 2 * batches.n_readers))
