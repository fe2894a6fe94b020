"""Test images that have near-duplicates outside the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.feature_matrix import FeatureMatrix
from ..data.nearest_neighbors import find_neighbors
from ..evaluate.confidence_intervals import proportion_ci
from ..runs.result import NearDuplicatePair, NearDuplicateSummary

MAX_COPIES = 5  # development images that may be copies of one test image
_FALSE_ALARM_RATE = 0.05  # expected number of test images reported by chance, if none has a copy
_MAX_RATIO = 0.8  # a copy must be closer than this fraction of the distance to the next other image, in any dimension
_N_CALIBRATION_ROWS = 2000  # development images for calibration, at most
_MIN_RATIO = 0.05  # below this ratio few copies would be found, so none are reported
_ROUNDING = 1e-6  # squared distances that float32 cannot distinguish from zero
_EQUAL_TOLERANCE = 1e-4  # how far apart equal rows may be, as a fraction of their distance from the mean
_PAIRS_PER_BATCH = 256  # pairs of rows in memory at a time


@dataclass(frozen=True)
class Pair:
    """A test row and the development row it nearly equals.

    similarity: cosine, relative to the mean of the development rows.
    """

    test_row: int
    development_row: int
    similarity: float


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs, most similar first. cannot_tell: whether only equal rows can be told from rows that are merely similar."""

    pairs: tuple[Pair, ...]
    cannot_tell: bool


def find(test: FeatureMatrix, development: FeatureMatrix) -> NearDuplicates:
    """Find the test rows that nearly equal development rows.

    Images of one class are similar to a degree that depends on the class and the network, so that no fixed similarity
    means "the same". A copy is recognized by the gap behind it. Let d(1) <= d(2) <= ... be the distances of a test row to
    the nearest development rows. For rows distributed at random in m dimensions, the ratios d(j) / d(j + 1) are
    independent, and below c with probability c^(m j) (Facco, d'Errico, Rodriguez, Laio, Scientific Reports 7 (2017)
    12140). If the smallest of the first `MAX_COPIES` ratios of a test row is below c, the rows before that gap are its
    copies; c is such that 0.05 such rows are expected by chance in the whole test split. The dimension m is estimated
    from the median of the development rows' smallest ratios, each row against the others. This makes the rule
    conservative if small tight groups are common, such as a few pictures each of many faces, and blind if most images
    have copies, as in frames of films, which need groups. In that case, and with too few rows, `cannot_tell` is set,
    which does not mean that there are none. Rows that equal each other are always found, up to `MAX_COPIES` for a test
    row, unless all rows coincide.

    Measured on 396 photographs of ants and bees, 100 of them copied; found of 100 (JPEG quality 50 / 20; half size; 160
    px; cropped by up to 5 / 10 / 20 %; mirrored; brighter). MobileNetV2-0.35 out_relu:avg 100 / 98; 100; 79; 100 / 100 /
    91; 100; 100. Its block_13_expand_relu:avg 100 / 69; 96; 31; 96 / 89 / 45; 100; 99. nano block5_out:avg 100 / 100;
    100; 100; 97 / 78 / 23; 5; 100. No copy was assigned to another photograph; of 5 x 80 photographs without a copy at
    most one was reported. With nano, 4 of 1,000 test images of CIFAR-10 had a copy among 5,000, all of them true, and of
    389 handwritten digits none had one among 1,408. Rows are read in blocks.

    Parameters
    ----------
    test, development : FeatureMatrix
        Rows of the test split and of the other images.

    Returns
    -------
    NearDuplicates
        The pairs.
    """
    count = development.shape[0]
    rows, test_rows = np.arange(count), np.arange(test.shape[0])
    total = sum(values.sum(axis=0, dtype=np.float64) for _, values in development.iter_blocks())
    center = np.asarray(total / count, np.float32)
    max_ratio = _calibrate_max_ratio(development, center, len(test_rows)) if count >= MAX_COPIES + 2 else 0.0
    similarities, neighbor_rows = find_neighbors(test, test_rows, development, rows, MAX_COPIES + 1, center)
    is_copy = np.zeros(similarities.shape, bool)
    if count > MAX_COPIES:
        smallest_ratios, n_copies = _find_gaps(similarities)
        is_copy = (smallest_ratios < min(max_ratio, _MAX_RATIO))[:, None] & (
            np.arange(similarities.shape[1]) < n_copies[:, None]
        )
    is_copy[:, :MAX_COPIES] |= _find_equal(
        test, development, similarities[:, :MAX_COPIES], neighbor_rows[:, :MAX_COPIES], center
    )
    pairs = [
        Pair(int(row), int(neighbor_rows[row, rank]), float(similarities[row, rank])) for row, rank in np.argwhere(is_copy)
    ]
    pairs.sort(key=lambda pair: (-pair.similarity, pair.test_row, pair.development_row))
    return NearDuplicates(tuple(pairs), max_ratio < _MIN_RATIO)


