"""The door of labels: what every target must do, and one from outside through the whole loop."""

from __future__ import annotations

import csv
import pickle
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import LabelBinarizer, LabelEncoder

from humeris import Predictor, SweepConfig, load_images
from humeris.cache.errors import DataError, HeadError
from humeris.cache.store import Store
from humeris.classify.data.splits import split
from humeris.classify.evaluate import target_registry
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.evaluate.target import Target
from humeris.classify.evaluate.target_registry import detect_target, list_targets, register_target, restore_target
from humeris.classify.export.export import export
from humeris.classify.heads.registry import get_head_family
from humeris.classify.report.page import write_report
from humeris.classify.runs.predictions import read_predictions
from humeris.classify.sweep.sweep import sweep


@dataclass(frozen=True)
class Genus(SingleLabel):
    """The toy: labels are species of two words, and the first one is what is predicted."""

    name: ClassVar[str] = "genus"

    @classmethod
    def matches(cls, labels: Sequence[str]) -> bool:
        return bool(labels) and all(len(label.split()) == 2 for label in labels)

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> Self:
        return super().from_labels([label.split()[0] for label in labels])

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        return super().encode([label.split()[0] for label in labels])


LABELS = {
    "single_label": ["cat", "dog", "ant", "dog"],
    "genus": ["Felis catus", "Canis lupus", "Acer rubrum", "Canis aureus"],
}


@pytest.fixture
def genus() -> Iterator[type[Target]]:
    registered_before = list(target_registry._TARGETS)
    yield register_target(Genus)
    target_registry._TARGETS[:] = registered_before


@pytest.fixture(params=[*list_targets(), Genus], ids=lambda target_class: target_class.name)
def target(request: pytest.FixtureRequest) -> Target:
    target_class: type[Target] = request.param
    return target_class.from_labels(LABELS[target_class.name])


def encode(target: Target) -> np.ndarray:
    return target.encode(LABELS[target.name])


def test_labels_become_numbers_and_text_again(target: Target) -> None:
    encoded = encode(target)
    assert len(encoded) == 4
    assert target.class_names == tuple(sorted(target.class_names))
    texts = target.decode(encoded)
    assert all(label.startswith(text) for label, text in zip(LABELS[target.name], texts, strict=True))
    assert len(target.class_names) == target.n_outputs >= target.min_classes


def test_a_label_that_the_data_did_not_have_is_refused_by_name(target: Target) -> None:
    assert all(map(target.can_encode, LABELS[target.name]))
    assert not target.can_encode("Zea mays")
    with pytest.raises(DataError, match=r"^label 'Zea.*': no such class"):
        target.encode([*LABELS[target.name], "Zea mays"])


def test_strata_have_names_and_cover_all_labels(target: Target) -> None:
    strata = target.stratify(encode(target))
    assert strata.shape == (4,)
    assert set(strata.tolist()) == set(range(len(target.stratum_names)))


def test_predictions_that_equal_the_labels_are_decided_and_scored_as_perfect(target: Target) -> None:
    encoded = encode(target)
    perfect = target.to_matrix(encoded)
    assert (perfect.shape, perfect.dtype) == ((4, target.n_outputs), np.float32)
    assert (target.decide(perfect) == encoded).all()
    assert target.find_correct(encoded, perfect).all()
    assert target.score(encoded, perfect).accuracy == 1
    vague = np.full_like(perfect, 1 / target.n_outputs)
    assert target.compute_loss(encoded, perfect) < target.compute_loss(encoded, vague)


def test_a_row_that_is_not_finite_counts_as_a_prediction_without_knowledge(target: Target) -> None:
    predictions = target.to_matrix(encode(target))
    spoilt = predictions.copy()
    spoilt[1, 0] = np.nan
    clean = target.replace_non_finite(spoilt)
    assert np.isfinite(clean).all()
    assert (clean[[0, 2, 3]] == predictions[[0, 2, 3]]).all()
    assert np.ptp(clean[1]) == 0


def test_decisions_that_differ_are_found_unless_the_reference_nearly_ties(target: Target) -> None:
    reference = target.to_matrix(encode(target))
    assert not target.find_disagreements(reference, reference).any()
    other = np.roll(reference, 1, axis=1)
    assert target.find_disagreements(reference, other, 0.5).all()
    near = np.full_like(reference, 1 / target.n_outputs)
    near[:, 0] += 1e-6
    assert target.find_disagreements(near, other, 0.0)[target.decide(other) != 0].all()
    assert not target.find_disagreements(near, other, 1e-4).any()


