"""A fold's rows as linear heads see them: scikit-learn's scaler is the oracle, and inner products in all columns."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from problems import KINDS, make_problem
from sklearn.preprocessing import StandardScaler

from humeris.classify.heads.linear import cv_fold as fold_module
from humeris.classify.heads.linear import gram, scatter
from humeris.classify.heads.linear.cv_fold import Fold, fit_all_rows, iter_folds
from humeris.classify.heads.training_data import TrainingData

NARROW, WIDE = (60, 12), (60, 400)


def rows(fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    fit = np.concatenate([values for _, values in fold.iter_fit_blocks(7)])
    return fit.astype(float), np.concatenate([values for _, values in fold.iter_score_blocks(7)]).astype(float)


def peer(features: np.ndarray, fit: np.ndarray, score: np.ndarray) -> tuple[StandardScaler, np.ndarray, np.ndarray]:
    scaler = StandardScaler().fit(features[fit])
    return scaler, scaler.transform(features[fit].astype(float)), scaler.transform(features[score].astype(float))


@pytest.mark.parametrize("shape", [(120, 12), (120, 119), (120, 121), (120, 900)])
@pytest.mark.parametrize("kind", KINDS)
def test_standardising_and_turning_keep_every_inner_product(kind: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem(kind, shape)
    for fold, (fit, score) in zip(iter_folds(TrainingData.from_arrays(features, labels, pairs)), pairs, strict=True):
        scaler, fit_rows, score_rows = peer(features, fit, score)
        assert np.abs((fold.mean - scaler.mean_) / scaler.scale_).max() < 1e-10
        assert np.abs(fold.scale / scaler.scale_ - 1).max() < 1e-6
        mine, held = rows(fold)
        size, other = np.square(fit_rows).sum(axis=1).max(), np.square(score_rows).sum(axis=1)
        assert np.abs(mine @ mine.T - fit_rows @ fit_rows.T).max() < 4e-6 * size
        assert np.abs(held @ mine.T - score_rows @ fit_rows.T).max() < 4e-6 * np.sqrt(size * max(size, other.max()))
        assert np.abs(fold.compute_score_norms() - other).max() < 4e-6 * max(size, other.max())
        assert fold.width <= min(len(fit) - 1, shape[1]) or shape[1] <= shape[0]


@pytest.mark.parametrize("shape", [NARROW, WIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_moments_are_those_of_the_rows(kind: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem(kind, shape)
    for fold in iter_folds(TrainingData.from_arrays(features, labels, pairs)):
        mine, _ = rows(fold)
        moments, of = fold.compute_moments(), np.eye(fold.n_classes)[fold.labels]
        size = np.abs(moments.scatter).max()
        assert np.abs(moments.scatter - mine.T @ mine).max() < 2e-6 * size
        assert np.abs(moments.sums - of.T @ mine).max() < 1e-4
        assert moments.counts.tolist() == of.sum(axis=0).tolist()
        assert np.abs(fold.compute_class_sums()[0] - moments.sums).max() < 1e-4
        values, vectors = fold.eigendecomposition
        again = np.diag(values) if vectors is None else vectors * values @ vectors.T
        assert np.abs(again - moments.scatter).max() < 1e-6 * size


@pytest.mark.parametrize("shape", [NARROW, WIDE])
def test_rows_held_out_do_not_move_the_scaler_or_the_products_however_large(shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem("many classes", shape)
    fit, score = pairs[0]
    features[score] = 1e6 * features[score] + 1e7
    (fold,) = iter_folds(TrainingData.from_arrays(features, labels, [(fit, score)]))
    both = next(iter(iter_folds(TrainingData.from_arrays(features, labels, pairs))))
    _, fit_rows, _ = peer(features, fit, score)
    for each in (fold, both):
        mine, _ = rows(each)
        assert np.abs(mine @ mine.T - fit_rows @ fit_rows.T).max() < 4e-6 * np.square(fit_rows).sum(axis=1).max()
        values, expected = each.eigendecomposition[0], np.linalg.svd(fit_rows, compute_uv=False)[: each.width] ** 2
        assert np.allclose(np.sort(values)[::-1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [NARROW, WIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dense_layer_on_raw_rows_answers_as_the_weights_on_turned_rows(kind: str, shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem(kind, shape)
    random = np.random.default_rng(1)
    for fold in iter_folds(TrainingData.from_arrays(features, labels, pairs)):
        weights, bias = random.normal(size=(fold.width, 2)), random.normal(size=2)
        mine, held = rows(fold)
        layer = fold.to_dense_layer(weights, bias, "linear")
        for numbers, seen in ((fold.fit_rows, mine), (fold.score_rows, held)):
            found = features[numbers].astype(float) @ layer.weights.astype(float) + layer.bias
            assert np.abs(found - seen @ weights - bias).max() < 2e-5 * np.abs(seen @ weights).max()
        assert (
            np.abs(fold.compute_decisions(weights, bias) - held @ weights - bias).max() < 2e-6 * np.abs(held @ weights).max()
        )


@pytest.mark.parametrize("shape", [NARROW, WIDE])
def test_a_mean_far_from_zero_costs_no_digits(shape: tuple[int, int]) -> None:
    features, labels, pairs = make_problem("many classes", shape)
    features += np.float32(3e4)
    for fold, (fit, score) in zip(iter_folds(TrainingData.from_arrays(features, labels, pairs)), pairs, strict=True):
        _, fit_rows, score_rows = peer(features, fit, score)
        mine, held = rows(fold)
        assert np.abs(held @ mine.T - score_rows @ fit_rows.T).max() < 4e-6 * np.square(fit_rows).sum(axis=1).max()


def test_images_stored_twice_and_constant_columns_are_no_directions() -> None:
    features, labels, _ = make_problem("binary", WIDE)
    features[30:] = features[:30]
    features[:, 5] = 3.3
    assert fit_all_rows(TrainingData.from_arrays(features, labels, [])).width == 29


@pytest.mark.parametrize("columns", [70, 400, 3000])
def test_rows_between_other_rows_are_no_directions(columns: int) -> None:
    features, labels, _ = make_problem("binary", (60, columns))
    features = np.round(64 * features) / 64
    features[30:] = (features[:30] + np.roll(features[:30], 1, axis=0)) / 2
    assert fit_all_rows(TrainingData.from_arrays(features, labels, [])).width == 29


def test_two_rows_span_one_direction() -> None:
    features = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
    fold = fit_all_rows(TrainingData.from_arrays(features, np.array([0, 1]), []))
    assert fold.width == 1
    assert np.abs(rows_of_whole(fold)[:, 0]) == pytest.approx(np.sqrt([9, 9]), rel=1e-6)


def rows_of_whole(fold: Fold) -> np.ndarray:
    return np.concatenate([values for _, values in fold.iter_fit_blocks()])


def test_a_fold_that_overlaps_another_or_leaves_rows_out_is_itself() -> None:
    for shape in (NARROW, WIDE):
        features, labels, _ = make_problem("many classes", shape)
        pairs = [
            (np.arange(0, 40), np.arange(40, 50)),
            (np.arange(20, 60), np.arange(0, 10)),
            (np.arange(30), np.arange(30)),
        ]
        for fold, (fit, score) in zip(iter_folds(TrainingData.from_arrays(features, labels, pairs)), pairs, strict=True):
            _, fit_rows, score_rows = peer(features, fit, score)
            mine, held = rows(fold)
            assert np.abs(mine @ mine.T - fit_rows @ fit_rows.T).max() < 1e-3
            assert np.abs(held @ mine.T - score_rows @ fit_rows.T).max() < 1e-3


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads_do_not_change_the_products(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    features, labels, pairs = make_problem("sparse", (60, 900))
    fits = [fit for fit, _ in pairs]
    whole_made = gram.compute_grams(TrainingData.from_arrays(features, labels, pairs).features, fits, 1)
    monkeypatch.setattr(gram, "_READ", 1)
    monkeypatch.setattr(gram, "_COLUMNS", 64)
    for mine, theirs in zip(
        gram.compute_grams(TrainingData.from_arrays(features, labels, []).features, fits, threads), whole_made, strict=True
    ):
        assert np.abs(mine.products - theirs.products).max() < 1e-6 * theirs.products.max()
        assert np.array_equal(mine.mean, theirs.mean)
        assert np.array_equal(mine.scale, theirs.scale)


def test_folds_are_made_once_for_all_heads_unless_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, pairs = make_problem("binary", WIDE)
    some = TrainingData.from_arrays(features, labels, pairs)
    assert [id(fold) for fold in iter_folds(some)] == [id(fold) for fold in iter_folds(some)]
    monkeypatch.setattr(fold_module, "_CACHE_BYTES", 0)
    large = TrainingData.from_arrays(features, labels, pairs)
    assert list(iter_folds(large))
    assert not large.cache
    monkeypatch.setattr(fold_module, "_GRAM_BYTES", 1)
    again = list(iter_folds(TrainingData.from_arrays(features, labels, pairs)))
    assert [fold.fit_rows.tolist() for fold in again] == [fit.tolist() for fit, _ in pairs]


def test_standardising_copies_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fold_module, scatter):
        monkeypatch.setattr(module, "_BLOCK", 1 << 16)
    features = np.random.default_rng(0).normal(size=(20000, 40)).astype(np.float32)
    labels = np.arange(20000) % 2
    some = TrainingData.from_arrays(features, labels, [(np.arange(10000), np.arange(10000, 20000))])
    tracemalloc.start()
    for fold in iter_folds(some):
        fold.compute_moments()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * features.nbytes
