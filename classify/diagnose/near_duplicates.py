"""Test images that are, all but the same, also among the images that were learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.feature_matrix import Matrix
from ..data.nearest_neighbors import nearest
from ..evaluate.confidence_intervals import of_share

COPIES = 5  # development images that may be copies of one test image
_FALSE_ALARMS = 0.05  # expected among all test images, where none has a copy
_WIDEST = 0.8  # a copy is nearer than this share of the way to what is none, in however many dimensions
_CALIBRATED_ON = 2000  # development images
_NARROWEST = 0.05  # where a copy would have to be so much nearer than what is none, few would be found
_ROUNDING = 1e-6  # squared distances that float32 does not tell from none
_EQUAL = 1e-4  # how far equal rows may lie apart, as a share of their distance from the middle
_CHECKED = 256  # pairs of rows in memory at a time


@dataclass(frozen=True)
class Pair:
    """A test row and the development row it nearly equals; similarity: cosine, seen from the development rows' mean."""

    test: int
    development: int
    similarity: float


@dataclass(frozen=True)
class Found:
    """Pairs, most similar first. cannot_tell: whether none but equal rows can be told from rows that are only alike."""

    pairs: tuple[Pair, ...]
    cannot_tell: bool


def find(test: Matrix, development: Matrix) -> Found:
    """The test rows that nearly equal development rows, with each of those.

    Images of one class are alike, and how alike depends on the class and on the network, so that no similarity means "the
    same" everywhere. A copy is told by the gap behind it. Let d(1) <= d(2) <= ... be the distances of a test row to the
    nearest development rows. Where rows lie as if by chance in m dimensions, the ratios d(j) / d(j + 1) are independent, and
    below c with chance c^(m j) (Facco, d'Errico, Rodriguez, Laio, Scientific Reports 7 (2017) 12140). A test row whose
    smallest ratio, of the first `COPIES`, is below c has its copies before that gap; c is where 0.05 such rows are expected
    by chance in the whole test split. m is the one that puts the median of the development rows' smallest ratios, each row
    against the others, where it is: that makes the rule careful where small tight groups are common, such as a few pictures
    each of many faces, and blind where most images have copies, as in frames of films, which need groups. Then, and where
    there are too few rows, it cannot tell, which does not say that there is none. Rows that equal each other are found in
    any case, up to `COPIES` for a test row, unless all rows lie at one point.

    Measured on 396 photographs of ants and bees, 100 of them copied; found of 100 (JPEG quality 50 / 20; half size; 160 px;
    cropped by up to 5 / 10 / 20 %; mirrored; brighter). MobileNetV2-0.35 out_relu:avg 100 / 98; 100; 79; 100 / 100 / 91;
    100; 100. Its block_13_expand_relu:avg 100 / 69; 96; 31; 96 / 89 / 45; 100; 99. nano block5_out:avg 100 / 100; 100; 100;
    97 / 78 / 23; 5; 100. No copy was taken for one of another photograph; of 5 x 80 photographs without a copy one at most
    was. Through nano, 4 of 1,000 test images of CIFAR-10 had a copy among 5,000, all of them true, and of 389
    handwritten digits none had one among 1,408.
    Rows are read a block at a time.
    """
    count = development.shape[0]
    rows, asked = np.arange(count), np.arange(test.shape[0])
    total = sum(values.sum(axis=0, dtype=np.float64) for _, values in development.blocks())
    middle = np.asarray(total / count, np.float32)
    widest = _widest(development, middle, len(asked)) if count >= COPIES + 2 else 0.0
    near, places = nearest(test, asked, development, rows, COPIES + 1, middle)
    found = np.zeros(near.shape, bool)
    if count > COPIES:
        gaps, copies = _gaps(near)
        found = (gaps < min(widest, _WIDEST))[:, None] & (np.arange(near.shape[1]) < copies[:, None])
    found[:, :COPIES] |= _equal(test, development, near[:, :COPIES], places[:, :COPIES], middle)
    pairs = [Pair(int(row), int(places[row, place]), float(near[row, place])) for row, place in np.argwhere(found)]
    pairs.sort(key=lambda pair: (-pair.similarity, pair.test, pair.development))
    return Found(tuple(pairs), widest < _NARROWEST)


