"""Keras's own `.keras` archive, with the metadata as one more member."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras
from ..model_metadata import ModelMetadata, encode_metadata
from .format import METADATA_FILE, Format, PredictFn, explain_load_errors, read_zip_metadata


class KerasFormat(Format):
    """Keras's archive. Keras ignores the member that holds the metadata."""

    name = "keras"
    suffix = ".keras"
    modules = ("keras",)
    runtime = "Keras"
    runs_code = False
    tolerance = 1e-4
    predict_code = """
import keras
predict = keras.saving.load_model(sys.argv[1]).predict_on_batch
"""

    def write(self, model: Any, path: Path, metadata: ModelMetadata, precision: str, calibration: np.ndarray | None) -> None:
        """See `Format.write`."""
        model.save(path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(METADATA_FILE, encode_metadata(metadata))

    def read_metadata(self, path: Path) -> ModelMetadata | None:
        """See `Format.read_metadata`."""
        return read_zip_metadata(path)

    def load(self, path: Path) -> PredictFn:
        """See `Format.load`. Keras's safe mode stays on, so that no foreign code runs."""
        keras = load_keras()
        with explain_load_errors(path):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        return lambda images: np.asarray(model.predict_on_batch(images))
