"""Diagnose the environment: versions, devices, weights and the cache."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from ..cache.atomic_files import get_free_bytes
from ..cache.errors import HumerisError
from ..cache.store import Store
from .backbones import precision, weights
from .backbones.keras_runtime import load_keras
from .pixels import decode, read_file

_PACKAGES = ("humeris", "keras", "tensorflow", "h5py", "numpy", "scikit-learn", "joblib", "typer", "pillow")


def examine(cache: Path | None = None) -> dict[str, Any]:
    """Return the versions, cores and devices, the precisions, the downloaded weights and the state of the cache.

    Parameters
    ----------
    cache : Path or None
        The cache folder; the default one if None.

    Returns
    -------
    dict
        JSON values, which `humeris doctor` prints.
    """
    keras = load_keras()
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "pixels": decode.get_version(),
        "backend": keras.backend.backend(),
        "cores": read_file.count_cores(),
        "devices": keras.distribution.list_devices(),
        "precision": {"default": "float32", "auto": precision.choose("auto")},
        "keras_home": str(weights.get_keras_home()),
        "weights_at_hand": [name for name, _, _ in weights.list_downloads()],
        "cache": _describe_cache(cache),
    }


def _describe_cache(path: Path | None) -> dict[str, Any]:
    try:
        store = Store(path)
    except HumerisError as error:
        return {"problem": str(error)}
    extractions = list(store.iter_extractions())
    writable = os.access(store.path, os.W_OK) if store.path.exists() else True
    return {
        "path": str(store.path),
        "writable": writable,
        "extractions": len(extractions),
        "damaged": [damage.to_dict() for damage in store.corrupt_files],
        "bytes_free": get_free_bytes(store.path),
    }
