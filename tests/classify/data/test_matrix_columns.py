"""Columns of a matrix are those columns of its whole rows, however the rows are stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from humeris.cache.shard import to_keys
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.data import feature_matrix as matrix_module
from humeris.classify.data.feature_matrix import FeatureMatrix, TapColumns
from humeris.classify.evaluate.single_label import SingleLabel

SPEC = ExtractionSpec("toy", "toy()", "none", "00" * 32, (8, 8), "none", "none")
COUNT, SHAPE = 30, (2, 3, 7)
WIDTH = 42


def part(folder: Path, dtype: str, compression: str, seed: int = 0) -> TapColumns:
    """Rows of maps in three shards and two views, in another order than they are stored in."""
    random = np.random.default_rng(seed)
    keys = to_keys([hashlib.sha256(str(number).encode()).digest() for number in range(COUNT)])
    with Store(folder, write=True) as store:
        for view in (0, 1):
            rows = random.normal(size=(COUNT, *SHAPE)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            for some in np.array_split(random.permutation(COUNT), 3):
                views = np.full(len(some), view, np.uint16)
                store.get_extraction(SPEC).add("layer", "map", keys[some], rows[some], views=views, compression=compression)
    order = random.permutation(COUNT)
    return TapColumns(Store(folder).get_extraction(SPEC).get_features("layer", "map"), keys[order], order % 2)


@pytest.mark.parametrize("compression", ["none", "gzip", "blosc2"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_columns_equal_those_of_whole_rows(dtype: str, compression: str, tmp_path: Path) -> None:
    features = FeatureMatrix.from_tap_columns([part(tmp_path, dtype, compression)])
    columns = {bounds: features.read_columns(*bounds) for bounds in [(0, 1), (5, 26), (41, 42), (0, 42)]}
    whole = features.to_array()
    assert whole.shape == (COUNT, WIDTH)
    for (start, stop), found in columns.items():
        assert found.dtype == np.float32
        assert np.array_equal(found, whole[:, start:stop])


def test_columns_of_taps_side_by_side_run_across_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part(tmp_path / "a", "float32", "none", 1), part(tmp_path / "b", "float16", "gzip", 1)]
    monkeypatch.setattr(matrix_module, "_SHARE", 0.0)
    features = FeatureMatrix.from_tap_columns(parts)
    whole = np.hstack([FeatureMatrix.from_tap_columns([each])[np.arange(COUNT)] for each in parts])
    assert not features.fits_in_memory
    for start, stop in [(0, 84), (30, 50), (42, 43), (41, 42), (83, 84)]:
        assert np.array_equal(features.read_columns(start, stop), whole[:, start:stop])
    assert np.array_equal(np.hstack([values for _, values in features.iter_column_blocks(5)]), whole)


def test_folds_of_rows_that_are_read_block_by_block_are_those_of_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from humeris.classify.heads.linear.cv_fold import iter_folds
    from humeris.classify.heads.training_data import TrainingData

    some = part(tmp_path, "float32", "none")
    held = FeatureMatrix.from_array(FeatureMatrix.from_tap_columns([some]).to_array())
    monkeypatch.setattr(matrix_module, "_SHARE", 0.0)
    pairs = ((np.arange(20), np.arange(20, 30)), (np.arange(10, 30), np.arange(10)))
    labels, images = np.arange(COUNT) % 2, np.arange(COUNT)
    made = [
        list(iter_folds(TrainingData(features, labels, SingleLabel.from_n_classes(2), pairs, images, threads=2)))
        for features in (held, FeatureMatrix.from_tap_columns([some]))
    ]
    for mine, theirs in zip(*made, strict=True):
        for (_, a), (_, b) in zip(mine.iter_score_blocks(), theirs.iter_score_blocks(), strict=True):
            assert np.abs(np.abs(a) - np.abs(b)).max() < 1e-4
        weights = np.ones((mine.width, 1))
        assert (
            mine.to_dense_layer(weights, np.zeros(1)).weights.shape
            == theirs.to_dense_layer(weights, np.zeros(1)).weights.shape
            == (WIDTH, 1)
        )
