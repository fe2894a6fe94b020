"""A network laid flat on top of an image of bytes: every layer's output, its cost, and where it can be cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from . import preprocessing
from .batch_norm_folding import foldable, folded
from .keras_runtime import load_keras

# A tap there sees half a step of a block: before normalisation, activation or addition.
_UNFINISHED = {"ZeroPadding2D", "BatchNormalization", "LayerNormalization", "Normalization", "Rescaling", "Dropout"}


@dataclass(frozen=True)
class Layer:
    """One layer's output.

    shape: without the batch axis. cost, elements: multiply-adds, and values written, of everything needed to compute it,
    for one image.
    cut: whether nothing below is needed above it, except through it. finished: whether it ends a step of the network.
    parameters: numbers that are learnt or counted, of everything needed to compute it; None where an older humeris wrote it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    cost: int
    elements: int
    cut: bool
    finished: bool
    parameters: int | None = None


class Graph:
    """The flat network.

    image: symbolic input, uint8 (None, height, width, 3). outputs: symbolic output of each layer, by name. operations: what
    computes each, as `named` calls them.
    layers: what is known of each, in the order of computation. With `fold`, a convolution does the normalisation that
    alone follows it; the convolution's own output is still there.
    """

    def __init__(self, model: Any, image_size: tuple[int, int], mode: str, *, fold: bool = True) -> None:
        keras = load_keras()
        self.image = keras.Input((*image_size, 3), dtype="uint8", name="image")
        self.outputs: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self._names: list[str] = []
        self._kinds: list[str] = []
        self._finished: list[bool] = []
        self._own: list[tuple[int, int]] = []  # multiply-adds, values written
        self._parameters: list[tuple[int, int]] = []  # which operation, and how many it has
        self._ancestors: list[int] = []  # bit sets
        self._last_use: list[int] = []
        self._producer: dict[int, int] = {}
        self._own_names: dict[int, str] = {}
        self._fold = fold
        self._made_by: dict[int, tuple[Any, Any]] = {}  # convolution and its input, of an output with one user
        self._taken = {"image", "probabilities"}  # what `stack` adds besides names that begin with humeris_
        self._scaled, self._scaled_last_use = preprocessing.apply(self.image, mode), 0
        self._inline(model, self._scaled, "")
        self.layers = self._describe()

    def _inline(self, model: Any, tensor: Any, prefix: str) -> Any:
        """Run `model` on a symbolic tensor, layer by layer, so that nested models come out flat."""
        keras, model = load_keras(), _functional(model)
        once = {id(each) for each in model.operations if len(each._inbound_nodes) == 1 == len(each._outbound_nodes)}

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if _nested(operation) and len(args) == 1 and isinstance(args[0], keras.KerasTensor):
                return self._inline(operation, args[0], f"{prefix}{operation.name}/")
            convolution, its_input = self._made_by.get(id(args[0]) if args else 0, (None, None))
            if self._fold and foldable(convolution, operation):
                result = folded(convolution, operation, its_input)
            else:
                result = operation(*args, **kwargs)
            self._note(operation, prefix, keras.tree.flatten((args, kwargs)), keras.tree.flatten(result))
            if id(operation) in once:
                self._made_by[id(result)] = operation, args[0]
            return result

        return model._run_through_graph(tensor, call_fn=call)

    def _name(self, operation: Any, prefix: str) -> str:
        """The operation's name with its prefix. Two nested models may each have a `conv`: the second is renamed inside.

        A Keras model refuses to hold two operations of one name.
        """
        if id(operation) not in self._own_names:
            own = self._own_names[id(operation)] = operation.name
            if own in self._taken or own.startswith("humeris_"):
                operation.name = f"humeris_{len(self._names)}_{own}"
            self._taken.add(operation.name)
        return prefix + self._own_names[id(operation)]

    def _note(self, operation: Any, prefix: str, inputs: list[Any], results: list[Any]) -> None:
        number, name = len(self._names), self._name(operation, prefix)
        used = {self._producer[id(tensor)] for tensor in inputs if id(tensor) in self._producer}
        for producer in used:
            self._last_use[producer] = number
        if any(tensor is self._scaled for tensor in inputs):
            self._scaled_last_use = number
        self._ancestors.append((1 << number) | _union(self._ancestors[producer] for producer in used))
        self._producer.update((id(tensor), number) for tensor in results)
        self._last_use.append(number)
        self._names.append(name)
        self.operations.setdefault(name, operation)
        self._kinds.append(type(operation).__name__)
        self._finished.append(_finishes(operation))
        shape = results[0].shape
        self._own.append((_multiply_adds(operation, shape), math.prod(side or 1 for side in shape)))
        own = sum(math.prod(weight.shape) for weight in getattr(operation, "weights", []))
        self._parameters.append((id(operation), own))
        if len(results) == 1 and shape[0] is None and None not in shape[1:]:
            self.outputs[name] = results[0]

    def _describe(self) -> list[Layer]:
        layers, open_until = [], self._scaled_last_use
        for number, name in enumerate(self._names):
            cut = open_until <= number
            open_until = max(open_until, self._last_use[number])
            if name in self.outputs and self._producer[id(self.outputs[name])] == number:
                needed = [bit for bit in range(len(self._own)) if self._ancestors[number] >> bit & 1]
                cost, elements = (sum(column) for column in zip(*(self._own[bit] for bit in needed), strict=True))
                held = sum(dict(self._parameters[bit] for bit in needed).values())  # one that is used twice counts once
                shape = tuple(self.outputs[name].shape[1:])
                layers.append(Layer(name, self._kinds[number], shape, cost, elements, cut, self._finished[number], held))
        return layers


