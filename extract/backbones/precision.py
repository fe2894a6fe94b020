"""The floating-point precision of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import device
from .keras_runtime import load_keras

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_SCALING = {
    "Rescaling",
    "Normalization",
    "Resizing",
}  # of pixels: in bfloat16 the result would lose some of their eight bits


def choose(precision: str) -> str:
    """Choose the precision to compute in.

    Parameters
    ----------
    precision : str
        One of `PRECISIONS`. With `auto`, a GPU uses bfloat16 from compute capability 8.0 and float16 from 7.0, and a CPU
        uses bfloat16 if it has instructions for it; otherwise float32 is used.

    Returns
    -------
    str
        `float32`, `bfloat16` or `float16`.
    """
    if precision != "auto":
        return precision
    if device.list_gpus(load_keras()):
        capability = device.get_compute_capability()
        return "bfloat16" if capability >= 8 else "float16" if capability >= 7 else "float32"
    return "bfloat16" if has_bfloat16_instructions() else "float32"


def apply(model: Any, precision: str) -> None:
    """Make every layer of `model` compute in `precision`; the weights stay in float32."""
    if precision == "float32":
        return
    policy = load_keras().dtype_policies.get(f"mixed_{precision}")
    for layer in model._flatten_layers():
        if layer is not model and type(layer).__name__ not in _SCALING:
            layer.dtype_policy = policy


def list_key_parts(precision: str) -> list[str]:
    """Return what the result of `choose` depends on, without importing Keras; part of the key of cached metadata."""
    if precision != "auto":
        return [precision]
    gpus = device.format_visible_gpus()
    return [precision, gpus, str(device.get_compute_capability()) if gpus else "", str(has_bfloat16_instructions())]


def has_bfloat16_instructions() -> bool:
    """Return whether the CPU reports instructions for bfloat16 (x86 and Arm on Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16", "bf16"))
