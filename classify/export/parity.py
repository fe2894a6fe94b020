"""Does an exported model answer as the cache did? Asked in a fresh process that has the runtime and nothing of ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import ParityError
from .formats.format import Format

TOLERANCE, TOLERANCE_HALF = 1e-4, 1e-3  # for features cached in float32, and in float16
TOLERANCE_FLOAT16 = 1e-2  # for weights rounded to float16, which alone moves a probability by some 0.005
TIE_MARGIN = 1e-4
COSINE_TOLERANCE = 1e-2  # of the bound: how far the cosines of neighbours may lie from the cached ones
MIN_AGREEMENT = 0.98  # of the classes, for weights in eight bits
_REMEDY = "nothing was written; export another trial of leaderboard.csv with --trial ID"
_SCRIPT = """
import sys, time, numpy
{answer}
images = numpy.load(sys.argv[2])
answers = [numpy.asarray(answer(images[i:i + 16])) for i in range(0, len(images), 16)]
for _ in range(3):
    answer(images[:1])
seconds, until = [], time.perf_counter() + 1
while len(seconds) < 5 or (len(seconds) < 50 and time.perf_counter() < until):
    start = time.perf_counter()
    numpy.asarray(answer(images[:1]))
    seconds.append(time.perf_counter() - start)
numpy.savez(sys.argv[3], answers=numpy.concatenate(answers), milliseconds=1000 * numpy.median(seconds))
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


def predict_in_subprocess(model_format: Format, model: Path, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities (n, classes) of images (n, height, width, 3) uint8, and the milliseconds that one image takes.

    Computed from the file alone, in a fresh Python with the format's own runtime; the time is the median of repeated calls.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "answers.npz")
        np.save(inputs, images, allow_pickle=False)
        code = _SCRIPT.format(answer=model_format.predict_code)
        command = [sys.executable, "-c", code, str(model.absolute()), str(inputs), str(outputs)]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder, check=False)
        if process.returncode:
            last_line = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            raise ParityError(
                f"{model}: expected a file that {model_format.runtime} loads and runs by itself, found: {last_line}; "
                f"{_REMEDY}"
            )
        with np.load(outputs, allow_pickle=False) as arrays:
            return np.asarray(arrays["answers"]), float(arrays["milliseconds"])


def compare_classes(cached: np.ndarray, exported: np.ndarray) -> Parity:
    """How the answers (n, classes) of a model in eight bits agree; raises `ParityError` where too few classes are equal.

    At least `AGREEMENT` of the classes must be, however close the first two are; probabilities may differ by any amount.
    """
    _check_predictions(cached, exported)
    equal = int((cached.argmax(axis=1) == exported.argmax(axis=1)).sum())
    if not np.isfinite(cached).all() or equal < MIN_AGREEMENT * len(cached):
        raise ParityError(
            f"the exported model in int8 disagrees with the cached features: expected equal classes on {MIN_AGREEMENT:.0%} "
            f"of {len(cached)} images, found {equal / len(cached):.1%}; nothing was written; use float16 or float32"
        )
    return Parity(len(cached), equal, float(np.abs(cached - exported).max()))


def _check_predictions(cached: np.ndarray, exported: np.ndarray) -> None:
    if cached.shape != exported.shape:
        raise ParityError(f"expected answers of shape {cached.shape}, found {exported.shape}; {_REMEDY}")
    if not np.isfinite(exported).all() or (len(cached) > 1 and np.ptp(exported, axis=0).max() < 1e-6):
        raise ParityError(f"the exported model gives the same answer, or none, for every image; {_REMEDY}")


def compare(
    cached: np.ndarray, exported: np.ndarray, tolerance: float = TOLERANCE, ties: np.ndarray | None = None
) -> Parity:
    """How two sets of probabilities (n, classes) agree; raises `ParityError` beyond `bound`.

    Answers that do not vary between images are refused as well: two broken models may agree on a constant. Where the cached
    probabilities of two classes are closer than `TIE`, either may come first. Images of the mask `ties` (n,) may differ by
    any amount and are then counted; where all of them do, nothing was compared, which is refused too.
    """
    _check_predictions(cached, exported)
    cached_classes, exported_classes = cached.argmax(axis=1), exported.argmax(axis=1)
    margin = cached.max(axis=1) - cached[np.arange(len(cached)), exported_classes]
    differences, is_other_class = (
        np.abs(cached - exported).max(axis=1),
        (cached_classes != exported_classes) & (margin > TIE_MARGIN),
    )
    is_off = ~(differences <= tolerance) | is_other_class  # the difference of NaN is NaN
    excused = is_off & ties if ties is not None else np.zeros_like(is_off)
    if excused.all():
        raise ParityError(
            f"the exported model differs from the cached features on all {len(cached)} images, found neighbours of several "
            f"classes that are equally near in each, so that nothing can be compared; {_REMEDY}"
        )
    is_compared = ~excused
    difference = float(differences[is_compared].max())
    if is_off[is_compared].any():
        raise ParityError(
            f"the exported model disagrees with the cached features on {len(cached)} images: expected equal classes and "
            f"probabilities within {tolerance:g}, found {int(is_other_class[is_compared].sum())} other classes and a "
            f"difference of {difference:.2g}; {_REMEDY}"
        )
    return Parity(len(cached), int((cached_classes == exported_classes)[is_compared].sum()), difference, int(excused.sum()))
