"""Learning-rate schedules."""

from __future__ import annotations

import numpy as np

SCHEDULES = ("constant", "cosine", "one_cycle")


def compute_factors(schedule: str, steps: int) -> np.ndarray:
    """Compute the factor of the learning rate at each step.

    Parameters
    ----------
    schedule
        ``constant``; ``cosine``: half a period from 1 to 0, Keras's `CosineDecay` (Loshchilov and Hutter, 2017, without
        restarts); or ``one_cycle``: linearly from 1/10 to 1 over 45 % of the steps, back over the next 45 %, and down to
        1/1000 over the rest, with constant momentum (Smith, 2018, arXiv:1803.09820 and arXiv:1708.07120).
    steps
        Number of steps.

    Returns
    -------
    ndarray of shape (steps,), float64
        At most 1.
    """
    progress = np.arange(steps) / steps
    if schedule == "cosine":
        return np.asarray((1 + np.cos(np.pi * progress)) / 2)
    if schedule == "one_cycle":
        return np.interp(progress, [0, 0.45, 0.9, 1], [0.1, 1, 0.1, 0.001])
    return np.ones(steps)
