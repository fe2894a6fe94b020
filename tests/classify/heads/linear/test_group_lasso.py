"""The group lasso that ranks columns: its optimality conditions, a slow smooth solver and a closed form are the oracles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from humeris.classify.data import feature_matrix
from humeris.classify.data.feature_matrix import FeatureMatrix, TapColumns
from humeris.classify.heads.linear import group_lasso
from humeris.classify.heads.linear.group_lasso import Ranking, gather, rank

KINDS = ("more rows", "more columns", "collinear", "constant columns", "wildly scaled", "unbalanced")


def problem(kind: str, columns: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) float32 and labels of three classes that a few of the columns tell apart."""
    random = np.random.default_rng(3)
    rows = 25 if kind == "more columns" else 120
    shares = (0.7, 0.2, 0.1) if kind == "unbalanced" else (0.34, 0.33, 0.33)
    labels = random.choice(3, rows, p=shares)
    labels[:6] = 0, 0, 1, 1, 2, 2
    features = random.normal(size=(rows, columns)) + 5
    features[:, :6] += 1.5 * random.normal(size=(3, 6))[labels]
    if kind == "collinear":
        features[:, 20:] = features[:, :20] + 0.01 * random.normal(size=(rows, columns - 20))
    if kind == "constant columns":
        features[:, [1, 30]] = 0, 3.3
    if kind == "wildly scaled":
        features *= np.logspace(-3, 4, columns)
    return features.astype(np.float32), labels


