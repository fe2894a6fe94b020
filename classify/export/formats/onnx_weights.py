"""Store the constants of an ONNX model in fewer bits, or let all of it compute in eight bits."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .quantization import MIN_KERNEL_SIZE, compute_float16_threshold, quantize

_KERNELS = ("Conv", "MatMul", "Gemm")


def to_float16(proto: Any) -> Any:
    """The model with its large constants in float16; it computes in float32 as before."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    tensors = [tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    min_size = compute_float16_threshold(math.prod(tensor.dims) for tensor in tensors)
    for tensor in tensors:
        values = numpy_helper.to_array(tensor)
        if values.size < min_size or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_stored"))
        casts.append(helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT))
    return _prepend_nodes(proto, casts)


def to_int8_weights(proto: Any, n_exact_kernels: int) -> Any:
    """The model with its large kernels, except the last `n_exact_kernels`, in eight bits; it computes in float32.

    Depthwise kernels, which are small and matter much, stay as they are.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    kernels = _find_kernels(proto)
    new_nodes = []
    for node in kernels[: len(kernels) - n_exact_kernels]:
        tensor = constants.pop(node.input[1], None)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        if values.size < MIN_KERNEL_SIZE or (node.op_type == "Conv" and values.shape[1] == 1):
            continue
        axes = range(1, values.ndim) if node.op_type == "Conv" or _is_transposed(node) else range(values.ndim - 1)
        levels, scales = quantize(values, axes)
        tensor.CopyFrom(numpy_helper.from_array(levels, f"{name}_stored"))
        proto.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_factors"))
        new_nodes.append(helper.make_node("Cast", [f"{name}_stored"], [f"{name}_levels"], to=TensorProto.FLOAT))
        new_nodes.append(helper.make_node("Mul", [f"{name}_levels", f"{name}_factors"], [name]))
    return _prepend_nodes(proto, new_nodes)


def to_int8_full(proto: Any, images: np.ndarray, n_exact_kernels: int) -> Any:
    """The model with everything but the head in eight bits.

    The ranges of activations are means over single images, so that one odd image does not make them coarse.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model in float32.
    images : ndarray
        (n, height, width, 3) uint8, to learn the ranges from.
    n_exact_kernels : int
        How many kernels the head has.

    Returns
    -------
    onnx.ModelProto
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class ImageReader(CalibrationDataReader):  # type: ignore[misc]
        """The images, one at a time."""

        def __init__(self) -> None:
            self.remaining = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.remaining, None)
            return None if image is None else {"image": image[None]}

    with tempfile.TemporaryDirectory() as folder:
        float_path, prepared_path, quantized_path = (
            Path(folder, name) for name in ("float.onnx", "prepared.onnx", "quantized.onnx")
        )
        onnx.save_model(proto, float_path)
        quant_pre_process(float_path, prepared_path, skip_symbolic_shape=True)
        quantize_static(
            prepared_path,
            quantized_path,
            ImageReader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_list_nodes_after_network(onnx.load_model(prepared_path), n_exact_kernels),
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load_model(quantized_path)


def _list_nodes_after_network(proto: Any, n_exact_kernels: int) -> list[str]:
    """The names of the nodes after the last kernel of the network, except activations that are fused with it."""
    kernels = _find_kernels(proto)
    names = [node.name for node in proto.graph.node]
    last_index = names.index(kernels[len(kernels) - n_exact_kernels - 1].name) if len(kernels) > n_exact_kernels else -1
    return [node.name for node in list(proto.graph.node)[last_index + 1 :] if node.op_type not in {"Clip", "Relu"}]


def _find_kernels(proto: Any) -> list[Any]:
    """The nodes that multiply by a constant kernel, in the order of computation."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [node for node in proto.graph.node if node.op_type in _KERNELS and node.input[1] in constants]


def _is_transposed(node: Any) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _prepend_nodes(proto: Any, nodes: list[Any]) -> Any:
    """Insert nodes before all others."""
    other_nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *other_nodes])
    return proto
