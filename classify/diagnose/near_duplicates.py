"""Test images that are, all but the same, also among the images that were learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.feature_matrix import FeatureMatrix
from ..data.nearest_neighbors import find_neighbors
from ..evaluate.confidence_intervals import proportion_ci
from ..runs.result import NearDuplicatePair, NearDuplicateSummary

MAX_COPIES = 5  # development images that may be copies of one test image
_FALSE_ALARM_RATE = 0.05  # expected among all test images, where none has a copy
_MAX_RATIO = 0.8  # a copy is nearer than this share of the way to what is none, in however many dimensions
_N_CALIBRATION_ROWS = 2000  # development images
_MIN_RATIO = 0.05  # where a copy would have to be so much nearer than what is none, few would be found
_ROUNDING = 1e-6  # squared distances that float32 does not tell from none
_EQUAL_TOLERANCE = 1e-4  # how far equal rows may lie apart, as a share of their distance from the middle
_PAIRS_PER_BATCH = 256  # pairs of rows in memory at a time


@dataclass(frozen=True)
class Pair:
    """A test row and the development row it nearly equals; similarity: cosine, seen from the development rows' mean."""

    test_row: int
    development_row: int
    similarity: float


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs, most similar first. cannot_tell: whether none but equal rows can be told from rows that are only alike."""

    pairs: tuple[Pair, ...]
    cannot_tell: bool


def find(test: FeatureMatrix, development: FeatureMatrix) -> NearDuplicates:
    """The test rows that nearly equal development rows, with each of those.

    Images of one class are alike, and how alike depends on the class and on the network, so that no similarity means "the
    same" everywhere. A copy is told by the gap behind it. Let d(1) <= d(2) <= ... be the distances of a test row to the
    nearest development rows. Where rows lie as if by chance in m dimensions, the ratios d(j) / d(j + 1) are independent, and
    below c with chance c^(m j) (Facco, d'Errico, Rodriguez, Laio, Scientific Reports 7 (2017) 12140). A test row whose
    smallest ratio, of the first `MAX_COPIES`, is below c has its copies before that gap; c is where 0.05 such rows are
    expected by chance in the whole test split. m is the one that puts the median of the development rows' smallest ratios,
    each row against the others, where it is: that makes the rule careful where small tight groups are common, such as a few
    pictures each of many faces, and blind where most images have copies, as in frames of films, which need groups. Then, and
    where there are too few rows, it cannot tell, which does not say that there is none. Rows that equal each other are found
    in any case, up to `MAX_COPIES` for a test row, unless all rows lie at one point.

    Measured on 396 photographs of ants and bees, 100 of them copied; found of 100 (JPEG quality 50 / 20; half size; 160 px;
    cropped by up to 5 / 10 / 20 %; mirrored; brighter). MobileNetV2-0.35 out_relu:avg 100 / 98; 100; 79; 100 / 100 / 91;
    100; 100. Its block_13_expand_relu:avg 100 / 69; 96; 31; 96 / 89 / 45; 100; 99. nano block5_out:avg 100 / 100; 100; 100;
    97 / 78 / 23; 5; 100. No copy was taken for one of another photograph; of 5 x 80 photographs without a copy one at most
    was. Through nano, 4 of 1,000 test images of CIFAR-10 had a copy among 5,000, all of them true, and of 389
    handwritten digits none had one among 1,408.
    Rows are read a block at a time.
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
    """The ratio that a gap has to be below, from how the development rows lie about each other."""
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
    has_dimension = 0 < median < 1  # 1: as far from one as from another
    return _solve_ratio(_FALSE_ALARM_RATE / n_test, _estimate_dimension(median)) if has_dimension else 0.0


def _find_equal(
    test: FeatureMatrix, development: FeatureMatrix, similarities: np.ndarray, neighbor_rows: np.ndarray, center: np.ndarray
) -> np.ndarray:
    """Mask (n, k) of the `neighbor_rows` that equal their test row, and not in direction from the middle alone."""
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
    """The pairs by name, whether others can be told, and the winner's accuracy on the other test images.

    test, development: names of the rows. is_correct (n,): whether the winner predicts each
    test row correctly; groups (n,) or None: of the test rows.
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
    """The smallest ratio of successive distances (n,), and how many rows lie before it; similarities (n, k), falling.

    Of rows that equal more development rows than are looked at, the ratio is 0, and one lies before it.
    """
    squared = 2 - 2 * similarities.astype(np.float64)
    distances = np.sqrt(np.where(squared < _ROUNDING, 0.0, squared))
    next_distances = distances[:, 1:]
    ratios = np.divide(distances[:, :-1], next_distances, out=np.zeros_like(next_distances), where=next_distances > 0)
    return ratios.min(axis=1), ratios.argmin(axis=1) + 1


def _compute_chance(ratio: float, dimension: float) -> float:
    """How likely the smallest ratio is to be below `ratio` where rows lie by chance."""
    return float(1 - np.prod(1 - ratio ** (dimension * np.arange(1, MAX_COPIES + 1))))


def _estimate_dimension(median: float) -> float:
    """In how many dimensions half of the smallest ratios would be below `median`."""
    low, high = 1e-3, 1e4
    for _ in range(60):
        midpoint = (low * high) ** 0.5
        low, high = (midpoint, high) if _compute_chance(median, midpoint) > 0.5 else (low, midpoint)
    return low


def _solve_ratio(chance: float, dimension: float) -> float:
    """The ratio that the smallest one is below with this chance."""
    low, high = 0.0, 1.0
    for _ in range(60):
        midpoint = (low + high) / 2
        low, high = (midpoint, high) if _compute_chance(midpoint, dimension) < chance else (low, midpoint)
    return low