def standard(features: np.ndarray, labels: np.ndarray, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Standardised rows and centred targets, in float64."""
    from sklearn.preprocessing import StandardScaler

    targets = np.eye(classes)[labels]
    return StandardScaler().fit_transform(features.astype(np.float64)), targets - targets.mean(axis=0)


def solved(features: np.ndarray, labels: np.ndarray, share: float, tolerance: float = 1e-6) -> tuple[Ranking, np.ndarray]:
    """The ranking, and the weights (d, k) that the task ended with."""
    rows, found = np.arange(len(labels)), []

    class Kept(group_lasso._Task):
        def build_ranking(self) -> Ranking:
            weights = np.zeros((features.shape[1], 3))
            weights[self._active] = self._weights
            found.append(weights)
            return super().build_ranking()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_lasso, "_Task", Kept)
        patch.setattr(group_lasso, "_INITIAL_COLUMNS", 4)  # so that columns are taken in more than once
        (ranking,) = rank(FeatureMatrix.from_array(features), labels, 3, [rows], share, tolerance)
    return ranking, found[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.6, 0.2, 0.05])
def test_the_optimality_conditions_hold(kind: str, share: float) -> None:
    features, labels = problem(kind)
    ranking, weights = solved(features, labels, share)
    x, y = standard(features, labels)
    assert ranking.converged
    assert ranking.penalty == pytest.approx(share * np.linalg.norm(x.T @ y / len(x), axis=1).max(), rel=1e-4)
    gradient = x.T @ (y - x @ weights) / len(x)
    norms = np.linalg.norm(weights, axis=1)
    kept = norms > 0
    assert 0 < kept.sum() < len(norms)
    direction = weights[kept] / norms[kept, None]
    assert np.abs(gradient[kept] - ranking.penalty * direction).max() < 2e-2 * ranking.penalty
    assert np.linalg.norm(gradient[~kept], axis=1).max() <= ranking.penalty * (1 + group_lasso._SLACK + 1e-4)
    assert ranking.norms == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize("kind", ["more rows", "more columns", "collinear"])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_it_reaches_the_objective_of_a_slow_smooth_solver(kind: str, share: float) -> None:
    features, labels = problem(kind)
    features = features[:, :24]
    ranking, weights = solved(features, labels, share)
    x, y = standard(features, labels)

    def objective(flat: np.ndarray, rounding: float) -> tuple[float, np.ndarray]:
        w = flat.reshape(weights.shape)
        rest, lengths = y - x @ w, np.sqrt((w**2).sum(axis=1) + rounding**2)
        value = (rest**2).sum() / (2 * len(x)) + ranking.penalty * lengths.sum()
        return value, (-x.T @ rest / len(x) + ranking.penalty * w / lengths[:, None]).ravel()

    theirs = np.zeros(weights.size)
    for rounding in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        theirs = minimize(objective, theirs, (rounding,), "L-BFGS-B", True, options={"maxiter": 3000, "ftol": 1e-14}).x
    assert objective(weights.ravel(), 1e-12)[0] == pytest.approx(objective(theirs, 1e-12)[0], rel=1e-4)
    if kind == "more rows":  # elsewhere the solution need not be the only one
        assert np.abs(weights - theirs.reshape(weights.shape)).max() < 5e-3


def test_columns_at_right_angles_shrink_by_the_closed_form() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(48) % 3
    basis = np.linalg.qr(np.hstack([np.ones((48, 1)), random.normal(size=(48, 8)) + np.eye(3)[labels] @ np.ones((3, 8))]))[0]
    features = (basis[:, 1:] * 48**0.5).astype(np.float32)  # mean 0, deviation 1
    ranking, weights = solved(features, labels, 0.3)
    x, y = standard(features, labels)
    correlation = x.T @ y / len(x)
    lengths = np.linalg.norm(correlation, axis=1, keepdims=True)
    expected = np.maximum(0, 1 - ranking.penalty / lengths) * correlation
    assert np.abs(weights - expected).max() < 1e-4
    assert ranking.order.tolist() == np.argsort(-lengths[:, 0], kind="stable").tolist()


def test_a_penalty_that_drops_everything_ranks_by_correlation_with_the_classes() -> None:
    features, labels = problem("more rows")
    ranking, weights = solved(features, labels, 1.0)
    x, y = standard(features, labels)
    assert not weights.any()
    assert ranking.order.tolist() == np.argsort(-np.linalg.norm(x.T @ y, axis=1)).tolist()


def test_columns_that_tell_the_classes_apart_come_first_and_constant_ones_last() -> None:
    features, labels = problem("constant columns")
    ranking, _ = solved(features, labels, 0.3)
    assert set(ranking.order[:4].tolist()) <= {0, 2, 3, 4, 5}
    assert set(ranking.order[-2:].tolist()) == {1, 30}


def test_a_ranking_is_of_its_rows_alone() -> None:
    features, labels = problem("more rows")
    fits = [np.arange(0, 80), np.arange(40, 120)]
    together = rank(FeatureMatrix.from_array(features), labels, 3, fits, 0.2)
    alone = rank(FeatureMatrix.from_array(features), labels, 3, fits[:1], 0.2)[0]
    features[80:] = 1e4
    labels[80:] = 1
    changed = rank(FeatureMatrix.from_array(features), labels, 3, fits[:1], 0.2)[0]
    for other in (alone, changed):
        assert (together[0].order == other.order).all()
        assert (together[0].norms == other.norms).all()
    assert (together[0].order != together[1].order).any()


class Disk:
    """Rows that are read piece by piece, as from the cache, and how large the largest piece was."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.largest = values, 0

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:  # noqa: ARG002
        found = self.values[keys][:, columns or slice(None)]
        self.largest = max(self.largest, found.size if len(keys) > 1 else 0)
        return found


def test_features_larger_than_memory_give_the_same_ranking_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = problem("more rows", columns=300)
    fits = [np.arange(0, 80), np.arange(40, 120)]
    expected = rank(FeatureMatrix.from_array(features), labels, 3, fits, 0.1)
    keys = np.arange(120)
    disks = [Disk(features[:, :130]), Disk(features[:, 130:])]
    stored = FeatureMatrix.from_tap_columns([TapColumns(disk, keys, np.zeros(120, np.intp)) for disk in disks])
    monkeypatch.setattr(feature_matrix, "_SHARE", 0)
    monkeypatch.setattr(group_lasso, "_BLOCK", 4 * 120 * 16)
    found = rank(stored, labels, 3, fits, 0.1)
    assert stored._array is None
    assert max(disk.largest for disk in disks) <= 120 * 16
    for one, two in zip(expected, found, strict=True):
        assert np.abs(one.norms - two.norms).max() < 1e-4
        assert set(np.nonzero(one.norms)[0]) == set(np.nonzero(two.norms)[0])
    columns = np.array([299, 5, 130, 129, 0])
    assert (gather(stored, columns) == features[:, columns]).all()
    assert (gather(FeatureMatrix.from_array(features), columns) == features[:, columns]).all()


def test_a_solution_that_is_not_reached_is_recorded_and_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = problem("collinear")
    monkeypatch.setattr(group_lasso, "_MAX_ITER", 1)
    (ranking,) = rank(FeatureMatrix.from_array(features), labels, 3, [np.arange(120)], 0.01, 1e-9)
    assert not ranking.converged
