"""The MLP head: every option does something, epochs are chosen fairly, and the caller is not disturbed."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from humeris.cache.errors import HeadError
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.evaluate.trial import Score
from humeris.classify.heads.neural import mlp_training
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.search import RandomSearch
from humeris.classify.heads.training_data import TrainingData

mlp = get_head_family("mlp")

Arrays = tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]
SMALL = {"hidden": 8, "dropout": 0.2, "learning_rate": 0.01, "batch_size": 16, "epochs": 6}
(SETTING,) = mlp.expand_grid(SMALL)


def arrays() -> Arrays:
    """An exclusive or of two columns among six: no linear head solves it."""
    generator = np.random.default_rng(5)
    features = generator.normal(size=(120, 6)) * (1, 1, 30, 1, 0.01, 1) + (0, 0, 9, 0, 0, 0)
    labels = ((features[:, 0] > 0) ^ (features[:, 1] > 0)).astype(int)
    folds = StratifiedKFold(2, shuffle=True, random_state=0).split(features, labels)
    return features.astype(np.float32), labels, list(folds)


def problem() -> TrainingData:
    return TrainingData.from_arrays(*arrays())


def of_maps() -> TrainingData:
    features, labels, folds = arrays()
    return TrainingData.from_arrays(np.repeat(features, 4, axis=1).reshape(-1, 4, 3, 2), labels, folds)


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    longer = {**SETTING, "dropout": 0.0, "epochs": 60, "hidden": 32, "patience": 0}
    return mlp.cross_validate(problem(), [SETTING, longer], seed=3)


def test_an_mlp_learns_what_no_linear_head_can(scores: list[Score]) -> None:
    assert scores[1].accuracy > 0.7


def test_a_score_is_that_of_the_epoch_with_the_lowest_log_loss(scores: list[Score]) -> None:
    for score, epochs in zip(scores, (6, 60), strict=True):
        curves = score.fit_info["curves"]
        assert {len(curve) for curve in curves.values()} == {epochs}
        best = int(np.argmin(curves["val_loss"]))
        assert score.fit_info["epochs"] == best + 1
        assert score.log_loss == pytest.approx(curves["val_loss"][best], abs=1e-4)
        assert score.accuracy == pytest.approx(curves["val_accuracy"][best], abs=1e-4)
        assert score.accuracy == pytest.approx(np.mean(score.folds))
        assert set(curves) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_training_stops_after_epochs_that_were_no_better_and_changes_nothing_before() -> None:
    whole = {**SETTING, "epochs": 40, "learning_rate": 0.1, "patience": 0}
    long, short = mlp.cross_validate(problem(), [whole, {**whole, "patience": 3}], seed=1)
    losses = long.fit_info["curves"]["val_loss"]
    stopped = next(n for n in range(1, 41) if n - 1 - int(np.argmin(losses[:n])) == 3)
    assert len(losses) == 40
    assert stopped < 40
    assert short.fit_info["curves"]["val_loss"] == pytest.approx(losses[:stopped], abs=1e-4)
    assert short.fit_info["epochs"] == stopped - 3


def test_both_curves_are_taken_in_the_same_way() -> None:
    """Where the rows held out are those learnt from, the curves are equal, whatever was done to the batches."""
    features, labels, _ = arrays()
    rows = np.arange(len(labels))
    (setting,) = mlp.expand_grid({**SMALL, "dropout": 0.5, "mixup": 0.4, "label_smoothing": 0.2, "batch_norm": True})
    curves = mlp.cross_validate(TrainingData.from_arrays(features, labels, [(rows, rows)]), [setting], seed=0)[0].fit_info[
        "curves"
    ]
    assert curves["loss"] == curves["val_loss"]
    assert curves["accuracy"] == curves["val_accuracy"]


def test_the_training_curve_is_of_rows_learnt_from(scores: list[Score]) -> None:
    curves = scores[1].fit_info["curves"]
    assert curves["accuracy"][-1] > curves["val_accuracy"][-1] + 0.02
    assert curves["loss"][-1] < curves["val_loss"][-1] - 0.02


def test_a_score_is_json(scores: list[Score]) -> None:
    assert Score.from_dict(json.loads(json.dumps(scores[0].to_dict()))) == scores[0]


def test_the_same_seed_gives_the_same_scores(scores: list[Score]) -> None:
    again = mlp.cross_validate(problem(), [SETTING], seed=3)[0]
    assert again.folds == scores[0].folds
    assert again.fit_info == scores[0].fit_info
    other = mlp.cross_validate(problem(), [SETTING], seed=4)[0]
    assert other.fit_info["curves"] != scores[0].fit_info["curves"]


def test_the_same_seed_gives_the_same_head() -> None:
    heads = [mlp.fit(problem(), SETTING, {"epochs": 3}, seed=seed) for seed in (3, 3, 4)]
    answers = [head.predict_proba(arrays()[0]) for head in heads]
    assert (answers[0] == answers[1]).all()
    assert (answers[0] != answers[2]).any()


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    random.seed(11)
    np.random.seed(11)
    python, numpy = random.getstate(), np.random.get_state()
    mlp.cross_validate(problem(), [{**SETTING, "epochs": 1}], seed=0)
    assert random.getstate() == python
    after: Any = np.random.get_state()
    assert all(np.array_equal(one, two) for one, two in zip(numpy, after, strict=True))


OTHERS = {
    "hidden": "8x8",
    "activation": "silu/mish/leaky_relu/gelu",
    "batch_norm": True,
    "dropout": 0.4,
    "optimizer": "sgd/radam/ranger",
    "learning_rate": 0.003,
    "weight_decay": 0.1,
    "schedule": "cosine/one_cycle",
    "label_smoothing": 0.2,
    "mixup": 0.4,
    "batch_size": 32,
    "epochs": 5,
}


def test_every_option_changes_what_is_learnt() -> None:
    """Settings that differ in one option from the first one; no two of them go the same way."""
    tried = [SETTING]
    for name, value in OTHERS.items():
        tried += mlp.expand_grid({**SMALL, "optimizer": "adam", name: value})
    found = mlp.cross_validate(problem(), tried, seed=0)
    curves = {tuple(score.fit_info["curves"]["val_loss"]) for score in found}
    assert len(curves) == len(tried)
    assert set(OTHERS) | {"cutmix", "patience"} == set(SETTING)


def test_cutmix_is_for_whole_maps() -> None:
    tried = mlp.expand_grid({**SMALL, "cutmix": "0/1"})
    found = mlp.cross_validate(of_maps(), tried, seed=0)
    assert found[0].fit_info["curves"] != found[1].fit_info["curves"]
    with pytest.raises(HeadError, match=r"cutmix needs whole maps .* rows have the shape \(6,\)"):
        mlp.cross_validate(problem(), tried, seed=0)


def test_adam_with_weight_decay_is_adamw() -> None:
    pair = [{**SETTING, "optimizer": kind, "weight_decay": 0.1} for kind in ("adam", "adamw")]
    assert len({tuple(each.fit_info["curves"]["val_loss"]) for each in mlp.cross_validate(problem(), pair, seed=0)}) == 1


def test_settings_score_the_same_alone_together_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they are one model; with little memory, one for every two; and what has stopped is taken out at once."""
    rates = "0.001/0.01/0.03/0.1"
    tried = mlp.expand_grid({**SMALL, "learning_rate": rates, "dropout": "0/0.3", "epochs": 12, "patience": 2, "mixup": 0.2})
    together = mlp.cross_validate(problem(), tried, seed=2)
    assert len({len(score.fit_info["curves"]["loss"]) for score in together}) > 1
    alone = [mlp.cross_validate(problem(), [each], seed=2)[0] for each in tried[::3]]
    monkeypatch.setattr(mlp_training, "_MIN_REBUILD_WEIGHTS", 0)
    narrowed = mlp.cross_validate(problem(), tried, seed=2)
    monkeypatch.setattr(mlp_training, "_MAX_MEMORY_BYTES", 12_000)
    assert len(mlp.group(problem(), tried)) == 4
    parts = mlp.cross_validate(problem(), tried, seed=2)
    for found, expected in [(alone, together[::3]), (narrowed, together), (parts, together)]:
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.fit_info["epochs"] == theirs.fit_info["epochs"]
            assert mine.fit_info["curves"]["val_loss"] == pytest.approx(theirs.fit_info["curves"]["val_loss"], abs=2e-4)
            assert mine.log_loss == pytest.approx(theirs.log_loss, abs=1e-4)


