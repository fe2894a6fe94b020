"""What every head family must do, and that one from outside the package goes the whole way from a sweep to a prediction."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import MultinomialNB

from humeris import HeadFamily, Predictor, Store, export, load_images, register_head_family, sweep
from humeris.cache.errors import HeadError
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.evaluate.trial import Score
from humeris.classify.heads import registry
from humeris.classify.heads.head import Head
from humeris.classify.heads.head_grid import HeadGrid
from humeris.classify.heads.layers import Dense
from humeris.classify.heads.options import NumberOption, Option
from humeris.classify.heads.registry import find_head_family, get_head_family, list_head_families
from humeris.classify.heads.training_data import TrainingData
from humeris.classify.report.wording import format_head


class NaiveBayes(HeadFamily):
    """scikit-learn's multinomial naive Bayes, for features that are not negative."""

    name = "bayes"
    title = "naive Bayes"
    options: Mapping[str, Option] = {"alpha": NumberOption((0.1, 1.0))}

    def fit(
        self,
        data: TrainingData,
        hyperparameters: Mapping[str, Any],
        fit_info: Mapping[str, Any],  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> Head:
        model = MultinomialNB(alpha=hyperparameters["alpha"]).fit(data.features.to_array(), data.labels)
        weights = model.feature_log_prob_.T.astype(np.float32)
        return Head((Dense(weights, model.class_log_prior_.astype(np.float32), "softmax"),), data.target.class_names)


@pytest.fixture
def bayes(monkeypatch: pytest.MonkeyPatch) -> HeadFamily:
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    register_head_family(NaiveBayes())
    return get_head_family("bayes")


def problem() -> TrainingData:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = np.abs(random.normal(size=(60, 8)) + 2 * np.eye(8)[labels]).astype(np.float32)
    places = random.permutation(60)
    return TrainingData.from_arrays(features, labels, [(places[20:], places[:20]), (places[:40], places[40:])])


def quick_grid(family: HeadFamily) -> list[dict[str, Any]]:
    return family.expand_grid({"epochs": 2} if "epochs" in family.options else {})


every_family = pytest.mark.parametrize(
    "family", [*list_head_families(), NaiveBayes()], ids=[*(family.name for family in list_head_families()), "bayes"]
)


@every_family
def test_hyperparameters_are_distinct_json_values_of_the_options(family: HeadFamily) -> None:
    grid = family.expand_grid({})
    assert json.loads(json.dumps(grid)) == grid
    assert len({json.dumps(each, sort_keys=True) for each in grid}) == len(grid) >= 1
    assert all(set(each) <= set(family.options) for each in grid)
    for each in grid[:3]:
        assert family.expand_grid(each) == [each]


@every_family
def test_an_unknown_option_is_refused_with_the_familys_name(family: HeadFamily) -> None:
    with pytest.raises(HeadError, match=rf"^head {family.name} has no option 'nonsense'"):
        family.expand_grid({"nonsense": "1"})


@every_family
def test_groups_hold_each_index_once(family: HeadFamily) -> None:
    grid = quick_grid(family)
    groups = family.group(problem(), grid)
    assert sorted(index for group in groups for index in group) == list(range(len(grid)))
    assert all(groups)


@every_family
def test_each_hyperparameter_set_gets_a_score_that_json_can_hold(family: HeadFamily) -> None:
    data, grid = problem(), quick_grid(family)[-2:]
    family.check(data, grid)
    scores = family.cross_validate(data, grid, seed=0)
    assert len(scores) == len(grid)
    for score in scores:
        assert len(score.folds) == len(data.folds)
        assert 0 <= score.accuracy <= 1
        assert np.isfinite(score.log_loss)
        assert score.seconds >= 0
        assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score


@every_family
def test_a_fitted_head_gives_probabilities_also_from_its_files(family: HeadFamily, tmp_path: Path) -> None:
    data, hyperparameters = replace(problem(), target=SingleLabel(("x", "y", "z"))), quick_grid(family)[0]
    (score,) = family.cross_validate(data, [hyperparameters], seed=0)
    fit_info = json.loads(json.dumps(score.to_dict()))["fit_info"]
    head = family.fit(data, json.loads(json.dumps(hyperparameters)), fit_info, seed=0)
    probabilities = head.predict_proba(data.features)
    assert head.class_names == ("x", "y", "z")
    assert probabilities.shape == (60, 3)
    assert (probabilities >= 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(60), abs=1e-5)
    (tmp_path / "head.npz").write_bytes(head.to_npz_bytes())
    again = Head.load(tmp_path / "head.npz", json.loads(json.dumps(head.to_metadata())))
    assert (again.predict_proba(data.features) == probabilities).all()


@every_family
def test_a_family_reaches_a_worker_process(family: HeadFamily) -> None:
    again = pickle.loads(pickle.dumps(family))
    assert (again.name, again.title, again.expand_grid({})) == (family.name, family.title, family.expand_grid({}))


def test_families_have_names_and_titles_of_their_own() -> None:
    families = list_head_families()
    assert len({family.name for family in families}) == len({family.title for family in families}) == len(families)
    assert [format_head(family.name) for family in families] == [family.title for family in families]
    assert format_head("of another package") == "of another package"


def test_by_default_folds_are_scored_by_heads_that_fit_makes() -> None:
    data = problem()
    features, labels = data.features.to_array(), data.labels
    (score,) = NaiveBayes().cross_validate(data, [{"alpha": 0.5}], seed=0)
    for accuracy, (fit, held) in zip(score.folds, data.folds, strict=True):
        assert accuracy == MultinomialNB(alpha=0.5).fit(features[fit], labels[fit]).score(features[held], labels[held])


@pytest.mark.parametrize("name", ["logreg", "", "two words", "a,b", "Upper", "1st"])
def test_a_name_that_is_taken_or_cannot_be_written_is_refused(name: str) -> None:
    family = NaiveBayes()
    family.name = name
    with pytest.raises(HeadError, match=rf"cannot register head '{name}': "):
        register_head_family(family)
    assert find_head_family("bayes") is None
    assert not isinstance(get_head_family("logreg"), NaiveBayes)


def test_a_family_without_options_says_so() -> None:
    family = NaiveBayes()
    family.options = {}
    assert family.expand_grid({}) == [{}]
    with pytest.raises(HeadError, match=r"^head bayes has no option 'alpha', nor any other; leave it out$"):
        family.expand_grid({"alpha": 1})


def test_a_family_from_outside_goes_from_sweep_to_prediction(bayes: HeadFamily, finished: Any, tmp_path: Path) -> None:
    assert HeadGrid.parse("bayes,alpha=0.5").family is bayes
    store = Store(finished.cache, write=True)
    images = load_images(finished.photos, store, jobs=1)
    run = sweep(images, ["logreg,C=0.1", "bayes"], cache=store, layers=["block5_out"], out=tmp_path / "run", jobs=1)
    assert sorted(trial.head for trial in run.load_trials()) == ["bayes", "bayes", "logreg"]
    trial = next(trial for trial in run.load_trials() if trial.hyperparameters == {"alpha": 0.1})
    result = export(run, tmp_path / "bayes.keras", trial=trial.id, cache=store)
    assert result.parity.top1_agree == result.parity.images == 18
    paths = sorted((finished.photos / "test" / "blob").iterdir())
    predictions = list(Predictor(result.path, cache=finished.cache).predict(paths, jobs=1))
    assert sum(prediction.top[0][0] == "blob" for prediction in predictions) > len(paths) / 2
