"""Load the weights of a network, and compute the digest that identifies them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import WeightsError
from ...cache.formatting import format_error


def get_keras_home() -> Path:
    """Return the folder in which Keras stores downloads: `$KERAS_HOME`, or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def list_downloads() -> list[tuple[str, int, int]]:
    """Return (name, size, mtime in ns) of the weights files that Keras has downloaded."""
    folder = get_keras_home() / "models"
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else []
    return [
        (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in entries
        if entry.is_file() and entry.name.endswith((".h5", ".keras", ".npz"))
    ]


@contextlib.contextmanager
def explain_download_errors(backbone: str) -> Iterator[None]:
    """Turn a failed download of Keras into an error that names the weights file and the folder to save it in.

    The progress bar of Keras is shown on a terminal only.

    Parameters
    ----------
    backbone : str
        The name of the backbone, for the message.

    Raises
    ------
    WeightsError
        If a download fails inside the context.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    except Exception as error:  # Keras raises Exception if a download fails
        match = re.search(r"URL fetch failure on (\S+?):? ", str(error))
        if match is None:
            raise
        url = match[1].rstrip(":")
        raise WeightsError(
            f"backbone {backbone}: weights file {url.rsplit('/', 1)[-1]} is missing and cannot be downloaded; "
            f"download {url} on another machine and save it in {get_keras_home() / 'models'}, or use --weights random"
        ) from error


@contextlib.contextmanager
def forbid_skipped_layers() -> Iterator[None]:
    """Raise `UserWarning` if Keras skips layers, which would keep their random weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Skipping nested container", UserWarning)
        yield


def load(model: Any, path: Path) -> None:
    """Load a weights file into a model.

    Parameters
    ----------
    model : keras.Model
        The model, which is changed in place.
    path : pathlib.Path
        A `.weights.h5` file, or `.h5` in Keras's older layout.

    Raises
    ------
    WeightsError
        If the file is missing, corrupt or of another network.
    """
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file; give a weights file, pretrained or random")
    try:
        with forbid_skipped_layers():
            model.load_weights(path)
    except Exception as error:  # Keras raises many types for a corrupt file or one of another network
        raise WeightsError(f"weights {path}: cannot be loaded into {model.name}: {format_error(error, 200)}") from error


def compute_digest(model: Any) -> str:
    """Return the hexadecimal SHA-256 of the shapes, dtypes and values of a Keras model's weights, in their order."""
    hasher = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight))
        hasher.update(json.dumps([list(value.shape), str(value.dtype)]).encode())
        hasher.update(value.tobytes())
    return hasher.hexdigest()


def compute_file_digest(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