def _widest(development: Matrix, middle: np.ndarray, tested: int) -> float:
    """The ratio that a gap has to be below, from how the development rows lie about each other."""
    count = development.shape[0]
    rows = np.arange(count)
    some = rows if count <= _CALIBRATED_ON else np.random.default_rng(0).choice(count, _CALIBRATED_ON, replace=False)
    others, places = nearest(development, some, development, rows, COPIES + 2, middle)
    itself = places == some[:, None]
    itself[:, -1] |= ~itself.any(axis=1)  # behind equal rows
    gaps, _ = _gaps(others[~itself].reshape(len(some), -1))
    median = float(np.median(gaps))
    lies = 0 < median < 1  # 1: as far from one as from another
    return _ratio(_FALSE_ALARMS / tested, _dimension(median)) if lies else 0.0


def _equal(
    test: Matrix, development: Matrix, similarities: np.ndarray, places: np.ndarray, middle: np.ndarray
) -> np.ndarray:
    """Mask (n, k) of the development rows `places` that equal their test row, and not in direction from the middle alone."""
    mask = 2 - 2 * similarities.astype(np.float64) < _ROUNDING
    pairs = np.argwhere(mask)
    for start in range(0, len(pairs), _CHECKED):
        row, place = pairs[start : start + _CHECKED].T
        ours, theirs = test[row], development[places[row, place]]
        apart, away = np.linalg.norm(ours - theirs, axis=1), np.linalg.norm(theirs - middle, axis=1)
        mask[row, place] = apart <= _EQUAL * away
    return mask


def report(
    found: Found,
    test: Sequence[str],
    development: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """The pairs by name, whether others can be told, and how right the winner is on the other test images, as JSON values.

    test, development: names of the rows. labels (n,), probabilities (n, classes) and groups (n,) or None: of the test rows.
    """
    others = np.ones(len(labels), bool)
    others[[pair.test for pair in found.pairs]] = False
    right, count = (probabilities.argmax(axis=1) == labels)[others], int(others.sum())
    return {
        "pairs": [
            {"test": test[pair.test], "development": development[pair.development], "similarity": round(pair.similarity, 6)}
            for pair in found.pairs
        ],
        "cannot_tell": found.cannot_tell,
        "test_images": len(labels) - count,
        "accuracy_without": float(right.mean()) if count else None,
        "accuracy_without_95": list(of_share(right, None if groups is None else groups[others])) if count else None,
    }


def _gaps(similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest ratio of successive distances (n,), and how many rows lie before it; similarities (n, k), falling.

    Of rows that equal more development rows than are looked at, the ratio is 0, and one lies before it.
    """
    squared = 2 - 2 * similarities.astype(np.float64)
    distances = np.sqrt(np.where(squared < _ROUNDING, 0.0, squared))
    behind = distances[:, 1:]
    ratios = np.divide(distances[:, :-1], behind, out=np.zeros_like(behind), where=behind > 0)
    return ratios.min(axis=1), ratios.argmin(axis=1) + 1


def _chance(ratio: float, dimension: float) -> float:
    """How likely the smallest ratio is to be below `ratio` where rows lie by chance."""
    return float(1 - np.prod(1 - ratio ** (dimension * np.arange(1, COPIES + 1))))


def _dimension(median: float) -> float:
    """In how many dimensions half of the smallest ratios would be below `median`."""
    low, high = 1e-3, 1e4
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _chance(median, middle) > 0.5 else (low, middle)
    return low


def _ratio(chance: float, dimension: float) -> float:
    """The ratio that the smallest one is below with this chance."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(middle, dimension) < chance else (low, middle)
    return low
