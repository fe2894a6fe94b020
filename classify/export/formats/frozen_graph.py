"""A Keras model as one TensorFlow function that converters can read: constants inside, and no call in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_COMPILED = "_XlaMustCompile"


def freeze(model: Any) -> Any:
    """The concrete function `image` -> probabilities of a Keras model, in inference, its weights as constants.

    Keras has XLA compile its grouped convolutions, which TensorFlow then keeps as calls of functions of their own: no
    converter knows what to do with these. The mark is taken off in the frozen graph, and the calls are inlined.
    """
    import tensorflow

    spec = tensorflow.TensorSpec((None, *model.inputs[0].shape[1:]), model.inputs[0].dtype, name="image")
    traced = tensorflow.function(lambda image: model(image, training=False), autograph=False)
    found = _constant(traced.get_concrete_function(spec))
    definition = found.graph.as_graph_def()
    return _inlined(definition, found) if definition.library.function else found


@contextlib.contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Meanwhile, every layer of the model computes in float32, whatever the features were made in.

    Neither ONNX Runtime nor LiteRT convolves in bfloat16 on a processor.
    """
    layers = [layer for layer in model.layers if layer.compute_dtype != "float32"]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy


def _constant(function: Any, *, inline: bool = False) -> Any:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=inline)


def _inlined(definition: Any, frozen: Any) -> Any:
    """The function of a graph, whose calls are replaced by what they call; `frozen` says what goes in and comes out."""
    import tensorflow

    names = {each.signature.name: f"{each.signature.name}_plain" for each in definition.library.function}
    nodes = [*definition.node, *(node for each in definition.library.function for node in each.node_def)]
    for each in definition.library.function:
        each.signature.name = names[each.signature.name]  # TensorFlow knows the old name, for another function
    for holder in [*nodes, *definition.library.function]:
        holder.attr.pop(_COMPILED, None)
        for value in holder.attr.values():
            if value.WhichOneof("value") == "func":
                value.func.name = names[value.func.name]
    wrapped = tensorflow.compat.v1.wrap_function(lambda: tensorflow.import_graph_def(definition, name=""), [])
    function = wrapped.prune(frozen.inputs[0].name, frozen.outputs[0].name)
    return _constant(function, inline=True)
