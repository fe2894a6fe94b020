"""Predictions of a run's winner for the test images, read from `predictions.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import RunError
from .csv_table import read_csv


@dataclass(frozen=True)
class Prediction:
    """Prediction for a test image: name as in `ImageRecord`, true class, predicted class, its probability."""

    name: str
    label: str
    predicted: str
    probability: float


def read_predictions(path: Path) -> list[Prediction]:
    """Return the rows of a `predictions.csv`, in order of name; raises `RunError`."""
    try:
        return [Prediction(row["path"], row["label"], row["predicted"], float(row["probability"])) for row in read_csv(path)]
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"{path}: cannot read the run's table of predictions: {error}; sweep again into another folder with -o"
        ) from error
