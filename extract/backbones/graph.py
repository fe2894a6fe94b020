"""A network as a flat graph with an input of uint8 pixels: the output and the cost of every layer, and the cuts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from . import preprocessing
from .batch_norm_folding import build_folded_convolution, can_fold
from .keras_runtime import load_keras

# Layers inside a block: their output is still to be normalized, activated or added.
_MID_BLOCK_KINDS = {"ZeroPadding2D", "BatchNormalization", "LayerNormalization", "Normalization", "Rescaling", "Dropout"}


@dataclass(frozen=True)
class Layer:
    """The output of a layer and its cost for one image.

    Attributes
    ----------
    name : str
        The name of the layer in the network.
    kind : str
        Its Keras class.
    shape : tuple of int
        Shape of the output, without the batch axis.
    cost : int
        Multiply-adds of the layer and of all layers below that it depends on.
    elements : int
        Values written by the same layers.
    is_cut_point : bool
        Whether the layers above depend on those below only through this one.
    is_block_end : bool
        Whether a block of the network ends here, after its normalization, activation or addition.
    parameters : int
        Weights of the same layers as `cost`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    cost: int
    elements: int
    is_cut_point: bool
    is_block_end: bool
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Layer:
        """Return the layer that `to_dict` wrote; raises `TypeError`, `KeyError` or `ValueError` for any other value."""
        layer = cls(**{**value, "shape": tuple(value["shape"])})
        numbers = (*layer.shape, layer.cost, layer.elements, layer.parameters)
        if not all(isinstance(number, int) for number in numbers):
            raise TypeError(f"layer {layer.name}: shape, cost, elements and parameters are not all whole numbers: {numbers}")
        return layer


class Graph:
    """A network with its nested models flattened, on top of its preprocessing.

    Parameters
    ----------
    model : keras.Model
        A model with one input (batch, height, width, 3), whose weights are shared with the graph.
    image_size : tuple of int
        (height, width) in pixels.
    mode : str
        A mode of `preprocessing.apply`.
    fold_batch_norm : bool
        Whether to fold a batch normalization into a convolution if nothing else uses the convolution's output, which is
        available as an output all the same.

    Attributes
    ----------
    image : keras.KerasTensor
        Symbolic input, uint8 (None, height, width, 3).
    outputs : dict
        Layer name -> symbolic output.
    operations : dict
        Layer name -> the operation that computes it, with the names of `collect_operations`.
    layers : list of Layer
        The layers, in the order of computation.
    """

    def __init__(self, model: Any, image_size: tuple[int, int], mode: str, *, fold_batch_norm: bool = True) -> None:
        keras = load_keras()
        self.image = keras.Input((*image_size, 3), dtype="uint8", name="image")
        self.outputs: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self._names: list[str] = []
        self._kinds: list[str] = []
        self._block_ends: list[bool] = []
        self._costs: list[tuple[int, int]] = []  # multiply-adds, values written
        self._parameters: list[tuple[int, int]] = []  # id of the operation, and its number of weights
        self._ancestors: list[int] = []  # bit sets
        self._last_use: list[int] = []
        self._producer: dict[int, int] = {}
        self._original_names: dict[int, str] = {}
        self._fold_batch_norm = fold_batch_norm
        self._single_use_producers: dict[int, tuple[Any, Any]] = {}  # id of an output that is used once -> (layer, input)
        self._used_names = {"image", "probabilities"}  # names that `stack_model` adds, besides those with humeris_
        self._scaled_image, self._scaled_image_last_use = preprocessing.apply(self.image, mode), 0
        self._inline(model, self._scaled_image, "")
        self.layers = self._describe_layers()

    def _inline(self, model: Any, tensor: Any, prefix: str) -> Any:
        """Apply `model` to a symbolic tensor layer by layer, so that nested models are flattened."""
        keras, model = load_keras(), _to_functional(model)
        single_use_ids = {
            id(node) for node in model.operations if len(node._inbound_nodes) == 1 == len(node._outbound_nodes)
        }

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if _is_nested(operation) and len(args) == 1 and isinstance(args[0], keras.KerasTensor):
                return self._inline(operation, args[0], f"{prefix}{operation.name}/")
            convolution, convolution_input = self._single_use_producers.get(id(args[0]) if args else 0, (None, None))
            if self._fold_batch_norm and can_fold(convolution, operation):
                result = build_folded_convolution(convolution, operation, convolution_input)
            else:
                result = operation(*args, **kwargs)
            self._record(operation, prefix, keras.tree.flatten((args, kwargs)), keras.tree.flatten(result))
            if id(operation) in single_use_ids:
                self._single_use_producers[id(result)] = operation, args[0]
            return result

        return model._run_through_graph(tensor, call_fn=call)

    def _assign_name(self, operation: Any, prefix: str) -> str:
        """Return the name of an operation with its prefix, and rename the operation if another one has the same name.

        Two nested models may each have a `conv`, but a flat Keras model raises for two operations of one name.
        """
        if id(operation) not in self._original_names:
            original_name = self._original_names[id(operation)] = operation.name
            if original_name in self._used_names or original_name.startswith("humeris_"):
                operation.name = f"humeris_{len(self._names)}_{original_name}"
            self._used_names.add(operation.name)
        return prefix + self._original_names[id(operation)]

    def _record(self, operation: Any, prefix: str, inputs: list[Any], results: list[Any]) -> None:
        index, name = len(self._names), self._assign_name(operation, prefix)
        producers = {self._producer[id(tensor)] for tensor in inputs if id(tensor) in self._producer}
        for producer in producers:
            self._last_use[producer] = index
        if any(tensor is self._scaled_image for tensor in inputs):
            self._scaled_image_last_use = index
        self._ancestors.append((1 << index) | _merge_bits(self._ancestors[producer] for producer in producers))
        self._producer.update((id(tensor), index) for tensor in results)
        self._last_use.append(index)
        self._names.append(name)
        self.operations.setdefault(name, operation)
        self._kinds.append(type(operation).__name__)
        self._block_ends.append(_is_block_end(operation))
        shape = results[0].shape
        self._costs.append((_count_multiply_adds(operation, shape), math.prod(side or 1 for side in shape)))
        n_parameters = sum(math.prod(weight.shape) for weight in getattr(operation, "weights", []))
        self._parameters.append((id(operation), n_parameters))
        if len(results) == 1 and shape[0] is None and None not in shape[1:]:
            self.outputs[name] = results[0]

    def _describe_layers(self) -> list[Layer]:
        layers, open_until = [], self._scaled_image_last_use
        for index, name in enumerate(self._names):
            is_cut_point = open_until <= index
            open_until = max(open_until, self._last_use[index])
            if name in self.outputs and self._producer[id(self.outputs[name])] == index:
                ancestors = [ancestor for ancestor in range(len(self._costs)) if self._ancestors[index] >> ancestor & 1]
                cost, elements = (
                    sum(column) for column in zip(*(self._costs[ancestor] for ancestor in ancestors), strict=True)
                )
                n_parameters = sum(
                    dict(self._parameters[ancestor] for ancestor in ancestors).values()
                )  # weights of an operation that is used twice count once
                shape = tuple(self.outputs[name].shape[1:])
                is_block_end = self._block_ends[index]
                layers.append(
                    Layer(name, self._kinds[index], shape, cost, elements, is_cut_point, is_block_end, n_parameters)
                )
        return layers