def test_the_best_classes_of_an_image_are_named_in_order(target: Target) -> None:
    prediction = np.linspace(0.1, 0.5, target.n_outputs)
    ranked = target.rank_classes(prediction, 2)
    assert [name for name, _ in ranked] == list(target.class_names[:-3:-1])
    assert [value for _, value in ranked] == sorted(prediction.tolist(), reverse=True)[:2]


def test_a_target_is_a_value_that_runs_and_worker_processes_get_back(target: Target, genus: type[Target]) -> None:
    assert pickle.loads(pickle.dumps(target)) == target
    assert restore_target(target.name, target.class_names) == target
    with pytest.raises(AttributeError):
        target.class_names = ()  # type: ignore[misc]


def test_one_class_an_image_is_what_scikit_learn_encodes_binarizes_and_scores() -> None:
    labels = ["b", "a", "c", "a", "c"]
    target = SingleLabel.from_labels(labels)
    encoder = LabelEncoder().fit(labels)
    assert target.class_names == tuple(encoder.classes_)
    assert target.encode(labels).tolist() == encoder.transform(labels).tolist()
    assert (target.to_matrix(target.encode(labels)) == LabelBinarizer().fit_transform(labels)).all()
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    encoded = target.encode(labels)
    assert target.compute_loss(encoded, probabilities) == pytest.approx(log_loss(encoded, probabilities), abs=1e-12)
    assert target.find_correct(encoded, probabilities).mean() == accuracy_score(encoded, target.decide(probabilities))


def test_labels_that_no_other_target_takes_are_classes(genus: type[Target]) -> None:
    assert isinstance(detect_target(LABELS["genus"]), Genus)
    assert type(detect_target([*LABELS["genus"], "dog"])) is SingleLabel


def test_a_name_is_registered_once(genus: type[Target]) -> None:
    assert register_target(Genus) is Genus
    assert list_targets().count(Genus) == 1
    other = type("Other", (SingleLabel,), {})
    with pytest.raises(ValueError, match=r"^cannot register target 'single_label': the name is taken"):
        register_target(other)


def test_a_target_that_is_not_registered_is_said_by_name() -> None:
    with pytest.raises(DataError, match=r"^target 'genus' is not known here \(known: single_label\); import the module"):
        restore_target("genus", ["a", "b"])


def test_a_target_from_outside_goes_from_the_list_of_images_to_report_and_prediction(
    genus: type[Target], finished: Any, tmp_path: Path
) -> None:
    photos = shutil.copytree(finished.photos, tmp_path / "photos")
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = (
            [str(path.relative_to(tmp_path)), path.parent.parent.name, f"{path.parent.name} {n % 2}"]
            for n, path in enumerate(paths)
        )
        csv.writer(file).writerows([["path", "split", "label"], *rows])
    store = Store(finished.cache, write=True)
    images = load_images(tmp_path / "list.csv", store, jobs=1)
    assert split(images).classes == ("blob", "noise", "stripes")
    run = sweep(images, store, SweepConfig("logreg,C=0.1", layers=["block5_out"], out=tmp_path / "run", jobs=1))
    assert run.metadata.splits.get_target() == Genus(("blob", "noise", "stripes"))
    assert {each.label for each in read_predictions(run.path / "predictions.csv")} == {"blob", "noise", "stripes"}
    result = export(run, store, tmp_path / "genus.keras")
    predictions = list(Predictor(result.path, cache=finished.cache).predict(paths[:3], jobs=1))
    assert {prediction.top[0][0] for prediction in predictions} <= {"blob", "noise", "stripes"}
    assert write_report([run], None, finished.cache).path.exists()


def test_a_head_that_cannot_predict_a_target_is_said_before_anything_is_trained(
    genus: type[Target], finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(get_head_family("logreg")), "can_predict", lambda *_: False)
    store = Store(finished.cache)
    images = load_images(finished.photos, store, jobs=1)
    with pytest.raises(HeadError, match=r"^head logreg cannot be trained on labels of the kind single_label; give another"):
        sweep(images, store, SweepConfig("logreg", layers=["block5_out"], out=tmp_path / "run", jobs=1))
    assert not (tmp_path / "run").exists()
