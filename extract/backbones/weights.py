"""Getting weights into a network, and the digest that says which they are."""

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
    """Where Keras keeps downloaded weights: `$KERAS_HOME`, or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def list_downloads() -> list[tuple[str, int, int]]:
    """(name, size, mtime in ns) of the weights files that Keras has downloaded."""
    folder = get_keras_home() / "models"
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else []
    return [
        (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in entries
        if entry.is_file() and entry.name.endswith((".h5", ".keras", ".npz"))
    ]


@contextlib.contextmanager
def explain_download_errors(backbone: str) -> Iterator[None]:
    """Say which weights file is missing, and where to put it, when Keras cannot download it.

    Keras's progress bar goes to a terminal only.

    Parameters
    ----------
    backbone : str
        Its name, for the message.

    Raises
    ------
    WeightsError
        In place of the exception that Keras raises for a failed download.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    except Exception as error:  # Keras raises a bare Exception for a failed download
        match = re.search(r"URL fetch failure on (\S+?):? ", str(error))
        if match is None:
            raise
        url = match[1].rstrip(":")
        raise WeightsError(
            f"backbone {backbone}: the weights file {url.rsplit('/', 1)[-1]} is not on this machine and cannot be "
            f"downloaded; fetch {url} elsewhere and put it into {get_keras_home() / 'models'}, or use --weights random"
        ) from error


@contextlib.contextmanager
def forbid_skipped_layers() -> Iterator[None]:
    """Raise `UserWarning` where Keras would only warn that layers keep the random weights they began with."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Skipping nested container", UserWarning)
        yield


def load(model: Any, path: Path) -> None:
    """Load a weights file into a model.

    Parameters
    ----------
    model : keras.Model
        Changed in place.
    path : pathlib.Path
        A `.weights.h5` file, or `.h5` in Keras's older layout.

    Raises
    ------
    WeightsError
        Where there is no such file, it is damaged, or it is of another network.
    """
    if not path.is_file():
        raise WeightsError(f"weights {path}: expected imagenet, random or a weights file, found no file there")
    try:
        with forbid_skipped_layers():
            model.load_weights(path)
    except Exception as error:  # a file of the user's: Keras raises almost anything on a damaged or foreign one
        raise WeightsError(
            f"weights {path}: expected weights of {model.name}, found other ones: {format_error(error, 200)}"
        ) from error


def compute_digest(model: Any) -> str:
    """SHA-256, in hexadecimal, of the shapes, dtypes and values of a Keras model's weights, in their order."""
    hasher = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight))
        hasher.update(json.dumps([list(value.shape), str(value.dtype)]).encode())
        hasher.update(value.tobytes())
    return hasher.hexdigest()


def compute_file_digest(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
