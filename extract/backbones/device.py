"""Which device computes: chosen before Keras is imported, by what this process is allowed to see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...cache.errors import DeviceError

_PROC = Path("/proc/driver/nvidia/gpus")
_requested = "auto"
_visible_gpu = ("", "")  # what was asked for last, and what CUDA_VISIBLE_DEVICES is since


def parse(texts: list[str]) -> list[str]:
    """The devices that texts name.

    Parameters
    ----------
    texts : list of str
        `auto`, `cpu`, `gpu` (every GPU there is), `gpu:1`, or several with commas between them.

    Returns
    -------
    list of str
        Single devices, `["auto"]` for no text.

    Raises
    ------
    DeviceError
        For any other text.

    Examples
    --------
    >>> parse(["gpu:0,gpu:1", "cpu"])
    ['gpu:0', 'gpu:1', 'cpu']
    """
    names = [name.strip().lower() for text in texts for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"auto|cpu|gpu(:\d+)?", name):
            raise DeviceError(f"device {name!r}: expected auto, cpu, gpu or gpu:N; `humeris doctor` lists what there is")
    all_gpus = [f"gpu:{index}" for index in range(len(_list_visible_gpus()))] or ["gpu"]
    return [device for name in names for device in (all_gpus if name == "gpu" else [name])] or ["auto"]


def choose(texts: Sequence[str]) -> list[str]:
    """The devices that each get a worker, where several are asked for; else [], and this process is to `use` the one."""
    devices = parse(list(texts) or ["auto"])
    if len(devices) > 1:
        return devices
    use(devices[0])
    return []


def use(name: str) -> None:
    """Let Keras see one device only, `cpu`, `gpu` or `gpu:N`; with `auto` it decides itself. Raises `DeviceError`."""
    global _requested, _visible_gpu
    _requested = name
    if name == "auto" or _visible_gpu == (name, os.environ.get("CUDA_VISIBLE_DEVICES")):  # numbers are counted anew then
        return
    if "keras" in sys.modules:
        check(sys.modules["keras"])
    elif name == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        gpus, index = _list_visible_gpus(), int(name.partition(":")[2] or 0)
        if index >= len(gpus):
            raise DeviceError(
                f"device {name}: expected one of {len(gpus)} GPUs that the driver shows and CUDA_VISIBLE_DEVICES allows, "
                "found no such; `humeris doctor` lists what there is"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index]
        _visible_gpu = (name, gpus[index])


def check(keras: Any) -> None:
    """Raise `DeviceError` unless Keras, now imported, computes on the device that `use` named."""
    gpus = list_gpus(keras)
    if _requested.startswith("gpu") and not gpus:
        raise DeviceError(
            f"device {_requested}: expected Keras to find a GPU, found none; install the libraries it needs with "
            "`pip install 'humeris[gpu]'`, or leave --device out"
        )
    if _requested == "cpu" and gpus:
        raise DeviceError("device cpu: expected to choose before Keras is imported, found it imported with a GPU")


def list_gpus(keras: Any) -> list[str]:
    """Names of the GPUs that the imported `keras` computes on; asked for by kind, some back ends raise without one."""
    return [name for name in keras.distribution.list_devices() if name.startswith(("gpu", "cuda"))]


def format_visible_gpus() -> str:
    """The GPUs this process may use, as text."""
    return ",".join(_list_visible_gpus())


def get_compute_capability() -> float:
    """CUDA compute capability of the first GPU that this process may use, such as 8.0; 0 where it cannot be read."""
    program = shutil.which("nvidia-smi") or "nvidia-smi"
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader", f"--id={(_list_visible_gpus() or ['0'])[0]}"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return 0.0


def _list_visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs: those it names, or all that the driver shows."""
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible_devices is not None:
        return [name.strip() for name in visible_devices.split(",") if name.strip() not in {"", "-1"}]
    return [str(index) for index in range(len(list(_PROC.iterdir())) if _PROC.is_dir() else 0)]
