"""Store the constants of a LiteRT model in fewer bits; the runtime converts them to float32 when it loads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .quantization import MIN_KERNEL_SIZE, compute_float16_threshold, quantize

CompactTensor = tuple[np.ndarray, np.ndarray | None]  # what is stored, and the scales (channels,) to multiply it by
_OUTPUT_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0}  # of the output channels in a kernel


def to_float16(flatbuffer: bytes) -> bytes:
    """The model with its large constants in float16, see `quantization.compute_float16_threshold`."""

    def compact_to_float16(values: np.ndarray, _axis: int | None, min_size: int) -> CompactTensor | None:
        if values.size < min_size or np.abs(values).max() > np.finfo(np.float16).max:
            return None
        return values.astype(np.float16), None

    return _store_compact(flatbuffer, compact_to_float16, n_exact_kernels=0)


def to_int8_weights(flatbuffer: bytes, n_exact_kernels: int) -> bytes:
    """The model with its large kernels, except the last `n_exact_kernels` and depthwise ones, in eight bits."""

    def compact_to_int8(values: np.ndarray, axis: int | None, _min_size: int) -> CompactTensor | None:
        if axis is None or values.size < MIN_KERNEL_SIZE:
            return None
        levels, scales = quantize(values, [dimension for dimension in range(values.ndim) if dimension != axis])
        return levels, scales.ravel()

    return _store_compact(flatbuffer, compact_to_int8, n_exact_kernels)


def _store_compact(
    flatbuffer: bytes, compact: Callable[[np.ndarray, int | None, int], CompactTensor | None], n_exact_kernels: int
) -> bytes:
    """Store constants in fewer bits.

    Parameters
    ----------
    flatbuffer : bytes
        The model in float32.
    compact : callable
        From the values of a constant, the axis of the output channels if it is a kernel, and the threshold for float16, to
        what is stored in its place; None to keep it.
    n_exact_kernels : int
        How many kernels, the last ones of the model, are kept.

    Returns
    -------
    bytes
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(flatbuffer))
    (graph,) = model.subgraphs
    axes = _find_kernel_axes(model, graph, schema)
    exact_tensors = set(list(axes)[len(axes) - n_exact_kernels :]) if n_exact_kernels else set()
    dequantize_code = _add_dequantize(model, schema)
    operators = []
    constants = {
        number: np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)
        for number, tensor in enumerate(graph.tensors)
        if tensor.type == schema.TensorType.FLOAT32 and model.buffers[tensor.buffer].data is not None
    }
    min_size = compute_float16_threshold(values.size for values in constants.values())
    for number, values in constants.items():
        tensor = graph.tensors[number]
        compact_tensor = None if number in exact_tensors else compact(values, axes.get(number), min_size)
        if compact_tensor is None:
            continue
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.frombuffer(compact_tensor[0].tobytes(), np.uint8)
        stored_tensor = _build_stored_tensor(tensor, len(model.buffers) - 1, compact_tensor[1], axes.get(number), schema)
        tensor.buffer = 0  # the empty one: computed now
        graph.tensors.append(stored_tensor)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = dequantize_code, [len(graph.tensors) - 1], [number]
        operators.append(operator)
    graph.operators = operators + graph.operators
    used_buffers = {tensor.buffer for tensor in graph.tensors} | {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used_buffers:
            buffer.data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _build_stored_tensor(tensor: Any, buffer: int, scales: np.ndarray | None, axis: int | None, schema: Any) -> Any:
    """The tensor that is stored in the place of another one."""
    stored_tensor = schema.TensorT()
    stored_tensor.name, stored_tensor.shape, stored_tensor.buffer = bytes(tensor.name) + b"_stored", tensor.shape, buffer
    stored_tensor.type = schema.TensorType.FLOAT16 if scales is None else schema.TensorType.INT8
    if scales is not None:
        stored_tensor.quantization = schema.QuantizationParametersT()
        stored_tensor.quantization.scale, stored_tensor.quantization.zeroPoint = scales, np.zeros(len(scales), np.int64)
        stored_tensor.quantization.quantizedDimension = axis
    return stored_tensor


def _find_kernel_axes(model: Any, graph: Any, schema: Any) -> dict[int, int]:
    """The axis of the output channels of each kernel, by tensor number, in the order of computation."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name in _OUTPUT_AXES}
    codes = [max(operator_code.builtinCode, operator_code.deprecatedBuiltinCode) for operator_code in model.operatorCodes]
    return {
        int(operator.inputs[1]): _OUTPUT_AXES[names[codes[operator.opcodeIndex]]]
        for operator in graph.operators
        if codes[operator.opcodeIndex] in names
    }


def _add_dequantize(model: Any, schema: Any) -> int:
    """Add the operator that converts to float32; returns its number."""
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = operator_code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    operator_code.version = 3  # the first with float16 and a scale for each channel
    model.operatorCodes.append(operator_code)
    return len(model.operatorCodes) - 1