def _calibrate_max_ratio(development: FeatureMatrix, center: np.ndarray, n_test: int) -> float:
    """Return the ratio below which a gap counts, calibrated on the distances between development rows."""
    count = development.shape[0]
    rows = np.arange(count)
    calibration_rows = (
        rows if count <= _N_CALIBRATION_ROWS else np.random.default_rng(0).choice(count, _N_CALIBRATION_ROWS, replace=False)
    )
    similarities, neighbor_rows = find_neighbors(development, calibration_rows, development, rows, MAX_COPIES + 2, center)
    is_self = neighbor_rows == calibration_rows[:, None]
    is_self[:, -1] |= ~is_self.any(axis=1)  # behind equal rows
    smallest_ratios, _ = _find_gaps(similarities[~is_self].reshape(len(calibration_rows), -1))
    median = float(np.median(smallest_ratios))
    has_dimension = 0 < median < 1  # 1: all equally far apart
    return _solve_ratio(_FALSE_ALARM_RATE / n_test, _estimate_dimension(median)) if has_dimension else 0.0


def _find_equal(
    test: FeatureMatrix, development: FeatureMatrix, similarities: np.ndarray, neighbor_rows: np.ndarray, center: np.ndarray
) -> np.ndarray:
    """Return the mask (n, k) of the `neighbor_rows` that equal their test row in position, not only in direction."""
    mask = 2 - 2 * similarities.astype(np.float64) < _ROUNDING
    pairs = np.argwhere(mask)
    for start in range(0, len(pairs), _PAIRS_PER_BATCH):
        row, rank = pairs[start : start + _PAIRS_PER_BATCH].T
        test_values, development_values = test[row], development[neighbor_rows[row, rank]]
        distances, radii = (
            np.linalg.norm(test_values - development_values, axis=1),
            np.linalg.norm(development_values - center, axis=1),
        )
        mask[row, rank] = distances <= _EQUAL_TOLERANCE * radii
    return mask


def summarize(
    duplicates: NearDuplicates,
    test: Sequence[str],
    development: Sequence[str],
    is_correct: np.ndarray,
    groups: np.ndarray | None = None,
) -> NearDuplicateSummary:
    """Summarize pairs by name, with the winner's accuracy on the other test images.

    Parameters
    ----------
    duplicates : NearDuplicates
        The pairs.
    test, development : sequence of str
        Names of the rows.
    is_correct : ndarray of shape (n,), bool
        Whether the winner's prediction for each test row is correct.
    groups : ndarray of shape (n,), optional
        Groups of the test rows.

    Returns
    -------
    NearDuplicateSummary
        The summary that a run records.
    """
    is_other = np.ones(len(is_correct), bool)
    is_other[[pair.test_row for pair in duplicates.pairs]] = False
    correct, count = is_correct[is_other], int(is_other.sum())
    return NearDuplicateSummary(
        pairs=tuple(
            NearDuplicatePair(test[pair.test_row], development[pair.development_row], round(pair.similarity, 6))
            for pair in duplicates.pairs
        ),
        cannot_tell=duplicates.cannot_tell,
        test_images=len(is_correct) - count,
        accuracy_without=float(correct.mean()) if count else None,
        accuracy_without_95=proportion_ci(correct, None if groups is None else groups[is_other]) if count else None,
    )


def _find_gaps(similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest ratio of successive distances (n,) and the number of rows before it.

    similarities (n, k): descending. If a row equals more development rows than were searched, the ratio is 0, with one
    row before it.
    """
    squared = 2 - 2 * similarities.astype(np.float64)
    distances = np.sqrt(np.where(squared < _ROUNDING, 0.0, squared))
    next_distances = distances[:, 1:]
    ratios = np.divide(distances[:, :-1], next_distances, out=np.zeros_like(next_distances), where=next_distances > 0)
    return ratios.min(axis=1), ratios.argmin(axis=1) + 1


def _compute_chance(ratio: float, dimension: float) -> float:
    """Return the probability that the smallest ratio is below `ratio` for rows distributed at random."""
    return float(1 - np.prod(1 - ratio ** (dimension * np.arange(1, MAX_COPIES + 1))))


def _estimate_dimension(median: float) -> float:
    """Return the dimension in which the median of the smallest ratios is `median`."""
    low, high = 1e-3, 1e4
    for _ in range(60):
        midpoint = (low * high) ** 0.5
        low, high = (midpoint, high) if _compute_chance(median, midpoint) > 0.5 else (low, midpoint)
    return low


def _solve_ratio(chance: float, dimension: float) -> float:
    """Return the ratio that the smallest one is below with this probability."""
    low, high = 0.0, 1.0
    for _ in range(60):
        midpoint = (low + high) / 2
        low, high = (midpoint, high) if _compute_chance(midpoint, dimension) < chance else (low, midpoint)
    return low
