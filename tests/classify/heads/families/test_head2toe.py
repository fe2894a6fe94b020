"""Head2Toe: scikit-learn's own pipeline, written out fold by fold, is the oracle; nothing of the rows to score leaks in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, MultiTaskLasso
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.cache.errors import HeadError
from humeris.cache.store import Store
from humeris.classify.data import select_features
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.export.stack_model import stack_model
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import SelectColumns
from humeris.classify.heads.linear import group_lasso
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.taps import Tap
from humeris.extract.images.load import load_images
from humeris.extract.pixels.decode import decode

head2toe, logreg = (get_head_family("head2toe"), get_head_family("logreg"))

Folds = list[tuple[np.ndarray, np.ndarray]]
SETTING = {"penalty": 0.2, "fraction": 0.1, "C": 0.1}


def problem(rows: int = 90, columns: int = 200, told: int = 8) -> tuple[np.ndarray, np.ndarray, Folds]:
    """Features of which `told` columns tell three classes apart and the others nothing, labels, and five folds."""
    random = np.random.default_rng(5)
    labels = np.arange(rows) % 3
    features = random.normal(size=(rows, columns))
    features[:, 20 : 20 + told] += 1.2 * random.normal(size=(3, told))[labels]
    features = (features + 3) * np.logspace(-2, 2, columns)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels))
    return features.astype(np.float32), labels, folds


def strongest(features: np.ndarray, labels: np.ndarray, penalty: float, count: int) -> np.ndarray:
    """The columns that scikit-learn's group lasso on all columns at once weighs most, those it drops by their gradient."""
    x, y = StandardScaler().fit_transform(features.astype(np.float64)), np.eye(labels.max() + 1)[labels]
    y -= y.mean(axis=0)
    alpha = penalty * np.linalg.norm(x.T @ y, axis=1).max() / len(x)
    lasso = MultiTaskLasso(alpha, fit_intercept=False, tol=1e-6, max_iter=10_000).fit(x, y)
    gradient = np.linalg.norm(x.T @ (y - x @ lasso.coef_.T), axis=1)
    return np.lexsort((-gradient, -np.linalg.norm(lasso.coef_.T, axis=1)))[:count]


def peer(c: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))


def test_scores_equal_a_pipeline_written_out_fold_by_fold() -> None:
    features, labels, folds = problem()
    tried = head2toe.expand_grid({"penalty": "0.2/0.5", "fraction": "0.02/0.1", "C": "0.01/1"})
    found = head2toe.cross_validate(TrainingData.from_arrays(features, labels, folds), tried, seed=0)
    for setting, score in zip(tried, found, strict=True):
        accuracy, loss, right = [], [], np.zeros(len(labels), bool)
        count = round(setting["fraction"] * features.shape[1])
        for fit, held in folds:
            columns = strongest(features[fit], labels[fit], setting["penalty"], count)
            model = peer(setting["C"]).fit(features[fit][:, columns], labels[fit])
            answers = model.predict_proba(features[held][:, columns])
            right[held] = answers.argmax(axis=1) == labels[held]
            accuracy.append(right[held].mean())
            loss.append(log_loss(labels[held], answers))
        assert score.folds == pytest.approx(accuracy)
        assert score.accuracy == pytest.approx(np.mean(accuracy))
        assert score.log_loss == pytest.approx(np.mean(loss), rel=1e-2)
        assert bytes.fromhex(score.correct) == np.packbits(right).tobytes()
        assert score.fit_info == {"columns": count, "converged": True}


@pytest.mark.parametrize("seed", range(3))
def test_random_labels_stay_at_chance_however_many_columns_there_are(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(size=(100, 4000)).astype(np.float32)
    labels = random.permutation(np.arange(100) % 2)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(features, labels))
    tried = head2toe.expand_grid({"fraction": "0.002/0.01", "C": "0.1"})
    for score in head2toe.cross_validate(TrainingData.from_arrays(features, labels, folds), tried, seed=0):
        assert abs(score.accuracy - 0.5) < 3 * 0.05  # three standard errors


def test_random_labels_stay_at_chance_with_views_and_groups() -> None:
    random = np.random.default_rng(9)
    images = np.repeat(np.arange(60), 3)
    labels = random.permutation(np.arange(60) % 2)[images]
    features = (random.normal(size=(60, 2000))[images] + 0.1 * random.normal(size=(180, 2000))).astype(np.float32)
    folds = tuple(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(features, labels, images))
    views = TrainingData(FeatureMatrix.from_array(features), labels, SingleLabel.from_n_classes(2), folds, images)
    (score,) = head2toe.cross_validate(views, [{**SETTING, "fraction": 0.01}], seed=0)
    assert abs(score.accuracy - 0.5) < 3 * 0.065
    assert len(bytes.fromhex(score.correct)) == 8  # a bit for each of the 60 images


def test_rows_to_score_have_no_part_in_what_is_selected() -> None:
    features, labels, folds = problem()
    before = head2toe.cross_validate(TrainingData.from_arrays(features, labels, folds[:1]), [SETTING], seed=0)[0]
    changed = labels.copy()
    changed[folds[0][1]] = (labels[folds[0][1]] + 1) % 3
    after = head2toe.cross_validate(TrainingData.from_arrays(features, changed, folds[:1]), [SETTING], seed=0)[0]
    model = peer(0.1).fit(*_selected(features, labels, folds[0][0]))
    theirs = model.predict(features[folds[0][1]][:, _columns(features, labels, folds[0][0])])
    assert before.accuracy == pytest.approx((theirs == labels[folds[0][1]]).mean())
    assert after.accuracy == pytest.approx((theirs == changed[folds[0][1]]).mean())


