"""Features that do not fit into memory are only ever asked for in blocks, by every linear head, and read the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from humeris.classify.data import feature_matrix
from humeris.classify.data.feature_matrix import FeatureMatrix, TapColumns
from humeris.classify.diagnose import near_duplicates
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.heads.families import knn as knn_module
from humeris.classify.heads.linear import cv_fold, design_matrix, gram, scatter
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

LIMIT = 1 << 14  # bytes in a block
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "logreg": {"C": 0.01}, "svm": {"C": 0.001}, "ridge": {"alpha": 10.0}, "lda": {"shrinkage": 0.5},
    "knn": {"n_neighbors": 3, "weights": "uniform"}, "centroid": {"metric": "cosine"},
}  # fmt: skip


@dataclass
class Watched:
    """Rows that note the largest block, in numbers, that was ever asked of them."""

    rows: np.ndarray
    most: int = 0
    views: list[int] = field(default_factory=list)

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        found = self.rows[keys] if columns is None else self.rows[keys].reshape(len(keys), -1)[:, columns]
        self.most = max(self.most, found.size)
        self.views.append(view)
        return found


def watched(rows: np.ndarray) -> tuple[Watched, FeatureMatrix]:
    stored = Watched(rows)
    return stored, FeatureMatrix.from_tap_columns([TapColumns(stored, np.arange(len(rows)), np.zeros(len(rows), np.intp))])


def drawn(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    random, labels = np.random.default_rng(0), np.arange(shape[0]) % 3
    rows = random.normal(size=shape) + 2 * random.normal(size=(3, shape[1]))[labels] / shape[1] ** 0.25
    places = np.array_split(random.permutation(shape[0]), 3)
    pairs = [(np.setdiff1d(np.arange(shape[0]), held), np.sort(held)) for held in places]
    return rows.astype(np.float32), labels, pairs


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in {
        feature_matrix: ["_BLOCK"],
        cv_fold: ["_BLOCK"],
        scatter: ["_BLOCK"],
        design_matrix: ["_BLOCK"],
        gram: ["_READ"],
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, LIMIT)
    monkeypatch.setattr(gram, "_COLUMNS", 16)
    monkeypatch.setattr(knn_module, "_SIMILARITIES", 1)  # 256 rows at least
    monkeypatch.setattr(feature_matrix, "_SHARE", 0.0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", [(1500, 16), (60, 4000)])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_no_linear_head_asks_for_more_than_a_block(name: str, shape: tuple[int, int]) -> None:
    rows, labels, pairs = drawn(shape)
    stored, features = watched(rows)
    family = get_head_family(name)
    streamed = TrainingData(features, labels, SingleLabel.from_n_classes(3), tuple(pairs), np.arange(len(labels)))
    tried = [SETTINGS[name]]
    (score,) = family.cross_validate(streamed, tried, 0)
    head = family.fit(streamed, tried[0], score.fit_info, 0)
    answers = head.predict_proba(features)
    least = 4 * len(labels)  # of a column, or
    if name in {"logreg", "svm"} and shape[0] > shape[1]:
        least = max(least, 4 * shape[1] * 4 * shape[1])  # the sample of rows that the solver's basis is made of
    assert 4 * stored.most <= max(LIMIT, least, 4 * 256 * shape[1] if shape[0] > shape[1] else 0)
    assert stored.most < rows.size / 4
    (held,) = family.cross_validate(TrainingData.from_arrays(rows, labels, pairs), tried, 0)
    assert score.accuracy == held.accuracy
    assert score.log_loss == pytest.approx(held.log_loss, rel=1e-3)
    assert (answers.argmax(axis=1) == labels).mean() > 0.9


def test_streamed_features_are_never_held_although_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _, _ = drawn((300, 40))
    stored, features = watched(rows)
    assert features.to_streaming() is features
    monkeypatch.setattr(feature_matrix, "_BLOCK", 1 << 12)
    assert features.fits_in_memory
    streamed = features.to_streaming()
    assert not streamed.fits_in_memory
    assert np.array_equal(np.concatenate([values for _, values in streamed.iter_blocks()]), rows)
    assert 4 * stored.most <= 1 << 12
    features.to_array()
    assert features.to_streaming() is features


def test_near_duplicates_are_looked_for_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.classify.data import nearest_neighbors

    rows, _, _ = drawn((900, 60))
    rows[800] = rows[3]
    expected = near_duplicates.find(FeatureMatrix.from_array(rows[700:]), FeatureMatrix.from_array(rows[:700])).pairs
    monkeypatch.setattr(feature_matrix, "_BLOCK", LIMIT)
    monkeypatch.setattr(nearest_neighbors, "_NUMBERS", LIMIT // 4)
    (tested, test), (learnt, development) = watched(rows[700:]), watched(rows[:700])
    found = near_duplicates.find(test.to_streaming(), development.to_streaming()).pairs
    assert [(pair.test_row, pair.development_row) for pair in found] == [
        (pair.test_row, pair.development_row) for pair in expected
    ]
    assert (found[0].test_row, found[0].development_row) == (100, 3)
    assert 4 * max(tested.most, learnt.most) <= LIMIT


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_rows_that_are_converted_or_lie_side_by_side_are_read_a_quarter_at_a_time(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_matrix, "_BLOCK", 1 << 10)
    rows = drawn((101, 40))[0].astype(dtype)
    stored, features = watched(rows)
    assert np.array_equal(features.to_array(), rows.astype(np.float32))
    assert stored.most <= 26 * 40
    parts = [TapColumns(Watched(rows[:, half]), np.arange(101), np.arange(101) % 2) for half in (slice(0, 9), slice(9, 40))]
    assert np.array_equal(FeatureMatrix.from_tap_columns(parts).to_array(), rows.astype(np.float32))


@pytest.mark.parametrize("width", [1, 255, 256, 257, 600])
def test_half_scatter_matrices_make_whole_ones(width: int) -> None:
    features, labels, pairs = drawn((700, width))
    for each in cv_fold.iter_folds(TrainingData.from_arrays(features, labels, pairs)):
        mine = np.concatenate([values for _, values in each.iter_fit_blocks()]).astype(float)
        scatter = each.compute_moments().scatter
        assert np.allclose(scatter, scatter.T, rtol=0, atol=1e-12 * np.abs(scatter).max())
        assert np.abs(scatter - mine.T @ mine).max() < 4e-6 * np.abs(scatter).max()
