"""How the learning rate goes from the first step to the last."""

from __future__ import annotations

import numpy as np

SCHEDULES = ("constant", "cosine", "one_cycle")


def compute_factors(schedule: str, steps: int) -> np.ndarray:
    """What the learning rate is multiplied by at each step, (steps,) float64; at most 1.

    cosine: half a period from 1 to 0 (Loshchilov and Hutter, 2017, without restarts), Keras's `CosineDecay`.
    one_cycle: from 1/10 straight up to 1 over 45 % of the steps, straight back over the next 45 %, and on down to 1/1000
    over the rest (Smith, 2018, arXiv:1803.09820 and arXiv:1708.07120). Momentum stays as it is.
    """
    progress = np.arange(steps) / steps
    if schedule == "cosine":
        return np.asarray((1 + np.cos(np.pi * progress)) / 2)
    if schedule == "one_cycle":
        return np.interp(progress, [0, 0.45, 0.9, 1], [0.1, 1, 0.1, 0.001])
    return np.ones(steps)
