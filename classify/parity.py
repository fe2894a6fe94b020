"""Does an exported model answer as the cache did? Asked in a fresh process that has Keras and nothing of ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.errors import ParityError

BOUND, BOUND_HALF = 1e-4, 1e-3  # for features cached in float32, and in float16
TIE = 1e-4
ROUNDING = 1e-2  # of the bound: how far the cosines of neighbours may lie from the cached ones
_NEXT = "nothing was written; export another trial of leaderboard.csv with --trial ID"
_ANSWER = """
import sys, numpy, keras
model = keras.saving.load_model(sys.argv[1])
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], numpy.concatenate([model.predict_on_batch(images[i:i + 16]) for i in range(0, len(images), 16)]))
"""


@dataclass(frozen=True)
class Parity:
    """How far the model's probabilities lie from the cached ones, over so many images.

    ties: how many of them answer otherwise, because neighbours of several classes are equally near to rounding, so that
    either answer is right; they count neither in `top1_agree` nor in `max_difference`.
    """

    images: int
    top1_agree: int
    max_difference: float
    ties: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def keras_answers(model: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of images (n, height, width, 3) uint8, from the file, in a fresh Python with Keras."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "answers.npy")
        np.save(inputs, images, allow_pickle=False)
        command = [sys.executable, "-c", _ANSWER, str(model.absolute()), str(inputs), str(outputs)]
        process = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        if process.returncode:
            last = (process.stderr.strip().splitlines() or ["no message"])[-1]
            raise ParityError(f"{model}: expected a file that Keras loads and runs by itself, found: {last}; {_NEXT}")
        return np.asarray(np.load(outputs, allow_pickle=False))


def compare(cached: np.ndarray, exported: np.ndarray, bound: float = BOUND, ties: np.ndarray | None = None) -> Parity:
    """How two sets of probabilities (n, classes) agree; raises `ParityError` beyond `bound`.

    Answers that do not vary between images are refused as well: two broken models may agree on a constant. Where the cached
    probabilities of two classes are closer than `TIE`, either may come first. Images of the mask `ties` (n,) may differ by
    any amount and are then counted; where all of them do, nothing was compared, which is refused too.
    """
    if cached.shape != exported.shape:
        raise ParityError(f"expected answers of shape {cached.shape}, found {exported.shape}")
    if not np.isfinite(exported).all() or (len(cached) > 1 and np.ptp(exported, axis=0).max() < 1e-6):
        raise ParityError(f"the exported model gives the same answer, or none, for every image; {_NEXT}")
    first, other = cached.argmax(axis=1), exported.argmax(axis=1)
    lead = cached.max(axis=1) - cached[np.arange(len(cached)), other]
    differences, disagree = np.abs(cached - exported).max(axis=1), (first != other) & (lead > TIE)
    off = ~(differences <= bound) | disagree  # the difference of NaN is NaN
    excused = off & ties if ties is not None else np.zeros_like(off)
    if excused.all():
        raise ParityError(
            f"the exported model differs from the cached features on all {len(cached)} images, found neighbours of several "
            f"classes that are equally near in each, so that nothing can be compared; {_NEXT}"
        )
    kept = ~excused
    difference = float(differences[kept].max())
    if off[kept].any():
        raise ParityError(
            f"the exported model disagrees with the cached features on {len(cached)} images: expected equal classes and "
            f"probabilities within {bound:g}, found {int(disagree[kept].sum())} other classes and a difference of "
            f"{difference:.2g}; {_NEXT}"
        )
    return Parity(len(cached), int((first == other)[kept].sum()), difference, int(excused.sum()))
