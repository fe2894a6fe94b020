"""Freeze a Keras model into one TensorFlow function that converters can read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_XLA_ATTRIBUTE = "_XlaMustCompile"


def freeze(model: Any) -> Any:
    """Trace a Keras model in inference mode, with its weights as constants and without function calls.

    Keras has XLA compile its grouped convolutions, which TensorFlow then keeps as calls of functions of their own, and no
    converter knows these. The attribute that says so is removed from the frozen graph, and the calls are inlined.

    Parameters
    ----------
    model : keras.Model
        With one input and one output.

    Returns
    -------
    tensorflow.types.experimental.ConcreteFunction
        From ``image`` to the probabilities.
    """
    import tensorflow

    spec = tensorflow.TensorSpec((None, *model.inputs[0].shape[1:]), model.inputs[0].dtype, name="image")
    traced_function = tensorflow.function(lambda image: model(image, training=False), autograph=False)
    frozen_function = _freeze_variables(traced_function.get_concrete_function(spec))
    definition = frozen_function.graph.as_graph_def()
    return _inline_calls(definition, frozen_function) if definition.library.function else frozen_function


@contextlib.contextmanager
def compute_in_float32(model: Any) -> Iterator[None]:
    """Let every layer of a model compute in float32 while the context lasts.

    Neither ONNX Runtime nor LiteRT convolves in bfloat16 on a CPU.
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


def _freeze_variables(function: Any, *, inline: bool = False) -> Any:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=inline)


def _inline_calls(definition: Any, frozen_function: Any) -> Any:
    """The function of a graph with its calls inlined; input and output are those of `frozen_function`."""
    import tensorflow

    names = {
        function_def.signature.name: f"{function_def.signature.name}_plain" for function_def in definition.library.function
    }
    nodes = [*definition.node, *(node for function_def in definition.library.function for node in function_def.node_def)]
    for function_def in definition.library.function:
        # TensorFlow knows the old name, for another function
        function_def.signature.name = names[function_def.signature.name]
    for holder in [*nodes, *definition.library.function]:
        holder.attr.pop(_XLA_ATTRIBUTE, None)
        for value in holder.attr.values():
            if value.WhichOneof("value") == "func":
                value.func.name = names[value.func.name]
    wrapped_function = tensorflow.compat.v1.wrap_function(lambda: tensorflow.import_graph_def(definition, name=""), [])
    function = wrapped_function.prune(frozen_function.inputs[0].name, frozen_function.outputs[0].name)
    return _freeze_variables(function, inline=True)
