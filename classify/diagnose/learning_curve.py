"""How good a head is with how many images to learn from: where it starts, how fast it rises and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.feature_matrix import FeatureMatrix
from ..data.group_sampling import assign_folds, stratify, take_prefix
from ..evaluate.target import Target
from ..heads.registry import get_head_family
from ..heads.training_data import TrainingData

TRAIN_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
N_DRAWS, N_DRAWS_OF_FEW, FEW_IMAGES = 3, 5, 1000  # of up to so many images
_N_FOLDS = 5  # one in so many
_N_DOUBLINGS = 2  # doublings that the slope is taken over
_MIN_R2 = 0.9  # of the variance of the means, where a curve is one of the kind
_MAX_MARGIN = 0.1  # to either side, where an asymptote is told


@dataclass(frozen=True)
class Curve:
    """Accuracy (sizes, draws) on images held out, and how many images were learnt from (sizes, draws)."""

    n_images: np.ndarray
    accuracy: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """How many images were learnt from, the mean of the draws (sizes,)."""
        return np.asarray(self.n_images.mean(axis=1))

    @property
    def starts(self) -> np.ndarray:
        """Accuracy (draws,) with the fewest images."""
        return np.asarray(self.accuracy[0])

    @property
    def slopes(self) -> np.ndarray:
        """What the first doublings of the images gain in accuracy, each, (draws,); NaN of a curve of one size."""
        last = min(_N_DOUBLINGS, len(self.accuracy) - 1)
        if last < 1:
            return np.full(self.accuracy.shape[1], np.nan)
        doublings = np.log2(self.n_images[last] / self.n_images[0])
        return np.asarray((self.accuracy[last] - self.accuracy[0]) / doublings)


@dataclass(frozen=True)
class Asymptote:
    """The accuracy that a curve comes to with ever more images, and how far off that may be to either side (95 %)."""

    accuracy: float
    margin: float


def compute_learning_curve(
    features: FeatureMatrix,
    labels: np.ndarray,
    groups: np.ndarray,
    target: Target,
    head: str,
    hyperparameters: Mapping[str, Any],
    threads: int,
) -> Curve:
    """The curve of a head with one setting on rows (n, d) with encoded labels (n, …) and group numbers (n,).

    For each draw another fifth of the images is held out, and the head learns from 1/16, 1/8, 1/4, 1/2 and all of the
    rest: each of these is among the next, holds the classes as the whole does, one image of each at least, and no part of a
    group. Sizes with fewer than two images for a class are left out; where none is left the curve is empty. The head is
    one that trains without Keras. So many are trained at a time as there are `threads`.
    """
    import scipy.linalg  # noqa: F401 - its BLAS is a library of its own, limited only where it is loaded by then
    from threadpoolctl import threadpool_limits

    fold_ids = assign_folds(target.stratify(labels), groups, _N_FOLDS, 0)
    splits_by_draw: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for draw in range(N_DRAWS if len(labels) > FEW_IMAGES else N_DRAWS_OF_FEW):
        held_out_rows, pool_rows = np.nonzero(fold_ids == draw)[0], np.nonzero(fold_ids != draw)[0]
        order = pool_rows[stratify(target.stratify(labels[pool_rows]), groups[pool_rows], draw)]
        train_sets = [take_prefix(order, groups, round(share * len(pool_rows))) for share in TRAIN_SHARES]
        splits_by_draw.append(
            [
                (train_rows, held_out_rows)
                for train_rows in train_sets
                if len(train_rows) >= 2 * target.n_outputs and len(held_out_rows)
            ]
        )
    n_sizes = min(map(len, splits_by_draw))
    all_splits = [split for draw_splits in splits_by_draw for split in draw_splits[len(draw_splits) - n_sizes :]]

    def score_split(split: tuple[np.ndarray, np.ndarray]) -> float:
        n_train, all_rows = len(split[0]), np.concatenate(split)
        fold = (np.arange(n_train), np.arange(n_train, len(all_rows)))
        training_data = TrainingData(
            FeatureMatrix.from_array(features[all_rows]), labels[all_rows], target, (fold,), np.arange(len(all_rows))
        )
        return float(get_head_family(head).cross_validate(training_data, [hyperparameters], 0)[0].accuracy)

    with threadpool_limits(1), ThreadPoolExecutor(threads) as executor:  # BLAS's own threads would wait for each other
        scores = np.array(list(executor.map(score_split, all_splits)))
    n_images = np.array([len(train_rows) for train_rows, _ in all_splits])
    return Curve(n_images.reshape(len(splits_by_draw), n_sizes).T, scores.reshape(len(splits_by_draw), n_sizes).T)


def fit_asymptote(learning_curve: Curve) -> Asymptote | None:
    """Where accuracy = a - b n^-c ends, a; None where that does not fit or does not tell a within 10 points.

    By least squares (power laws of learning: Cortes, Jackel, Solla, Vapnik, Denker, Learning curves: asymptotic values and
    rate of convergence, NIPS 1993). Draws are first moved to their common mean, since each has its own images held out; the
    interval of a is that of the linearised fit and that of the mean of draws, together.
    """
    from scipy.optimize import curve_fit
    from scipy.stats import t

    if len(learning_curve.n_images) < 4 or float(np.ptp(learning_curve.accuracy.mean(axis=1))) < 1e-3:
        return None
    draw_means = learning_curve.accuracy.mean(axis=0)
    accuracy = (learning_curve.accuracy - draw_means + draw_means.mean()).ravel()
    sizes = learning_curve.n_images.ravel() / learning_curve.n_images.min()

    def power_law(n: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return np.asarray(a - b * n**-c)

    rise = max(1e-3, float(np.ptp(accuracy)))
    low, high = np.array([0.0, 0.0, 0.05]), np.array([1.0, 2.0, 3.0])
    start = np.clip([float(accuracy.max()) + rise / 4, rise, 0.5], low + 1e-6, high - 1e-6)
    try:
        (a, b, c), covariance = curve_fit(power_law, sizes, accuracy, p0=start, bounds=(low, high), max_nfev=2000)
    except RuntimeError:  # it did not converge
        return None
    means = learning_curve.accuracy.mean(axis=1)
    fitted_means = power_law(sizes, a, b, c).reshape(learning_curve.n_images.shape).mean(axis=1)
    r2 = 1 - ((means - fitted_means) ** 2).sum() / ((means - means.mean()) ** 2).sum()
    fit_margin = float(np.sqrt(covariance[0, 0])) * t.ppf(0.975, len(sizes) - 3)
    draw_margin = float(draw_means.std(ddof=1) / np.sqrt(len(draw_means))) * t.ppf(0.975, len(draw_means) - 1)
    margin = float(np.hypot(fit_margin, draw_margin))
    if b < 1e-3 or r2 < _MIN_R2 or not margin <= _MAX_MARGIN:
        return None
    return Asymptote(float(a), margin)
