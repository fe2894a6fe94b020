"""The constants of a LiteRT model in fewer bits; the runtime makes them float32 again when it loads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .quantization import LEAST, rounded, worth_halving

Small = tuple[np.ndarray, np.ndarray | None]  # what is stored, and the factors (channels,) it is to be multiplied with
_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0}  # of the channels that come out


def halves(flat: bytes) -> bytes:
    """The model with its large constants in float16."""

    def half(values: np.ndarray, _axis: int | None, least: int) -> Small | None:
        if values.size < least or np.abs(values).max() > np.finfo(np.float16).max:
            return None
        return values.astype(np.float16), None

    return _stored(flat, half, spared=0)


def eighths(flat: bytes, spared: int) -> bytes:
    """The model with its large kernels, but for the last `spared`, in eight bits; depthwise ones stay as they are."""

    def eighth(values: np.ndarray, axis: int | None, _least: int) -> Small | None:
        if axis is None or values.size < LEAST:
            return None
        levels, factors = rounded(values, [each for each in range(values.ndim) if each != axis])
        return levels, factors.ravel()

    return _stored(flat, eighth, spared)


def _stored(flat: bytes, small: Callable[[np.ndarray, int | None, int], Small | None], spared: int) -> bytes:
    """The model with constants as `small` has them.

    `small` is given their values, for kernels the axis of the channels, and how many values are worth halving.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(flat))
    (graph,) = model.subgraphs
    axes = _kernels(model, graph, schema)
    left = set(list(axes)[len(axes) - spared :]) if spared else set()
    code = _dequantize(model, schema)
    operators = []
    constants = {
        number: np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)
        for number, tensor in enumerate(graph.tensors)
        if tensor.type == schema.TensorType.FLOAT32 and model.buffers[tensor.buffer].data is not None
    }
    least = worth_halving(values.size for values in constants.values())
    for number, values in constants.items():
        tensor = graph.tensors[number]
        found = None if number in left else small(values, axes.get(number), least)
        if found is None:
            continue
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.frombuffer(found[0].tobytes(), np.uint8)
        kept = _kept(tensor, len(model.buffers) - 1, found[1], axes.get(number), schema)
        tensor.buffer = 0  # the empty one: computed now
        graph.tensors.append(kept)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, [len(graph.tensors) - 1], [number]
        operators.append(operator)
    graph.operators = operators + graph.operators
    used = {tensor.buffer for tensor in graph.tensors} | {each.buffer for each in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _kept(tensor: Any, buffer: int, factors: np.ndarray | None, axis: int | None, schema: Any) -> Any:
    """The tensor that is stored for another one."""
    kept = schema.TensorT()
    kept.name, kept.shape, kept.buffer = bytes(tensor.name) + b"_stored", tensor.shape, buffer
    kept.type = schema.TensorType.FLOAT16 if factors is None else schema.TensorType.INT8
    if factors is not None:
        kept.quantization = schema.QuantizationParametersT()
        kept.quantization.scale, kept.quantization.zeroPoint = factors, np.zeros(len(factors), np.int64)
        kept.quantization.quantizedDimension = axis
    return kept


def _kernels(model: Any, graph: Any, schema: Any) -> dict[int, int]:
    """The axis of the output channels, by the number of the tensor, in the order of computation."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name in _AXES}
    codes = [max(each.builtinCode, each.deprecatedBuiltinCode) for each in model.operatorCodes]
    return {
        int(operator.inputs[1]): _AXES[names[codes[operator.opcodeIndex]]]
        for operator in graph.operators
        if codes[operator.opcodeIndex] in names
    }


def _dequantize(model: Any, schema: Any) -> int:
    """The number of the operation that makes float32 of fewer bits."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # knows float16 and channels with factors of their own
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
