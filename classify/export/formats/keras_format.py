"""Keras's own `.keras` archive, with the description as a member that Keras passes over."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....cache.errors import ModelError
from ....extract.backbones.keras_runtime import load_keras
from .format import DESCRIPTION_FILE, Format, PredictFn, encode_description, read_zip_description, to_one_line

_PREDICT_CODE = """
import keras
model = keras.saving.load_model(sys.argv[1])
answer = model.predict_on_batch
"""


def write(model: Any, path: Path, description: Mapping[str, Any], precision: str, calibration: np.ndarray | None) -> None:
    """Write the model; see `format.Write`."""
    model.save(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(DESCRIPTION_FILE, encode_description(description))


def load(path: Path) -> PredictFn:
    """The model's function. Keras's safe mode stays on, so that no foreign code runs; raises `ModelError`."""
    keras = load_keras()
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a file from anywhere: Keras raises almost anything on a damaged one
        raise ModelError(f"{path}: cannot be loaded: {to_one_line(error)}") from error
    return lambda images: np.asarray(model.predict_on_batch(images))


FORMAT = Format(
    "keras", ".keras", ("float32",), ("keras",), "", write, read_zip_description, load, _PREDICT_CODE, False, "Keras",
    tolerance=1e-4,
)  # fmt: skip