def collect_operations(model: Any) -> dict[str, Any]:
    """Return the operations of a model by the names that they have in its `Graph`.

    Parameters
    ----------
    model : keras.Model
        A model that no `Graph` was made from, because that may rename operations.

    Returns
    -------
    dict
        Name -> operation; an operation of a nested model is named `model/operation`.
    """
    operations: dict[str, Any] = {}
    for operation in _to_functional(model).operations:
        if _is_nested(operation) and len(operation.inputs) == 1:
            nested_operations = collect_operations(operation)
            operations |= {
                f"{operation.name}/{name}": nested_operation
                for name, nested_operation in nested_operations.items()
                if f"{operation.name}/{name}" not in operations
            }
        else:
            operations.setdefault(operation.name, operation)
    return operations


def _to_functional(model: Any) -> Any:
    """Return a functional model, which has `operations`; a sequential model has none."""
    keras = load_keras()
    return keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model


def _is_nested(operation: Any) -> bool:
    """Return whether an operation is a nested model, to be flattened."""
    return isinstance(operation, load_keras().Sequential) or hasattr(operation, "_run_through_graph")


def _merge_bits(sets: Any) -> int:
    result = 0
    for bits in sets:
        result |= bits
    return result


def _count_multiply_adds(operation: Any, shape: tuple[int | None, ...]) -> int:
    """Count one multiply-add per weight of rank 2 or more and output position (a dense layer has one position)."""
    kernels = sum(math.prod(weight.shape) for weight in getattr(operation, "weights", []) if len(weight.shape) >= 2)
    positions = math.prod(side or 1 for side in shape[1:-1]) if len(shape) > 2 else 1
    return int(kernels * positions)


def _is_block_end(operation: Any) -> bool:
    activation = getattr(operation, "activation", None)
    is_linear = getattr(activation, "__name__", "linear") == "linear"
    kind = type(operation).__name__
    is_convolution = "Conv" in kind or kind == "Dense"
    return kind not in _MID_BLOCK_KINDS and not (is_convolution and is_linear)


def choose_default_layers(layers: list[Layer], max_layers: int = 8) -> list[str]:
    """Choose the layers to tap by default: the last one at each resolution, then others in the widest gaps of cost.

    Only cuts are chosen, so that the network above each of them can be fine-tuned.

    Parameters
    ----------
    layers : list of Layer
        The layers of one network, in the order of computation.
    max_layers : int
        The largest number of layers to choose.

    Returns
    -------
    list of str
        Their names, by depth.
    """
    candidates = [layer for layer in layers if layer.is_cut_point and layer.is_block_end and len(layer.shape) in {2, 3}]
    if not candidates:
        return [layers[-1].name]
    maps = [layer for layer in candidates if len(layer.shape) == 3] or candidates
    layer_by_resolution = {layer.shape[:-1]: layer for layer in maps}
    indices = [maps.index(layer) for layer in list(layer_by_resolution.values())[-max_layers:]]
    while len(indices) < min(max_layers, len(maps)):
        indices.sort()
        gaps = [
            (maps[upper].cost - maps[lower].cost, lower, upper) for lower, upper in pairwise(indices) if upper - lower > 1
        ]
        if not gaps:
            break
        _, lower, upper = max(gaps)
        middle_cost = (maps[lower].cost + maps[upper].cost) / 2
        indices.append(min(range(lower + 1, upper), key=lambda index: abs(maps[index].cost - middle_cost)))
    return [maps[index].name for index in sorted(indices)]
