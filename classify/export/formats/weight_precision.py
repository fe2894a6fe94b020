"""The precisions that the weights of an exported model may have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightPrecision:
    """How weights are stored, and what that means for the check of an exported model.

    Parameters
    ----------
    name : str
        What ``--precision`` takes.
    min_tolerance : float
        How far rounding the weights alone may move a probability.
    compares_classes : bool
        Whether only the most probable classes are compared: probabilities move too far for anything else.
    needs_calibration : bool
        Whether ranges of activations are learned from images.
    n_parity_images : int
        How many images are compared, at most.
    """

    name: str
    min_tolerance: float = 0.0
    compares_classes: bool = False
    needs_calibration: bool = False
    n_parity_images: int = 64


FLOAT32 = WeightPrecision("float32")
FLOAT16 = WeightPrecision("float16", min_tolerance=1e-2)  # rounding alone moves a probability by some 0.005
INT8 = WeightPrecision("int8", compares_classes=True, needs_calibration=True, n_parity_images=256)
PRECISIONS = {precision.name: precision for precision in (FLOAT32, FLOAT16, INT8)}