def named(model: Any) -> dict[str, Any]:
    """The operations of a model, nested ones flat, by the names that `Graph` gives them; before a graph is made of it."""
    found: dict[str, Any] = {}
    for operation in _functional(model).operations:
        if _nested(operation) and len(operation.inputs) == 1:
            inner = named(operation)
            found |= {
                f"{operation.name}/{name}": each for name, each in inner.items() if f"{operation.name}/{name}" not in found
            }
        else:
            found.setdefault(operation.name, operation)
    return found


def _functional(model: Any) -> Any:
    """A model whose operations can be walked: a sequential one has none of its own."""
    keras = load_keras()
    return keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model


def _nested(operation: Any) -> bool:
    """Whether an operation is a model whose layers are to come out flat."""
    return isinstance(operation, load_keras().Sequential) or hasattr(operation, "_run_through_graph")


def _union(sets: Any) -> int:
    result = 0
    for bits in sets:
        result |= bits
    return result


def _multiply_adds(operation: Any, shape: tuple[int | None, ...]) -> int:
    """Each weight of rank 2 or more is used once at every output position (a dense layer has one position)."""
    kernels = sum(math.prod(weight.shape) for weight in getattr(operation, "weights", []) if len(weight.shape) >= 2)
    positions = math.prod(side or 1 for side in shape[1:-1]) if len(shape) > 2 else 1
    return int(kernels * positions)


def _finishes(operation: Any) -> bool:
    activation = getattr(operation, "activation", None)
    linear = getattr(activation, "__name__", "linear") == "linear"
    kind = type(operation).__name__
    convolution = "Conv" in kind or kind == "Dense"
    return kind not in _UNFINISHED and not (convolution and linear)


def default_taps(layers: list[Layer], most: int = 8) -> list[str]:
    """Layers worth a tap, by depth: the last one at each resolution, and others where the cost between two is greatest.

    Only layers that nothing bypasses are taken, so that the network can be cut there and trained on from there.
    """
    candidates = [layer for layer in layers if layer.cut and layer.finished and len(layer.shape) in {2, 3}]
    if not candidates:
        return [layers[-1].name]
    maps = [layer for layer in candidates if len(layer.shape) == 3] or candidates
    stages = {layer.shape[:-1]: layer for layer in maps}
    chosen = [maps.index(layer) for layer in list(stages.values())[-most:]]
    while len(chosen) < min(most, len(maps)):
        chosen.sort()
        gaps = [
            (maps[after].cost - maps[before].cost, before, after) for before, after in pairwise(chosen) if after - before > 1
        ]
        if not gaps:
            break
        _, before, after = max(gaps)
        middle = (maps[before].cost + maps[after].cost) / 2
        chosen.append(min(range(before + 1, after), key=lambda number: abs(maps[number].cost - middle)))
    return [maps[number].name for number in sorted(chosen)]
