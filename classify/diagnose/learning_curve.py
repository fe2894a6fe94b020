"""How good a head is with how many images to learn from: where it starts, how fast it rises and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.feature_matrix import Matrix
from ..data.group_sampling import beginning, parts, stratified
from ..heads.registry import FAMILIES
from ..heads.training_data import Problem

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
DRAWS, DRAWS_OF_FEW, FEW = 3, 5, 1000  # of up to so many images
_HELD_OUT = 5  # one in so many
_RISE = 2  # doublings that the slope is taken over
_FITS = 0.9  # of the variance of the means, where a curve is one of the kind
_KNOWN = 0.1  # to either side, where an asymptote is told


@dataclass(frozen=True)
class Curve:
    """Accuracy (sizes, draws) on images held out, and how many images were learnt from (sizes, draws)."""

    images: np.ndarray
    accuracy: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """How many images were learnt from, the mean of the draws (sizes,)."""
        return np.asarray(self.images.mean(axis=1))

    @property
    def starts(self) -> np.ndarray:
        """Accuracy (draws,) with the fewest images."""
        return np.asarray(self.accuracy[0])

    @property
    def slopes(self) -> np.ndarray:
        """What the first doublings of the images gain in accuracy, each, (draws,); NaN of a curve of one size."""
        last = min(_RISE, len(self.accuracy) - 1)
        if last < 1:
            return np.full(self.accuracy.shape[1], np.nan)
        doublings = np.log2(self.images[last] / self.images[0])
        return np.asarray((self.accuracy[last] - self.accuracy[0]) / doublings)


@dataclass(frozen=True)
class Asymptote:
    """The accuracy that a curve comes to with ever more images, and how far off that may be to either side (95 %)."""

    accuracy: float
    margin: float


def curve(
    features: Matrix,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: int,
    head: str,
    setting: Mapping[str, Any],
    threads: int,
) -> Curve:
    """The curve of a head with one setting on rows (n, d) with class numbers (n,) and group numbers (n,).

    For each draw another fifth of the images is held out, and the head learns from 1/16, 1/8, 1/4, 1/2 and all of the
    rest: each of these is among the next, holds the classes as the whole does, one image of each at least, and no part of a
    group. Sizes with fewer than two images for a class are left out; where none is left the curve is empty. The head is
    one that trains without Keras. So many are trained at a time as there are `threads`.
    """
    import scipy.linalg  # noqa: F401 - its BLAS is a library of its own, limited only where it is loaded by then
    from threadpoolctl import threadpool_limits

    part = parts(labels, groups, _HELD_OUT, 0)
    due: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for draw in range(DRAWS if len(labels) > FEW else DRAWS_OF_FEW):
        held, pool = np.nonzero(part == draw)[0], np.nonzero(part != draw)[0]
        order = pool[stratified(labels[pool], groups[pool], draw)]
        found = [beginning(order, groups, round(share * len(pool))) for share in SHARES]
        due.append([(learnt, held) for learnt in found if len(learnt) >= 2 * classes and len(held)])
    kept = min(map(len, due))
    flat = [pair for pairs in due for pair in pairs[len(pairs) - kept :]]

    def accuracy(pair: tuple[np.ndarray, np.ndarray]) -> float:
        learnt, both = len(pair[0]), np.concatenate(pair)
        fold = (np.arange(learnt), np.arange(learnt, len(both)))
        problem = Problem(Matrix.of(features[both]), labels[both], classes, (fold,), np.arange(len(both)))
        return float(FAMILIES[head].cross_validate(problem, [setting], 0)[0].accuracy)

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool_of:  # BLAS's own threads would wait for each other
        scores = np.array(list(pool_of.map(accuracy, flat)))
    images = np.array([len(learnt) for learnt, _ in flat])
    return Curve(images.reshape(len(due), kept).T, scores.reshape(len(due), kept).T)


def asymptote(found: Curve) -> Asymptote | None:
    """Where accuracy = a - b n^-c ends, a; None where that does not fit or does not tell a within 10 points.

    By least squares (power laws of learning: Cortes, Jackel, Solla, Vapnik, Denker, Learning curves: asymptotic values and
    rate of convergence, NIPS 1993). Draws are first moved to their common mean, since each has its own images held out; the
    interval of a is that of the linearised fit and that of the mean of draws, together.
    """
    from scipy.optimize import curve_fit
    from scipy.stats import t

    if len(found.images) < 4 or float(np.ptp(found.accuracy.mean(axis=1))) < 1e-3:
        return None
    levels = found.accuracy.mean(axis=0)
    accuracy = (found.accuracy - levels + levels.mean()).ravel()
    sizes = found.images.ravel() / found.images.min()

    def law(n: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return np.asarray(a - b * n**-c)

    rise = max(1e-3, float(np.ptp(accuracy)))
    low, high = np.array([0.0, 0.0, 0.05]), np.array([1.0, 2.0, 3.0])
    start = np.clip([float(accuracy.max()) + rise / 4, rise, 0.5], low + 1e-6, high - 1e-6)
    try:
        (a, b, c), spread = curve_fit(law, sizes, accuracy, p0=start, bounds=(low, high), max_nfev=2000)
    except RuntimeError:  # it did not converge
        return None
    means = found.accuracy.mean(axis=1)
    fitted = law(sizes, a, b, c).reshape(found.images.shape).mean(axis=1)
    explained = 1 - ((means - fitted) ** 2).sum() / ((means - means.mean()) ** 2).sum()
    of_fit = float(np.sqrt(spread[0, 0])) * t.ppf(0.975, len(sizes) - 3)
    of_draws = float(levels.std(ddof=1) / np.sqrt(len(levels))) * t.ppf(0.975, len(levels) - 1)
    margin = float(np.hypot(of_fit, of_draws))
    if b < 1e-3 or explained < _FITS or not margin <= _KNOWN:
        return None
    return Asymptote(float(a), margin)