def test_views_of_an_image_are_averaged() -> None:
    """Each image twice, the second view disturbed: curves and score are of images, not of rows."""
    features, labels, _ = arrays()
    shown = np.repeat(np.arange(120), 2)
    views = features[shown] + np.random.default_rng(0).normal(size=(240, 6), scale=0.5) * (np.arange(240) % 2)[:, None]
    fold = (np.flatnonzero(shown < 60), np.flatnonzero(shown >= 60))
    posed = TrainingData(
        FeatureMatrix.from_array(views.astype(np.float32)), labels[shown], SingleLabel.from_n_classes(2), (fold,), shown
    )
    (score,) = mlp.cross_validate(posed, [SETTING], seed=0)
    best = score.fit_info["epochs"] - 1
    assert score.log_loss == pytest.approx(score.fit_info["curves"]["val_loss"][best], abs=1e-4)
    assert score.accuracy * 60 == pytest.approx(round(score.accuracy * 60))
    assert score.fit_info["curves"]["accuracy"][0] * 60 == pytest.approx(
        round(score.fit_info["curves"]["accuracy"][0] * 60), abs=1e-2
    )
    assert score.accuracy == pytest.approx(score.fit_info["curves"]["val_accuracy"][best], abs=1e-4)


class Streamed(FeatureMatrix):
    """A matrix that is too large to be held: it may be read a few rows at a time."""

    most = 0

    @classmethod
    def from_array(cls, array: np.ndarray) -> Streamed:
        found = cls([], [array.shape[1:]], len(array))
        found.kept = array
        return found

    kept: np.ndarray

    def to_array(self) -> np.ndarray:
        raise AssertionError("the whole matrix was asked for")

    def __getitem__(self, rows: Any) -> np.ndarray:
        Streamed.most = max(Streamed.most, len(np.unique(rows)))
        return self.kept[rows]