def _columns(features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return strongest(features[rows], labels[rows], SETTING["penalty"], round(SETTING["fraction"] * features.shape[1]))


def _selected(features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features[rows][:, _columns(features, labels, rows)], labels[rows]


def test_a_few_columns_that_tell_beat_all_columns_and_are_the_ones_kept() -> None:
    features, labels, folds = problem(columns=3000)
    whole = TrainingData.from_arrays(features, labels, folds)
    tried = [{"penalty": 0.4, "fraction": 0.003, "C": 0.1}]
    (found,) = head2toe.cross_validate(whole, tried, seed=0)
    on_all = max(score.accuracy for score in logreg.cross_validate(whole, logreg.expand_grid({"C": "0.001/0.1"}), seed=0))
    assert found.accuracy > on_all + 0.1
    head = head2toe.fit(TrainingData.from_arrays(features, labels, []), tried[0], found.fit_info, seed=0)
    kept = head.layers[0]
    assert isinstance(kept, SelectColumns)
    assert len(kept.indices) == 9
    assert len(set(kept.indices.tolist()) & set(range(20, 28))) >= 5


def test_a_fitted_head_answers_as_the_pipeline_on_raw_rows_and_survives_its_files(tmp_path: Path) -> None:
    features, labels, _ = problem()
    head = head2toe.fit(TrainingData.from_arrays(features, labels, []), SETTING, {}, seed=0)
    columns = _columns(features, labels, np.arange(len(labels)))
    model = peer(SETTING["C"]).fit(features[:, columns], labels)
    assert np.abs(head.predict_proba(features) - model.predict_proba(features[:, columns])).max() < 1e-3
    (tmp_path / "head.npz").write_bytes(head.to_npz_bytes())
    again = Head.load(tmp_path / "head.npz", json.loads(json.dumps(head.to_metadata())))
    assert (again.predict_proba(features) == head.predict_proba(features)).all()


def test_settings_do_not_depend_on_what_was_tried_beside_them() -> None:
    features, labels, folds = problem()
    tried = head2toe.expand_grid({"penalty": "0.1/0.3", "fraction": "0.02/0.2", "C": "0.01/0.1"})
    together = head2toe.cross_validate(TrainingData.from_arrays(features, labels, folds), tried[::-1], seed=0)[::-1]
    for setting, score in zip(tried, together, strict=True):
        (alone,) = head2toe.cross_validate(TrainingData.from_arrays(features, labels, folds), [setting], seed=0)
        assert alone.folds == pytest.approx(score.folds)
        assert alone.log_loss == pytest.approx(score.log_loss, rel=5e-3)


def test_a_group_lasso_that_stopped_short_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, folds = problem()
    monkeypatch.setattr(group_lasso, "_MAX_ITER", 1)
    (score,) = head2toe.cross_validate(
        TrainingData.from_arrays(features, labels, folds), [{**SETTING, "penalty": 0.001}], seed=0
    )
    assert score.fit_info["converged"] is False


def test_on_several_taps_of_a_backbone_the_model_answers_as_the_head(finished: Any) -> None:
    store = Store(finished.cache)
    images = load_images(finished.photos, store, jobs=1)
    chosen = {trial.tap_refs[0] for trial in finished.run.load_trials()}
    wanted = sorted(chosen, reverse=True)
    features = select_features.load_matrix(store, wanted, images.keys).to_array()
    labels = np.array([images.dataset.classes.index(label) for label in images.labels])
    setting = {"penalty": 0.05, "fraction": 0.3, "C": 0.1}
    head = head2toe.fit(TrainingData.from_arrays(features, labels, []), setting, {}, 0)
    width = select_features.load_matrix(store, wanted[:1], images.keys).shape[1]
    kept = head.layers[0]
    assert isinstance(kept, SelectColumns)
    assert 0 < (kept.indices < width).sum() < len(kept.indices)  # some of each tap
    model = stack_model(build(BackboneSpec.parse("nano")), [Tap(source.layer, source.pool) for source in wanted], head)
    pixels = np.stack([decode(Path(image.item.location).read_bytes(), (64, 64)) for image in images.used])
    answers = model.predict_on_batch(pixels)
    assert np.ptp(answers, axis=0).max() > 0.05
    assert np.abs(answers - head.predict_proba(features)).max() <= 1e-4


def test_it_is_for_all_taps_side_by_side() -> None:
    assert head2toe.uses_all_taps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fraction": 1},
            "head head2toe: invalid fraction 1; give a number between 0 and 1, both excluded, or several as a/b/c",
        ),
        ({"lambda": 1}, r"head head2toe has no option 'lambda' \(options: penalty, fraction, C\); use one of these"),
        ({"fraction": "0"}, "head head2toe: invalid fraction '0'; give "),
        ({"fraction": "1.5"}, "head head2toe: invalid fraction '1.5'; give "),
        ({"penalty": "2"}, "head head2toe: invalid penalty '2'; give "),
        ({"penalty": "nan"}, "head head2toe: invalid penalty 'nan'; give "),
        ({"C": "inf"}, "head head2toe: invalid C 'inf'; give "),
        ({"C": "few"}, "head head2toe: invalid C 'few'; give "),
    ],
)
def test_an_option_that_cannot_be_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=f"^{message}") as caught:
        head2toe.expand_grid(options)
    assert "\n" not in str(caught.value)


def test_every_combination_is_tried() -> None:
    tried = head2toe.expand_grid({"fraction": "0.5/0.1", "C": "1/0.1"})
    assert [(each["fraction"], each["C"]) for each in tried] == [(0.1, 0.1), (0.1, 1.0), (0.5, 0.1), (0.5, 1.0)]
    assert len(head2toe.expand_grid({})) == 12
