"""Predictions of an exported model in a fresh process, and their comparison with those from the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import ParityError
from ..evaluate.target import Target
from .formats.format import Format

TOLERANCE = 1e-4
TIE_MARGIN = 1e-4  # classes whose cached probabilities are closer than this may change order
COSINE_TOLERANCE = 1e-2  # as a factor of the tolerance: how far cosines of neighbors may differ
MIN_AGREEMENT = 0.98  # proportion of images with the same class that int8 models must reach
_REMEDY = "nothing was written; export another trial of leaderboard.csv with --trial ID"
_SCRIPT = """
import sys, time, numpy
{predict_code}
images = numpy.load(sys.argv[2])
predictions = [numpy.asarray(predict(images[i:i + 16])) for i in range(0, len(images), 16)]
for _ in range(3):
    predict(images[:1])
seconds, until = [], time.perf_counter() + 1
while len(seconds) < 5 or (len(seconds) < 50 and time.perf_counter() < until):
    start = time.perf_counter()
    numpy.asarray(predict(images[:1]))
    seconds.append(time.perf_counter() - start)
numpy.savez(sys.argv[3], predictions=numpy.concatenate(predictions), milliseconds=1000 * numpy.median(seconds))
"""


@dataclass(frozen=True)
class Parity:
    """Agreement of an exported model with the cache.

    Parameters
    ----------
    images : int
        Number of images compared.
    top1_agree : int
        Number of images on which the most probable class is the same.
    max_difference : float
        Largest absolute difference of a probability.
    ties : int
        Number of images on which the model differs because neighbors of several classes are equally near up to rounding,
        so that either prediction is valid. They count neither in `top1_agree` nor in `max_difference`.
    """

    images: int
    top1_agree: int
    max_difference: float
    ties: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def predict_in_subprocess(model_format: Format, model: Path, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Run a model in a fresh Python process that imports only the format's runtime, not humeris.

    Parameters
    ----------
    model_format : Format
        The format of the model.
    model : Path
        The model.
    images : ndarray
        (n, height, width, 3) uint8.

    Returns
    -------
    probabilities : ndarray
        (n, classes).
    milliseconds : float
        Median inference time of one image.

    Raises
    ------
    ParityError
        If the runtime cannot load or run the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "predictions.npz")
        np.save(inputs, images, allow_pickle=False)
        code = _SCRIPT.format(predict_code=model_format.predict_code)
        command = [sys.executable, "-c", code, str(model.absolute()), str(inputs), str(outputs)]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder, check=False)
        if process.returncode:
            last_line = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            raise ParityError(
                f"{model}: {model_format.runtime} cannot load or run the model in a fresh process: {last_line}; {_REMEDY}"
            )
        with np.load(outputs, allow_pickle=False) as arrays:
            return np.asarray(arrays["predictions"]), float(arrays["milliseconds"])


def compare_classes(target: Target, cached: np.ndarray, exported: np.ndarray) -> Parity:
    """Compare the most probable classes; probabilities may differ by any amount.

    Parameters
    ----------
    target : Target
        The kind of label.
    cached, exported : ndarray
        Probabilities (n, classes).

    Returns
    -------
    Parity

    Raises
    ------
    ParityError
        If the class is the same on fewer than `MIN_AGREEMENT` of the images, however close the two most probable classes
        are; or if the probabilities of the model are not finite or do not vary between images.
    """
    _check_predictions(cached, exported)
    equal = int((~target.find_disagreements(cached, exported)).sum())
    if not np.isfinite(cached).all() or equal < MIN_AGREEMENT * len(cached):
        raise ParityError(
            f"the exported int8 model disagrees with the cached features: it predicts the same class on "
            f"{equal / len(cached):.1%} of {len(cached)} images (required: {MIN_AGREEMENT:.0%}); "
            "nothing was written; use --precision float16 or float32"
        )
    return Parity(len(cached), equal, float(np.abs(cached - exported).max()))


def _check_predictions(cached: np.ndarray, exported: np.ndarray) -> None:
    if cached.shape != exported.shape:
        raise ParityError(
            f"the exported model returned probabilities of shape {exported.shape}, not {cached.shape}; {_REMEDY}"
        )
    if not np.isfinite(exported).all() or (len(cached) > 1 and np.ptp(exported, axis=0).max() < 1e-6):
        raise ParityError(f"the exported model's probabilities are not finite, or equal for all images; {_REMEDY}")


def compare(
    target: Target,
    cached: np.ndarray,
    exported: np.ndarray,
    tolerance: float = TOLERANCE,
    ties: np.ndarray | None = None,
) -> Parity:
    """Compare probabilities and the most probable classes.

    Parameters
    ----------
    target : Target
        The kind of label.
    cached, exported : ndarray
        Probabilities (n, classes). If two cached ones are closer than `TIE_MARGIN`, either class may come first.
    tolerance : float
        Largest allowed absolute difference of a probability.
    ties : ndarray, optional
        Mask (n,) of images whose predictions may differ by any amount; those that do are counted.

    Returns
    -------
    Parity

    Raises
    ------
    ParityError
        If they do not agree; if the probabilities of the model are not finite or do not vary between images, since two
        broken models may agree on a constant; or if all images are ties that differ, so that nothing was compared.
    """
    _check_predictions(cached, exported)
    differences = np.abs(cached - exported).max(axis=1)
    is_other_class = target.find_disagreements(cached, exported, TIE_MARGIN)
    is_off = ~(differences <= tolerance) | is_other_class  # the difference of NaN is NaN
    excused = is_off & ties if ties is not None else np.zeros_like(is_off)
    if excused.all():
        raise ParityError(
            f"the exported model cannot be compared with the cached features: on all {len(cached)} images they differ and "
            f"neighbors of several classes are equally near; {_REMEDY}"
        )
    is_compared = ~excused
    difference = float(differences[is_compared].max())
    if is_off[is_compared].any():
        raise ParityError(
            f"the exported model disagrees with the cached features: the class differs on "
            f"{int(is_other_class[is_compared].sum())} of {len(cached)} images, and probabilities by up to "
            f"{difference:.2g} (tolerance {tolerance:g}); {_REMEDY}"
        )
    return Parity(
        len(cached),
        int((~target.find_disagreements(cached, exported))[is_compared].sum()),
        difference,
        int(excused.sum()),
    )
