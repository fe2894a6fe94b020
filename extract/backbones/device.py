"""Choose the device: it is set by limiting what this process can see, before Keras is imported."""

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
_visible_gpu = ("", "")  # the GPU that was requested last, and the value of CUDA_VISIBLE_DEVICES since


def parse(texts: list[str]) -> list[str]:
    """Parse the names of devices.

    Parameters
    ----------
    texts : list of str
        `auto`, `cpu`, `gpu` (every GPU), `gpu:1`, or several separated by commas.

    Returns
    -------
    list of str
        Single devices; `["auto"]` for no text.

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
            raise DeviceError(f"unknown device {name!r}; give auto, cpu, gpu or gpu:N (`humeris doctor` lists the devices)")
    all_gpus = [f"gpu:{index}" for index in range(len(_list_visible_gpus()))] or ["gpu"]
    return [device for name in names for device in (all_gpus if name == "gpu" else [name])] or ["auto"]


def choose(texts: Sequence[str]) -> list[str]:
    """Return the devices to start worker processes for; [] for a single device, which this process then uses itself."""
    devices = parse(list(texts) or ["auto"])
    if len(devices) > 1:
        return devices
    use(devices[0])
    return []


def use(name: str) -> None:
    """Limit Keras to one device, `cpu`, `gpu` or `gpu:N`; with `auto` Keras chooses. Raises `DeviceError`."""
    global _requested, _visible_gpu
    _requested = name
    if name == "auto" or _visible_gpu == (name, os.environ.get("CUDA_VISIBLE_DEVICES")):  # GPU numbers have changed since
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
                f"device {name}: no such GPU (the driver and CUDA_VISIBLE_DEVICES show {len(gpus)}); "
                "`humeris doctor` lists the devices"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[index]
        _visible_gpu = (name, gpus[index])


def check(keras: Any) -> None:
    """Raise `DeviceError` unless the imported Keras computes on the device given to `use`."""
    gpus = list_gpus(keras)
    if _requested.startswith("gpu") and not gpus:
        raise DeviceError(
            f"device {_requested}: Keras does not find a GPU; install the libraries it needs with "
            "`pip install 'humeris[gpu]'`, or leave --device out"
        )
    if _requested == "cpu" and gpus:
        raise DeviceError("device cpu: Keras is already imported and uses a GPU; choose the device before importing Keras")


def list_gpus(keras: Any) -> list[str]:
    """Return the names of the GPUs that Keras uses. All devices are listed: some backends raise if asked for GPUs only."""
    return [name for name in keras.distribution.list_devices() if name.startswith(("gpu", "cuda"))]


def format_visible_gpus() -> str:
    """Return the GPUs that this process can use, joined by commas."""
    return ",".join(_list_visible_gpus())


def get_compute_capability() -> float:
    """Return the CUDA compute capability of the first GPU that this process can use, such as 8.0; 0 if unknown."""
    program = shutil.which("nvidia-smi") or "nvidia-smi"
    command = [program, "--query-gpu=compute_cap", "--format=csv,noheader", f"--id={(_list_visible_gpus() or ['0'])[0]}"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return 0.0


def _list_visible_gpus() -> list[str]:
    """Return the GPUs as CUDA_VISIBLE_DEVICES names them: those in it, or all GPUs of the driver if it is not set."""
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible_devices is not None:
        return [name.strip() for name in visible_devices.split(",") if name.strip() not in {"", "-1"}]
    return [str(index) for index in range(len(list(_PROC.iterdir())) if _PROC.is_dir() else 0)]
