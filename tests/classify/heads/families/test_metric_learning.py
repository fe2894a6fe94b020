"""Metric-learning heads: what they must beat, what they answer in Keras and in NumPy, and what they leave alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from humeris.cache.errors import HeadError
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.evaluate.trial import Score
from humeris.classify.export.stack_model import stack_model
from humeris.classify.heads.families import metric_learning
from humeris.classify.heads.head import Head
from humeris.classify.heads.head_family import HeadFamily
from humeris.classify.heads.layers import Dense, L2Normalize
from humeris.classify.heads.neighbor_votes import NeighborVotes
from humeris.classify.heads.neural import embedding
from humeris.classify.heads.neural.balanced_batches import BalancedBatches
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap

supcon, triplet = (get_head_family("supcon"), get_head_family("triplet"))

FAMILIES: dict[str, HeadFamily] = {"triplet": triplet, "supcon": supcon}
QUICK: dict[str, Any] = {"embedding": 8, "epochs": 8, "batch_size": 32, "learning_rate": 0.01}
VARIANTS = [("triplet", "knn", 0), ("triplet", "centroid", 12), ("supcon", "knn", 12), ("supcon", "centroid", 0)]
Folds = list[tuple[np.ndarray, np.ndarray]]


def problem(rows: int = 120, columns: int = 40, noise: float = 8.0) -> tuple[np.ndarray, np.ndarray, Folds]:
    """Three classes that lie apart in directions of little variance, under directions of much that tell nothing."""
    draws = np.random.default_rng(4)
    labels = np.arange(rows) % 3
    hidden = draws.normal(size=(rows, columns))
    hidden[:, 6:12] *= noise
    hidden[:, :4] = 0.3 * hidden[:, :4] + draws.normal(size=(3, 4))[labels]
    features = hidden @ np.linalg.qr(draws.normal(size=(columns, columns)))[0] + 2
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(features, labels))
    return features.astype(np.float32), labels, folds


def setting(family: str, **changed: Any) -> dict[str, Any]:
    (one,) = FAMILIES[family].expand_grid({**QUICK, **changed})
    return dict(one)


def fitted(family: str, classifier: str, hidden: int, seed: int = 0) -> tuple[Head, np.ndarray]:
    features, labels, _ = problem()
    chosen, detail = setting(family, classifier=classifier, hidden=hidden), {"epochs": 4, "temperature": 0.2}
    return FAMILIES[family].fit(TrainingData.from_arrays(features, labels, []), chosen, detail, seed), features


@pytest.mark.parametrize(
    ("family", "classifier"), [("triplet", "knn"), ("triplet", "centroid"), ("supcon", "knn"), ("supcon", "centroid")]
)
def test_classes_apart_in_a_subspace_of_little_variance_are_found_where_neighbours_fail(
    family: str, classifier: str
) -> None:
    features, labels, folds = problem(240)
    neighbours = make_pipeline(StandardScaler(), KNeighborsClassifier(5, metric="cosine"))
    theirs = cross_val_score(neighbours, features, labels, cv=folds).mean()
    chosen = setting(family, classifier=classifier, epochs=25)
    (found,) = FAMILIES[family].cross_validate(TrainingData.from_arrays(features, labels, folds), [chosen], seed=0)
    assert theirs < 0.6
    assert found.accuracy > theirs + 0.2


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    features, labels, folds = problem()
    return {
        f"{family} {classifier}": FAMILIES[family].cross_validate(
            TrainingData.from_arrays(features, labels, folds), [setting(family, classifier=classifier)], seed=3
        )[0]
        for family, classifier in (("triplet", "centroid"), ("supcon", "knn"))
    }


@pytest.mark.parametrize("name", ["triplet centroid", "supcon knn"])
def test_the_epoch_kept_is_the_one_with_the_lowest_log_loss(scores: dict[str, Score], name: str) -> None:
    score = scores[name]
    curves = score.fit_info["curves"]
    assert set(curves) == {"loss", "val_loss", "val_accuracy"}
    assert {len(curve) for curve in curves.values()} == {8}
    best = int(np.argmin(curves["val_loss"]))
    assert score.fit_info["epochs"] == best + 1
    assert score.log_loss == pytest.approx(curves["val_loss"][best], abs=1e-4)
    assert score.accuracy == pytest.approx(curves["val_accuracy"][best], abs=1e-4)
    assert score.accuracy == pytest.approx(np.mean(score.folds))
    assert curves["loss"][-1] < curves["loss"][0]
    assert ("temperature" in score.fit_info) == ("centroid" in name)
    assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score


def test_training_stops_when_patience_ends() -> None:
    features, labels, folds = problem()
    chosen = setting("triplet", epochs=60, patience=2, learning_rate=0.05)
    (found,) = triplet.cross_validate(TrainingData.from_arrays(features, labels, folds), [chosen], seed=0)
    assert len(found.fit_info["curves"]["loss"]) == found.fit_info["epochs"] + 2 < 60


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_and_another_another(family: str, scores: dict[str, Score]) -> None:
    (name,) = [name for name in scores if family in name]
    features, labels, folds = problem()
    chosen = setting(family, classifier=name.split()[1])
    again, other = (
        FAMILIES[family].cross_validate(TrainingData.from_arrays(features, labels, folds), [chosen], seed=seed)[0]
        for seed in (3, 4)
    )
    assert again.fit_info == scores[name].fit_info
    assert again.correct == scores[name].correct
    assert other.fit_info["curves"] != again.fit_info["curves"]
    heads = [fitted(family, "knn", 6, seed)[0].predict_proba(features) for seed in (3, 3)]
    assert (heads[0] == heads[1]).all()


def test_a_fold_beside_others_is_trained_as_it_would_be_alone() -> None:
    features, labels, folds = problem()
    chosen = setting("supcon", epochs=3, patience=0)
    (both,) = supcon.cross_validate(TrainingData.from_arrays(features, labels, folds[:2]), [chosen], seed=0)
    alone = [
        supcon.cross_validate(TrainingData.from_arrays(features, labels, [fold]), [chosen], seed=0)[0] for fold in folds[:2]
    ]
    mean = np.mean([score.fit_info["curves"]["val_loss"] for score in alone], axis=0)
    assert both.fit_info["curves"]["val_loss"] == pytest.approx(mean, abs=2e-5)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    features, labels, folds = problem()
    random.seed(11)
    np.random.seed(11)
    python, numpy = random.getstate(), np.random.get_state()
    triplet.cross_validate(TrainingData.from_arrays(features, labels, folds), [setting("triplet", epochs=1)], seed=0)
    assert random.getstate() == python
    after: Any = np.random.get_state()
    assert all(np.array_equal(one, two) for one, two in zip(numpy, after, strict=True))


@pytest.mark.parametrize(("family", "classifier", "hidden"), VARIANTS)
def test_the_layers_of_a_head_answer_as_the_keras_network_and_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, family: str, classifier: str, hidden: int
) -> None:
    kept: list[Any] = []
    layers = embedding.EmbeddingNetwork.build_layers
    monkeypatch.setattr(
        embedding.EmbeddingNetwork, "build_layers", lambda self, training: (kept.append(self), layers(self, training))[1]
    )
    head, features = fitted(family, classifier, hidden)
    labels = problem()[1]
    assert [type(layer) for layer in head.layers[-2:]] == [L2Normalize, NeighborVotes if classifier == "knn" else Dense]
    assert len(head.layers) == 3 + bool(hidden)
    rows = kept[0]._network.predict_on_batch(StandardScaler().fit_transform(features))
    mine = features
    for layer in head.layers[:-1]:
        mine = layer.apply(mine)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(mine - rows).max() < 1e-4
    answers = head.predict_proba(features)
    if classifier == "knn":
        votes = KNeighborsClassifier(5, metric="cosine").fit(rows, labels).predict_proba(rows)
        assert np.abs(answers - (votes * 5 / 6 + 1 / 18)).max(axis=1).mean() < 0.02  # but for rows all but equally near
    else:
        means = np.stack([rows[labels == number].mean(axis=0) for number in range(3)])
        powers = np.exp(rows @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T / 0.2)
        assert np.abs(answers - powers / powers.sum(axis=1, keepdims=True)).max() < 1e-3


@pytest.mark.parametrize(("family", "classifier", "hidden"), VARIANTS)
def test_a_head_survives_its_files_and_answers_alike_on_its_backbone(
    tmp_path: Path, family: str, classifier: str, hidden: int
) -> None:
    backbone, tap = build(BackboneSpec.parse("nano,image_size=32")), Tap("block3_out", "avg")
    pixels = np.random.default_rng(0).integers(0, 256, (36, 32, 32, 3), np.uint8)
    pixels[:12] //= 4
    pixels[12:24, ..., 0] //= 3
    graph = backbone.graph
    keras = load_keras()
    rows = keras.Model(graph.image, keras.layers.GlobalAveragePooling2D()(graph.outputs[tap.layer])).predict_on_batch(pixels)
    labels = np.repeat(np.arange(3), 12)
    chosen = setting(family, classifier=classifier, hidden=hidden)
    detail = {"epochs": 4, "temperature": 0.2}
    head = FAMILIES[family].fit(TrainingData.from_arrays(rows, labels, []), chosen, detail, 0)
    (tmp_path / "head.npz").write_bytes(head.to_npz_bytes())
    again = Head.load(tmp_path / "head.npz", json.loads(json.dumps(head.to_metadata())))
    assert (again.predict_proba(rows) == head.predict_proba(rows)).all()
    answers = stack_model(backbone, [tap], head).predict_on_batch(pixels)
    assert np.ptp(answers, axis=0).max() > 0.05
    assert np.abs(answers - head.predict_proba(rows)).max() <= 1e-4


def test_views_of_one_image_count_as_one_when_scored() -> None:
    features, labels, _ = problem(60)
    images, twice = np.repeat(np.arange(60), 2), np.repeat(features, 2, axis=0)
    twice[1::2] += 0.05 * np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    folds = tuple(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(twice, labels[images], images))
    views = TrainingData(FeatureMatrix.from_array(twice), labels[images], SingleLabel.from_n_classes(3), folds, images)
    chosen = setting("supcon", classifier="knn", epochs=2, patience=0)
    (found,) = supcon.cross_validate(views, [chosen], seed=0)
    assert len(bytes.fromhex(found.correct)) == 8
    assert all(abs(share * 20 - round(share * 20)) < 1e-9 for share in found.folds)


def test_a_class_that_is_absent_from_a_fold_scores_as_wrong_there() -> None:
    features, labels, _ = problem()
    fold = (np.nonzero(labels != 2)[0], np.nonzero(labels == 2)[0])
    for family, classifier in (("triplet", "centroid"), ("supcon", "knn")):
        chosen = setting(family, classifier=classifier, epochs=2)
        (found,) = FAMILIES[family].cross_validate(TrainingData.from_arrays(features, labels, [fold]), [chosen], seed=0)
        assert found.accuracy == 0
        assert np.isfinite(found.log_loss)


def test_constant_columns_single_rows_and_many_neighbours_are_no_obstacle(tmp_path: Path) -> None:
    features, labels, folds = problem()
    features[:, 3] = 7
    labels = labels.copy()
    labels[labels == 2] = 1
    labels[folds[0][0][0]] = 2  # the only one
    chosen = setting("triplet", epochs=2, n_neighbors=500)
    (found,) = triplet.cross_validate(TrainingData.from_arrays(features, labels, folds[:1]), [chosen], seed=0)
    head = triplet.fit(TrainingData.from_arrays(features, labels, []), chosen, {"epochs": 2}, seed=0)
    assert np.isfinite(found.log_loss)
    assert np.isfinite(head.predict_proba(features)).all()
    (tmp_path / "head.npz").write_bytes(head.to_npz_bytes())
    again = Head.load(tmp_path / "head.npz", json.loads(json.dumps(head.to_metadata())))
    assert (again.predict_proba(features) == head.predict_proba(features)).all()


def test_the_log_loss_is_of_the_votes_on_the_rows_held_out() -> None:
    features, labels, folds = problem()
    chosen = setting("supcon", classifier="knn", epochs=1)
    kept: list[np.ndarray] = []
    decide = metric_learning._compute_decisions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric_learning, "_compute_decisions", lambda *values: (kept.append(decide(*values)), kept[-1])[1])
        (found,) = supcon.cross_validate(TrainingData.from_arrays(features, labels, folds), [chosen], seed=0)
    theirs = [log_loss(labels[held], each, labels=[0, 1, 2]) for each, (_, held) in zip(kept, folds, strict=True)]
    assert found.log_loss == pytest.approx(np.mean(theirs), rel=1e-5)


@pytest.mark.parametrize("counts", [(50, 50, 50), (90, 9, 3), (40, 1, 1), (7,), (30,) * 20])
@pytest.mark.parametrize("size", [4, 16, 64])
def test_batches_hold_several_rows_of_each_class_and_none_twice(counts: tuple[int, ...], size: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    batches = BalancedBatches(labels, size, np.random.default_rng(0))
    seen: set[int] = set()
    for _ in range(40):
        drawn = list(batches.iterate_epoch())
        assert len(drawn) == -(-len(labels) // size)
        for rows in drawn:
            assert len(rows) == len(set(rows.tolist())) <= size
            numbers, found = np.unique(labels[rows], return_counts=True)
            assert len(numbers) == min(len(counts), max(2, size // 4))
            assert all(count >= min(counts[number], 2) for number, count in zip(numbers, found, strict=True))
            assert len({int(count) for number, count in zip(numbers, found, strict=True) if counts[number] >= size}) <= 1
            seen.update(rows.tolist())
    assert len(seen) == len(labels)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 3}, " has no option 'width' "),
        ({"embedding": "0"}, ": invalid embedding '0'; give a whole number of at least 1"),
        ({"batch_size": "2"}, ": invalid batch_size '2'; give a whole number of at least 4"),
        ({"classifier": "svm"}, ": invalid classifier 'svm'; give one of knn, centroid"),
        ({"learning_rate": "0"}, ": invalid learning_rate '0'; give a number above 0"),
        ({"margin": "-1", "temperature": "-1"}, " has no option '(margin|temperature)' "),
    ],
)
def test_an_option_that_cannot_be_is_one_line(family: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=f"^head {family}{message}") as caught:
        FAMILIES[family].expand_grid(options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_option_is_accepted_and_ignored(family: str) -> None:
    features, labels, _ = problem(60)
    own = {"triplet": {"margin": 1.0}, "supcon": {"temperature": 0.7}}[family]
    changes: list[dict[str, Any]] = [{}, *({name: value} for name, value in own.items()), {"embedding": 5}, {"hidden": 6}]
    changes += [{"learning_rate": 0.1}, {"batch_size": 16}, {"classifier": "centroid"}, {"n_neighbors": 9}]
    answers = []
    for changed in changes:
        chosen, detail = setting(family, **changed), {"epochs": 2, "temperature": 0.2}
        head = FAMILIES[family].fit(TrainingData.from_arrays(features, labels, []), chosen, detail, 0)
        answers.append(head.layers[0].weights.tobytes() + head.predict_proba(features).tobytes())
    assert len(set(answers)) == len(changes)


def test_every_combination_of_options_is_tried() -> None:
    found = triplet.expand_grid({"margin": "0.1/0.5", "classifier": "centroid/knn"})
    assert len({(each["margin"], each["classifier"]) for each in found}) == len(found) == 4
    assert {each["temperature"] for each in supcon.expand_grid({})} == {0.1}


def test_centroids_have_no_number_of_neighbours() -> None:
    found = triplet.expand_grid({"classifier": "centroid/knn", "n_neighbors": "1/5"})
    assert [(each["classifier"], each.get("n_neighbors")) for each in found] == [("centroid", None), ("knn", 1), ("knn", 5)]
    with pytest.raises(
        HeadError, match=r"^head supcon: n_neighbors applies only to classifier=knn, .*; leave one of them out$"
    ):
        supcon.expand_grid({"classifier": "centroid", "n_neighbors": "1/5"})
