"""The joint solver of linear heads: scikit-learn, run to tight tolerances, is the oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from humeris.classify.data.feature_matrix import FeatureMatrix, TapColumns
from humeris.classify.heads.linear import cv_fold, design_matrix, fold_objective, joint_solver, regularization_path
from humeris.classify.heads.linear.losses import Logistic, Loss, Multinomial, SquaredHinge
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData

logreg, svm = (get_head_family("logreg"), get_head_family("svm"))

Folds = list[tuple[np.ndarray, np.ndarray]]
PATH = (1e-3, 1e-1, 1e1)
EVERY = (
    "binary", "many classes", "unbalanced", "fewer rows than columns", "far fewer rows", "many rows", "collinear",
    "constant columns", "wildly scaled", "separable", "far from zero", "noise", "twins",
)  # fmt: skip


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) float32 and labels (n,)."""
    random = np.random.default_rng(EVERY.index(kind))
    rows, columns, classes, apart = {
        "binary": (200, 20, 2, 0.5),
        "many classes": (600, 30, 20, 1.0),
        "unbalanced": (300, 15, 3, 0.8),
        "fewer rows than columns": (90, 150, 3, 0.5),
        "far fewer rows": (60, 3000, 4, 0.3),
        "many rows": (3000, 12, 4, 0.7),
    }.get(kind, (240, 24, 4, 0.7))
    labels = np.arange(rows) % classes
    if kind == "unbalanced":
        labels = np.where(np.arange(rows) % 12 == 0, 2, np.where(np.arange(rows) % 4 == 0, 1, 0))
    features = random.normal(size=(rows, columns)) + apart * random.normal(size=(classes, columns))[labels]
    if kind == "collinear":
        features[:, 12:] = features[:, :12] @ random.normal(size=(12, 12))
    if kind == "constant columns":
        features[:, [0, 7]] = 0.0, 5.0
    if kind == "wildly scaled":
        features *= np.logspace(-12, 12, columns)
    if kind == "separable":
        features += 8 * np.eye(classes, columns)[labels]
    if kind == "far from zero":
        features += 3000 * random.normal(size=columns)
    if kind == "noise":
        labels = random.permutation(labels)
    if kind == "twins":
        features[rows // 2 :] = features[: rows - rows // 2]
        labels[rows // 2 :] = labels[: rows - rows // 2]
    return features.astype(np.float32), labels


def problem(kind: str, count: int = 4) -> tuple[TrainingData, Folds]:
    features, labels = data(kind)
    folds = list(StratifiedKFold(count, shuffle=True, random_state=1).split(features, labels))
    return TrainingData.from_arrays(features, labels, folds), folds


def objective(weights: np.ndarray, bias: np.ndarray, rows: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    """scikit-learn's, in float64: weights (k, d), bias (k,), rows (n, d)."""
    logits = rows @ weights.T + bias
    if len(bias) == 1:
        losses = np.logaddexp(0, logits[:, 0]) - labels * logits[:, 0]
    else:
        losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return float(0.5 * (weights**2).sum() + penalty * losses.sum())


def apart(left: np.ndarray, right: np.ndarray) -> float:
    """The largest difference of logits (n, k), relative to their size, but for what all classes share."""
    if left.shape[1] > 1:
        left, right = left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)
    return float(np.abs(left - right).max() / max(1.0, np.abs(right).max()))


def loss_of(problem: TrainingData) -> Loss:
    return Logistic() if problem.n_classes == 2 else Multinomial()


def peer(rows: np.ndarray, labels: np.ndarray, penalty: float) -> LogisticRegression:
    return LogisticRegression(C=penalty, tol=1e-9, max_iter=20000).fit(rows, labels)


@pytest.mark.parametrize("kind", EVERY)
def test_the_objective_is_scikit_learns_within_one_in_ten_thousand(kind: str) -> None:
    features, labels = data(kind)
    whole = TrainingData.from_arrays(features, labels, [])
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    for penalty in PATH:
        back, weights, bias = regularization_path.fit(whole, loss_of(whole), penalty)
        in_columns = np.vstack([part for _, part in back.iter_column_weights(weights)])
        found = objective(in_columns.T, bias.astype(np.float64), scaled, labels, penalty)
        model = peer(scaled, labels, penalty)
        least = objective(model.coef_, model.intercept_, scaled, labels, penalty)
        assert -1e-5 < found / least - 1 < 1e-4, penalty


@pytest.mark.parametrize("kind", EVERY)
def test_every_fold_predicts_what_scikit_learn_predicts(kind: str) -> None:
    given, folds = problem(kind)
    found = regularization_path.cross_validate(given, loss_of(given), PATH)
    features, labels = given.features.to_array().astype(np.float64), given.labels
    differ = total = 0
    for number, (fit, score) in enumerate(folds):
        scaler = StandardScaler().fit(features[fit])
        for penalty, answers in zip(PATH, found, strict=True):
            model = peer(scaler.transform(features[fit]), labels[fit], penalty)
            logits = answers.logits[number]
            ours = logits.argmax(axis=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(int)
            theirs = model.decision_function(scaler.transform(features[score]))
            ordered = np.sort(theirs if theirs.ndim > 1 else np.stack([-theirs, theirs], axis=1), axis=1)
            tied = ordered[:, -1] - ordered[:, -2] < 1e-3 * (1 + np.abs(ordered[:, -1]))
            differ += int(((ours != model.predict(scaler.transform(features[score]))) & ~tied).sum())
            total += len(score)
    assert differ <= total / 1000


@pytest.mark.parametrize("kind", ["binary", "many classes", "unbalanced", "far fewer rows", "collinear", "wildly scaled"])
def test_a_support_vector_machine_is_scikit_learns_with_a_free_intercept(kind: str) -> None:
    features, labels = data(kind)
    whole = TrainingData.from_arrays(features, labels, [])
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    penalty = 0.01
    back, weights, bias = regularization_path.fit(whole, SquaredHinge(), penalty)
    ours = scaled @ np.vstack([part for _, part in back.iter_column_weights(weights)]) + bias
    model = LinearSVC(C=penalty, tol=1e-10, max_iter=200000, intercept_scaling=1000, random_state=0).fit(scaled, labels)
    theirs = model.decision_function(scaled).reshape(len(labels), -1)
    assert np.abs(ours - theirs).max() < 5e-3


def test_the_head_of_a_support_vector_machine_orders_classes_as_scikit_learn_does() -> None:
    given, folds = problem("many classes")
    (score,) = svm.cross_validate(given, [{"C": 0.01}], 0)
    features, labels = given.features.to_array(), given.labels
    right = []
    for fit, held in folds:
        scaler = StandardScaler().fit(features[fit])
        model = LinearSVC(C=0.01, max_iter=20000, intercept_scaling=1000).fit(scaler.transform(features[fit]), labels[fit])
        right.append(float((model.predict(scaler.transform(features[held])) == labels[held]).mean()))
    assert score.folds == pytest.approx(right, abs=1 / 150 + 1e-9)
    head = svm.fit(given, {"C": 0.01}, score.fit_info, 0)
    probabilities = head.predict_proba(features)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert score.fit_info["temperature"] > 0


@pytest.mark.parametrize("loss", [Multinomial(), SquaredHinge()])
@pytest.mark.parametrize("kind", ["separable", "far fewer rows", "wildly scaled"])
def test_no_strength_that_may_be_asked_for_leaves_the_numbers(
    kind: str, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, _ = problem(kind)
    monkeypatch.setattr(regularization_path, "MAX_ITER", 30)
    for answers in regularization_path.cross_validate(given, loss, [1e-12, 1e-6, 1.0, 1e6, 1e12]):
        assert all(np.isfinite(logits).all() for logits in answers.logits)


def shared_and_turned(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the first fold's rows to score for the middle C, through either way of holding the rows."""
    given, folds = problem(kind)
    fitted = np.zeros((len(folds), len(given.labels)), bool)
    for mask, (fit, _) in zip(fitted, folds, strict=True):
        mask[fit] = True
    found = []
    for turned in (False, True):
        parts = list(cv_fold.iter_folds(given, turned))
        rows = (
            design_matrix.ProjectedDesign(len(given.labels), parts)
            if turned
            else design_matrix.SharedDesign(given.features, parts)
        )
        made = joint_solver.Solver(rows, loss_of(given), given.labels, given.n_classes, fitted, tolerance=1e-9)
        found.append([solution.logits[0][:, folds[0][1]] for solution in made.solve_path(PATH)][1])
    return found[0], found[1]


@pytest.mark.parametrize("kind", ["fewer rows than columns", "far fewer rows", "binary"])
def test_rows_turned_into_their_span_have_the_answers_of_all_columns(kind: str) -> None:
    shared, turned = shared_and_turned(kind)
    assert apart(shared.T, turned.T) < 2e-3


def test_folds_are_solved_as_if_they_were_alone() -> None:
    given, folds = problem("unbalanced")
    together = regularization_path.cross_validate(given, Multinomial(), PATH)
    for number, pair in enumerate(folds):
        alone = TrainingData.from_arrays(given.features.to_array(), given.labels, [pair])
        for theirs, ours in zip(regularization_path.cross_validate(alone, Multinomial(), PATH), together, strict=True):
            assert apart(theirs.logits[0], ours.logits[number]) < 0.02


def test_rows_that_are_held_out_do_not_move_what_is_learnt() -> None:
    features, labels = data("unbalanced")
    fit, held = np.arange(200), np.arange(200, 300)
    spoilt, other = features.copy(), labels.copy()
    spoilt[held] = 1e3 * np.random.default_rng(0).normal(size=spoilt[held].shape)
    other[held] = 0
    (plain,) = regularization_path.cross_validate(
        TrainingData.from_arrays(features, labels, [(fit, fit)]), Multinomial(), [0.1]
    )
    (moved,) = regularization_path.cross_validate(
        TrainingData.from_arrays(spoilt, other, [(fit, fit)]), Multinomial(), [0.1]
    )
    assert apart(plain.logits[0], moved.logits[0]) < 1e-3


def test_a_path_needs_fewer_evaluations_than_its_values_of_c_alone() -> None:
    given, folds = problem("many rows")
    fitted = np.zeros((len(folds), len(given.labels)), bool)
    for mask, (fit, _) in zip(fitted, folds, strict=True):
        mask[fit] = True

    def evaluations(paths: list[list[float]]) -> int:
        rows = design_matrix.SharedDesign(given.features, list(cv_fold.iter_folds(given, False)))
        solvers = [joint_solver.Solver(rows, Multinomial(), given.labels, 4, fitted) for _ in paths]
        return sum(each.evaluations for made, path in zip(solvers, paths, strict=True) for each in made.solve_path(path))

    path = np.geomspace(1e-3, 1e3, 7).tolist()
    assert evaluations([path]) < 0.8 * evaluations([[value] for value in path])


class Unheld:
    """Rows as the cache serves them."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        rows = self._rows[keys.astype(int) + view]
        return rows if columns is None else rows[:, columns]


@pytest.mark.parametrize("kind", ["many classes", "far from zero", "far fewer rows"])
def test_features_larger_than_memory_are_solved_block_by_block(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, folds = problem(kind)
    whole = given.features.to_array()
    expected = regularization_path.cross_validate(given, Multinomial(), PATH)
    monkeypatch.setattr(FeatureMatrix, "fits_in_memory", property(lambda self: self._array is not None))
    monkeypatch.setattr(design_matrix, "_BLOCK", whole.nbytes // 5)
    stored = Unheld(whole)
    places = np.arange(len(whole))
    part = TapColumns(stored, places, np.zeros(len(whole), int))
    unheld = TrainingData(FeatureMatrix.from_tap_columns([part]), given.labels, given.target, tuple(folds), places)
    found = regularization_path.cross_validate(unheld, Multinomial(), PATH)
    assert unheld.features._array is None
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours.logits, theirs.logits, strict=True):
            assert apart(one, other) < 0.02


def test_several_threads_give_the_answers_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_objective, "_CHUNK", 512)
    given, _ = problem("many classes")
    several = TrainingData(given.features, given.labels, given.target, given.folds, given.images, threads=3)
    for one, other in zip(
        regularization_path.cross_validate(given, Multinomial(), PATH),
        regularization_path.cross_validate(several, Multinomial(), PATH),
        strict=True,
    ):
        for left, right in zip(one.logits, other.logits, strict=True):
            assert apart(left, right) < 0.02


def test_large_numbers_of_columns_are_preconditioned_by_their_leading_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = problem("many classes")
    expected = regularization_path.cross_validate(given, Multinomial(), PATH)
    monkeypatch.setattr(design_matrix, "_MAX_FULL_EIGEN", 10)
    monkeypatch.setattr(design_matrix, "_N_LEADING", 8)
    for ours, theirs in zip(regularization_path.cross_validate(given, Multinomial(), PATH), expected, strict=True):
        assert ours.converged
        for one, other in zip(ours.logits, theirs.logits, strict=True):
            assert apart(one, other) < 0.02


def slope_by_differences(loss: Loss, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    out = np.empty_like(logits)
    for place in np.ndindex(*logits.shape):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * 1e-5
            ends.append(loss.evaluate(moved, labels, weights)[0])
        out[place] = (ends[0] - ends[1]) / 2e-5
    return out


@pytest.mark.parametrize(
    ("loss", "outputs"), [(Multinomial(), 3), (Logistic(), 1), (SquaredHinge(), 3), (SquaredHinge(), 1)]
)
def test_a_residual_is_the_derivative_of_the_loss(loss: Loss, outputs: int) -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(outputs, 9)), np.arange(9) % max(2, outputs)
    weights = (np.arange(9) % 4 > 0).astype(float)
    _, residual = loss.evaluate(logits.copy(), labels, weights)
    assert residual == pytest.approx(slope_by_differences(loss, logits, labels, weights), abs=1e-6)
    assert not residual[:, weights == 0].any()


@pytest.mark.parametrize("make", [lambda: logreg.expand_grid({}), lambda: svm.expand_grid({})])
def test_the_settings_ascend_in_c(make: Callable[[], list[dict[str, float]]]) -> None:
    tried = [setting["C"] for setting in make()]
    assert tried == sorted(tried)


def test_scores_are_in_the_order_of_the_settings_given() -> None:
    given, _ = problem("binary")
    forth = logreg.cross_validate(given, [{"C": 0.01}, {"C": 1.0}], 0)
    back = logreg.cross_validate(given, [{"C": 1.0}, {"C": 0.01}], 0)
    assert [score.log_loss for score in forth] == pytest.approx([score.log_loss for score in reversed(back)])
    assert forth[0].log_loss != pytest.approx(forth[1].log_loss, abs=1e-3)


@pytest.mark.parametrize(("loss", "classes"), [(Multinomial(), 4), (Logistic(), 2)])
def test_losses_far_down_keep_their_digits(loss: Loss, classes: int) -> None:
    """Rows that are classified rightly by far: 1 - p is 1e-7 and less, which float32 does not have beside 1."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 200)
    logits = random.normal(size=(loss.count_outputs(classes), 200)).astype(np.float32)
    margins = random.uniform(-5, 40, 200).astype(np.float32)
    if classes == 2:
        logits[0] += np.where(labels == 1, margins, -margins)
        both = np.stack([np.zeros(200), logits[0].astype(np.float64)])
    else:
        logits[labels, np.arange(200)] += margins
        both = logits.astype(np.float64)
    for row in range(200):
        weights = (np.arange(200) == row).astype(np.float32)
        found, residual = loss.evaluate(logits.copy(), labels, weights)
        rest = np.delete(both[:, row], labels[row]) - both[labels[row], row]
        expected = np.log1p(np.exp(rest).sum())
        own = residual[0, row] * (1 if labels[row] else -1) if classes == 2 else residual[labels[row], row]
        assert found == pytest.approx(expected, rel=1e-5)
        assert own == pytest.approx(np.expm1(-expected), rel=1e-5)


def test_wide_rows_that_are_separated_by_far_converge_at_every_strength() -> None:
    """Their loss is less than 1e-5 a row: it must not be lost in rounding."""
    random = np.random.default_rng(3)
    labels = np.arange(120) % 4
    rows = (
        random.normal(size=(120, 2000)).astype(np.float32) + 0.3 * random.normal(size=(4, 2000)).astype(np.float32)[labels]
    )
    given = TrainingData.from_arrays(rows, labels, [])
    scaled = StandardScaler().fit_transform(rows.astype(np.float64))
    for penalty in (1e2, 1e4):
        back, weights, bias = regularization_path.fit(given, Multinomial(), penalty)
        in_columns = np.vstack([part for _, part in back.iter_column_weights(weights)]).T
        model = peer(scaled, labels, penalty)
        least = objective(model.coef_, model.intercept_, scaled, labels, penalty)
        found = objective(in_columns, bias.astype(np.float64), scaled, labels, penalty)
        assert -1e-3 < found / least - 1 < 1e-4


def test_a_strength_is_reached_by_steps_with_the_same_answers() -> None:
    """Of a path with far jumps only what was asked for is answered, in its order, as along a path with short steps."""
    given, _ = problem("many classes")
    every = regularization_path.cross_validate(given, loss_of(given), [1e-3, 1e-1, 1e1, 1e3])
    far = regularization_path.cross_validate(given, loss_of(given), [1e-3, 1e3])
    (alone,) = regularization_path.cross_validate(given, loss_of(given), [1e3])
    assert [len(each.logits) for each in far] == [4, 4]
    for place, found in ((0, far[0]), (3, far[1]), (3, alone)):
        for ours, theirs in zip(found.logits, every[place].logits, strict=True):
            assert apart(ours, theirs) < 0.02