def test_features_are_read_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.classify.heads.neural import parallel_mlp

    monkeypatch.setattr(parallel_mlp, "_SCALER_BLOCK_VALUES", 16 * 6)
    features, labels, folds = arrays()
    streamed = TrainingData(
        Streamed.from_array(features), labels, SingleLabel.from_n_classes(2), tuple(folds), np.arange(120)
    )
    found = mlp.cross_validate(streamed, [SETTING], seed=3)[0]
    head = mlp.fit(streamed, SETTING, {"epochs": 2}, seed=0)
    assert found.fit_info == mlp.cross_validate(problem(), [SETTING], seed=3)[0].fit_info
    assert np.array_equal(
        head.predict_proba(features), mlp.fit(problem(), SETTING, {"epochs": 2}, seed=0).predict_proba(features)
    )
    assert Streamed.most <= 60  # the rows that are scored here; never more than a block of them


def test_constant_columns_are_no_obstacle() -> None:
    features, labels, folds = arrays()
    features[:, 3] = 7
    (setting,) = mlp.expand_grid({**SMALL, "batch_norm": True, "epochs": 2})
    (found,) = mlp.cross_validate(TrainingData.from_arrays(features, labels, folds), [setting], seed=0)
    head = mlp.fit(TrainingData.from_arrays(features, labels, []), setting, {"epochs": 2}, seed=0)
    assert np.isfinite(found.log_loss)
    assert np.isfinite(head.predict_proba(features)).all()


def test_a_head_that_diverges_is_scored_as_knowing_nothing_and_spoils_no_other() -> None:
    wild = {**SETTING, "optimizer": "sgd", "learning_rate": 1e30}
    calm = {**SETTING, "optimizer": "sgd"}
    lost, kept = mlp.cross_validate(problem(), [wild, calm], seed=0)
    assert lost.log_loss == pytest.approx(np.log(2), abs=1e-5)
    assert kept.fit_info["curves"]["val_loss"] == pytest.approx(
        mlp.cross_validate(problem(), [calm], seed=0)[0].fit_info["curves"]["val_loss"], abs=1e-4
    )


def test_every_combination_of_options_is_tried() -> None:
    found = mlp.expand_grid({"hidden": "8/16x4", "dropout": [0, 0.5]})
    assert [(each["hidden"], each["dropout"]) for each in found] == [(8, 0.0), (8, 0.5), ("16x4", 0.0), ("16x4", 0.5)]
    assert {each["epochs"] for each in found} == {40}
    assert json.loads(json.dumps(found)) == found


def test_rates_and_decays_left_out_are_kerass_own() -> None:
    found = {each["optimizer"]: each for each in mlp.expand_grid({"optimizer": "sgd/adam/adamw/radam/ranger"})}
    assert {kind: each["learning_rate"] for kind, each in found.items()} == {
        "sgd": 0.01,
        "adam": 0.001,
        "adamw": 0.001,
        "radam": 0.001,
        "ranger": 0.001,
    }
    assert {kind for kind, each in found.items() if each["weight_decay"]} == {"adamw"}
    assert found["adamw"]["weight_decay"] == 0.004


def test_a_search_draws_settings_that_are_settings() -> None:
    found = RandomSearch(12, 0).build_grid("mlp", {}).hyperparameter_sets
    assert len({json.dumps(each) for each in found}) == 12
    assert all(len({each[name] for each in found}) > 1 for name in mlp.search_space)


def test_swish_is_silu() -> None:
    assert [each["activation"] for each in mlp.expand_grid({"activation": "swish/silu/relu"})] == ["silu", "relu"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden", "0"),
        ("hidden", "64x"),
        ("activation", "tanh"),
        ("batch_norm", "maybe"),
        ("dropout", "1"),
        ("dropout", "nan"),
        ("optimizer", "adagrad"),
        ("learning_rate", "0"),
        ("learning_rate", "inf"),
        ("weight_decay", "-1"),
        ("schedule", "step"),
        ("label_smoothing", "1"),
        ("mixup", "-0.1"),
        ("cutmix", "x"),
        ("batch_size", "0"),
        ("epochs", "1.5"),
        ("patience", "-1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(option: str, value: str) -> None:
    with pytest.raises(HeadError, match=f"head mlp: invalid {option} '{value}'; give .* or several as a/b/c") as caught:
        mlp.expand_grid({option: value})
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(HeadError, match=r"^head mlp has no option 'momentum' "):
        mlp.expand_grid({"momentum": "0.5"})
