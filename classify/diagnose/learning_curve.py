"""Learning curves: accuracy of a head by number of training images, with initial accuracy, slope and asymptote."""

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
N_DRAWS, N_DRAWS_OF_FEW, FEW_IMAGES = 3, 5, 1000  # number of draws, and more draws up to so many images
_N_FOLDS = 5  # one fold is held out
_N_DOUBLINGS = 2  # doublings that the slope is measured over
_MIN_R2 = 0.9  # of the variance of the means, from which a power law fits
_MAX_MARGIN = 0.1  # to either side, up to which an asymptote is reported


@dataclass(frozen=True)
class Curve:
    """Accuracy (sizes, draws) on held-out images, and the number of training images (sizes, draws)."""

    n_images: np.ndarray
    accuracy: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Number of training images, averaged over the draws (sizes,)."""
        return np.asarray(self.n_images.mean(axis=1))

    @property
    def starts(self) -> np.ndarray:
        """Accuracy (draws,) with the fewest images."""
        return np.asarray(self.accuracy[0])

    @property
    def slopes(self) -> np.ndarray:
        """Gain in accuracy per doubling over the first doublings, (draws,); NaN for a curve of one size."""
        last = min(_N_DOUBLINGS, len(self.accuracy) - 1)
        if last < 1:
            return np.full(self.accuracy.shape[1], np.nan)
        doublings = np.log2(self.n_images[last] / self.n_images[0])
        return np.asarray((self.accuracy[last] - self.accuracy[0]) / doublings)


@dataclass(frozen=True)
class Asymptote:
    """The accuracy that a curve approaches with more images, and its 95 % margin of error to either side."""

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
    """Compute the learning curve of a head with fixed hyperparameters.

    Each draw holds out another fifth of the images, and the head is trained on 1/16, 1/8, 1/4, 1/2 and all of the others.
    These training sets are nested and stratified, have at least one image of each class, and keep groups whole. Sizes
    with fewer than two images per class are left out; the curve is empty if none is left.

    Parameters
    ----------
    features : FeatureMatrix
        Rows (n, d).
    labels : ndarray of shape (n, …)
        Labels as encoded by `target`.
    groups : ndarray of shape (n,)
        Group numbers.
    target : Target
        The kind of labels.
    head : str
        A head family that trains without Keras.
    hyperparameters : mapping
        Its hyperparameters.
    threads : int
        Number of heads trained at the same time.

    Returns
    -------
    Curve
        The learning curve.
    """
    import scipy.linalg  # noqa: F401 - its BLAS is a separate library, whose threads are limited only if it is loaded by then
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

    with threadpool_limits(1), ThreadPoolExecutor(threads) as executor:  # threads of BLAS would wait for each other
        scores = np.array(list(executor.map(score_split, all_splits)))
    n_images = np.array([len(train_rows) for train_rows, _ in all_splits])
    return Curve(n_images.reshape(len(splits_by_draw), n_sizes).T, scores.reshape(len(splits_by_draw), n_sizes).T)


def fit_asymptote(learning_curve: Curve) -> Asymptote | None:
    """Fit accuracy = a - b n^-c and return a; None if the fit is poor, or the margin of error exceeds 10 points.

    By least squares (power laws of learning: Cortes, Jackel, Solla, Vapnik, Denker, Learning curves: asymptotic values
    and rate of convergence, NIPS 1993). Draws are first shifted to their common mean, since each has its own held-out
    images; the interval of a combines that of the linearized fit and that of the mean of draws.
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
    except RuntimeError:  # no convergence
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
