"""In what floating point a network computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import device
from .keras_runtime import load_keras

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_SCALING = {"Rescaling", "Normalization", "Resizing"}  # on pixels, where bfloat16 would lose some of the eight bits


def choose(precision: str) -> str:
    """The precision to compute in.

    Parameters
    ----------
    precision : str
        One of `PRECISIONS`. For `auto`, a GPU computes in bfloat16 from compute capability 8.0 on and in float16 from 7.0
        on, a processor in bfloat16 if it has instructions for it.

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
    """Let every layer of `model` compute in `precision`, its weights staying in float32."""
    if precision == "float32":
        return
    policy = load_keras().dtype_policies.get(f"mixed_{precision}")
    for layer in model._flatten_layers():
        if layer is not model and type(layer).__name__ not in _SCALING:
            layer.dtype_policy = policy


def list_key_parts(precision: str) -> list[str]:
    """What decides the answer of `choose`, found out without Keras: part of the key of a backbone's metadata."""
    if precision != "auto":
        return [precision]
    gpus = device.format_visible_gpus()
    return [precision, gpus, str(device.get_compute_capability()) if gpus else "", str(has_bfloat16_instructions())]


def has_bfloat16_instructions() -> bool:
    """Whether the processor says that it has instructions for bfloat16 (x86 and Arm under Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16", "bf16"))
