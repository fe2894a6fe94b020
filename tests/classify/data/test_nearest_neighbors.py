"""Nearest rows by cosine: scikit-learn's, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from humeris.classify.data import nearest_neighbors
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.data.nearest_neighbors import find_neighbors, iter_unit_rows


def rows_of(count: int, seed: int, columns: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 1, (count, columns)).astype(np.float32)


@pytest.mark.parametrize("rows", [2048, 8, 1])
@pytest.mark.parametrize("middle", [None, np.full(6, 0.9, np.float32)])
def test_neighbours_and_their_order_are_scikit_learns(
    rows: int, middle: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_neighbors, "_ROWS", rows)
    ours, theirs = rows_of(23, 0), rows_of(40, 1)
    asked, among = np.arange(3, 20), np.random.default_rng(2).permutation(40)[:31]
    seen = 0 if middle is None else middle
    peer = NearestNeighbors(n_neighbors=7, metric="cosine").fit((theirs - seen)[among])
    distances, places = peer.kneighbors((ours - seen)[asked])
    found, where = find_neighbors(FeatureMatrix.from_array(ours), asked, FeatureMatrix.from_array(theirs), among, 7, middle)
    assert where.tolist() == places.tolist()
    assert found == pytest.approx(1 - distances, abs=1e-5)


@pytest.mark.parametrize("rows", [2048, 2, 1])
def test_of_equally_near_rows_the_first_come_first_whatever_the_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "_ROWS", rows)
    some = FeatureMatrix.from_array(np.array([[0, 1], [2, 0], [0, 3], [4, 0], [5, 0], [6, 0], [0, 1]]))
    found, where = find_neighbors(some, np.array([1, 2]), some, np.array([6, 5, 4, 3, 2, 1, 0]), 3)
    assert where.tolist() == [[1, 2, 3], [0, 4, 6]]
    assert found.tolist() == [[1.0] * 3] * 2


def test_there_are_no_more_neighbours_than_rows() -> None:
    found, where = find_neighbors(
        FeatureMatrix.from_array(rows_of(3, 0)), np.arange(3), FeatureMatrix.from_array(rows_of(2, 1)), np.arange(2), 5
    )
    assert found.shape == where.shape == (3, 2)


def test_rows_of_zeros_are_similar_to_none() -> None:
    features = FeatureMatrix.from_array(np.array([[0.0, 0.0], [1.0, 0.0]]))
    found, _ = find_neighbors(features, np.array([0]), features, np.array([1]), 1)
    assert found.tolist() == [[0.0]]


def test_very_large_and_very_small_rows_keep_their_direction() -> None:
    features = FeatureMatrix.from_array(np.array([[3e30, 4e30], [3e-15, 4e-15]]))
    for _, values in iter_unit_rows(features, np.arange(2)):
        assert values == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8]]), rel=1e-6)


def test_wide_rows_are_taken_in_smaller_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "_NUMBERS", 60)
    sizes = [len(values) for _, values in iter_unit_rows(FeatureMatrix.from_array(rows_of(25, 0)), np.arange(25))]
    assert sizes == [10, 10, 5]
