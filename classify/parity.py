"""Does an exported model answer as the cache did? Asked in a fresh process that has Keras and nothing of ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.errors import ParityError

BOUND, BOUND_HALF = 1e-4, 1e-3  # for features cached in float32, and in float16
TIE = 1e-4
_ANSWER = """
import sys, numpy, keras
model = keras.saving.load_model(sys.argv[1])
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], numpy.concatenate([model.predict_on_batch(images[i:i + 16]) for i in range(0, len(images), 16)]))
"""


@dataclass(frozen=True)
class Parity:
    """How far the model's probabilities lie from the cached ones, over so many images."""

    images: int
    top1_agree: int
    max_difference: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"images": self.images, "top1_agree": self.top1_agree, "max_difference": self.max_difference}


def keras_answers(model: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of images (n, height, width, 3) uint8, from the file, in a fresh Python with Keras."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "answers.npy")
        np.save(inputs, images, allow_pickle=False)
        command = [sys.executable, "-c", _ANSWER, str(model.absolute()), str(inputs), str(outputs)]
        process = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        if process.returncode:
            last = (process.stderr.strip().splitlines() or ["no message"])[-1]
            raise ParityError(f"{model}: expected a file that Keras loads and runs by itself, found: {last}")
        return np.asarray(np.load(outputs, allow_pickle=False))


def compare(cached: np.ndarray, exported: np.ndarray, bound: float = BOUND) -> Parity:
    """How two sets of probabilities (n, classes) agree; raises `ParityError` beyond `bound`.

    Answers that do not vary between images are refused as well: two broken models may agree on a constant. Where the cached
    probabilities of two classes are closer than `TIE`, either may come first.
    """
    if cached.shape != exported.shape:
        raise ParityError(f"expected answers of shape {cached.shape}, found {exported.shape}")
    difference = float(np.abs(cached - exported).max())
    if not np.isfinite(exported).all() or (len(cached) > 1 and np.ptp(exported, axis=0).max() < 1e-6):
        raise ParityError("the exported model gives the same answer, or none, for every image")
    first, other = cached.argmax(axis=1), exported.argmax(axis=1)
    lead = cached.max(axis=1) - cached[np.arange(len(cached)), other]
    disagree = int(((first != other) & (lead > TIE)).sum())
    if not difference <= bound or disagree:  # the difference of NaN is NaN
        raise ParityError(
            f"the exported model disagrees with the cached features on {len(cached)} images: expected equal classes and "
            f"probabilities within {bound:g}, found {disagree} other classes and a difference of {difference:.2g}; "
            "nothing was written"
        )
    return Parity(len(cached), int((first == other).sum()), difference)
