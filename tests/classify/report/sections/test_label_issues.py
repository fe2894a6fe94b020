"""Suspected labels and near-duplicates in a report: by definition, on flipped labels, and where things are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import change_metadata, change_origin, change_result
from run_values import NEAR_DUPLICATES

from humeris.cache.store import Store
from humeris.classify.data import group_sampling
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.diagnose import count_sketch, label_errors
from humeris.classify.evaluate.trial import TrialScores
from humeris.classify.report.blocks import Command, Gallery, Section, Table, Text
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.report.sections import label_issues
from humeris.classify.runs.predictions import Prediction
from humeris.classify.runs.result import NearDuplicatePair, NearDuplicateSummary


def blobs(count: int, classes: int, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, width) about a middle for each class, which are far apart, and the classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return (4 * random.normal(size=(classes, width))[labels] + random.normal(size=(count, width))).astype(np.float32), labels


def alone(count: int) -> np.ndarray:
    return np.arange(count)


@pytest.mark.parametrize("seed", range(6))
def test_suspects_are_the_off_diagonal_of_the_confident_joint(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, shares = random.integers(0, 4, 200), random.dirichlet(np.ones(5) / 2, 200)
    thresholds = [np.mean([shares[i, k] for i in range(200) if labels[i] == k]) for k in range(4)]  # class 4 has no image
    expected = {}
    for row, given in enumerate(labels.tolist()):
        confident = [k for k in range(4) if shares[row, k] >= thresholds[k]]
        likely = max(confident, key=lambda k: shares[row, k], default=given)
        if likely != given and shares[row, given] < min(thresholds[given], shares[row, likely]):
            expected[row] = likely
    found = label_errors.find_label_issues(labels, shares)
    assert {each.row: each.likely_label for each in found} == expected
    assert len(expected) > 10
    assert [each.probabilities[0] for each in found] == sorted(shares[each.row, each.given_label] for each in found)
    assert all(
        each.given_label == labels[each.row] and each.probabilities[1] == shares[each.row, each.likely_label]
        for each in found
    )


def test_an_image_between_the_thresholds_is_not_suspected() -> None:
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.2, 0.8], [0.1, 0.9], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 1, 1])  # thresholds 0.75 and 0.7
    assert label_errors.find_label_issues(labels, shares) == []
    shares[5] = [0.76, 0.24]
    assert label_errors.find_label_issues(labels, shares) == [label_errors.LabelIssue(5, 1, 0, (0.24, 0.76))]


def test_rows_that_are_not_finite_are_not_suspected_and_move_no_threshold() -> None:
    random = np.random.default_rng(1)
    labels, shares = random.integers(0, 3, 90), random.dirichlet(np.ones(3), 90)
    kept = np.arange(90) % 9 != 4
    spoilt = shares.copy()
    spoilt[~kept, 1] = np.nan
    expected = label_errors.find_label_issues(labels[kept], shares[kept])
    found = label_errors.find_label_issues(labels, spoilt)
    assert [each.probabilities for each in found] == [each.probabilities for each in expected]
    assert {each.row for each in found} <= set(np.nonzero(kept)[0].tolist())


@pytest.mark.parametrize("width", [10, 80])
def test_flipped_labels_are_found_first(width: int) -> None:
    rows, labels = blobs(400, 4, width)
    flipped = np.random.default_rng(3).choice(400, 20, replace=False)
    given = labels.copy()
    given[flipped] = (labels[flipped] + 1) % 4
    answers = label_errors.predict_out_of_fold(FeatureMatrix.from_array(rows), given, alone(400), 4)
    found = label_errors.find_label_issues(given, answers)
    assert len({each.row for each in found[:20]} & set(flipped.tolist())) >= 19
    assert all(each.likely_label == labels[each.row] for each in found[:20] if each.row in flipped)


def test_held_out_answers_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = blobs(150, 3, 10)
    rows[:, 0] *= 100
    rows = rows + 6 * np.random.default_rng(5).normal(size=rows.shape).astype(np.float32)
    monkeypatch.setattr(label_errors, "_PENALTIES", (30.0,))
    answers = label_errors.predict_out_of_fold(FeatureMatrix.from_array(rows), labels, alone(150), 3)
    part = group_sampling.assign_folds(labels, alone(150), 5, 0)
    for number in range(5):
        theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha=30.0)).fit(
            rows[part != number], labels[part != number]
        )
        assert (answers[part == number].argmax(axis=1) == theirs.predict(rows[part == number])).all()
        order = np.argsort(theirs.decision_function(rows[part == number]), axis=1)
        assert (np.argsort(answers[part == number], axis=1) == order).all()
    assert np.allclose(answers.sum(axis=1), 1)
    assert 0.4 < (answers.argmax(axis=1) == labels).mean() < 0.95


def test_an_image_is_not_judged_by_its_own_group() -> None:
    random = np.random.default_rng(0)
    rows = np.repeat(random.normal(size=(100, 300)), 2, axis=0).astype(np.float32)  # each twice, and labels at random
    labels, groups = np.repeat(random.integers(0, 4, 100), 2), np.repeat(np.arange(100), 2)
    whole = label_errors.predict_out_of_fold(FeatureMatrix.from_array(rows), labels, groups, 4)
    leaky = label_errors.predict_out_of_fold(FeatureMatrix.from_array(rows), labels, alone(200), 4)
    assert (whole.argmax(axis=1) == labels).mean() < 0.45
    assert (leaky.argmax(axis=1) == labels).mean() > 0.6


def test_a_class_with_one_image_does_no_harm() -> None:
    rows, labels = blobs(90, 5)
    labels[labels == 2] = 0
    labels[7] = 2
    answers = label_errors.predict_out_of_fold(FeatureMatrix.from_array(rows), labels, alone(90), 5)
    assert np.isfinite(answers).all()
    assert answers[7, 2] == answers[7].min()  # nothing that it learnt from was of that class


def test_neighbours_are_counted_as_scikit_learn_finds_them() -> None:
    from sklearn.neighbors import NearestNeighbors

    rows, labels = blobs(120, 3)
    rows[5] = rows[9]  # equal rows: the image itself still has no vote
    chosen = [
        label_errors.LabelIssue(row, int(labels[row]), (int(labels[row]) + 1) % 3, (0.1, 0.9)) for row in (0, 5, 9, 119)
    ]
    told = label_errors.add_neighbor_votes(chosen, FeatureMatrix.from_array(rows), labels)
    near = NearestNeighbors(metric="cosine").fit(rows.astype(np.float64))
    for suspect in told:
        places = near.kneighbors(rows[[suspect.row]].astype(np.float64), 12, return_distance=False)[0]
        others = [place for place in places.tolist() if place != suspect.row][:10]
        assert suspect.votes == tuple(int((labels[others] == k).sum()) for k in (suspect.given_label, suspect.likely_label))


def test_neighbours_of_few_images_are_the_others() -> None:
    rows, _ = blobs(4, 2)
    (told,) = label_errors.add_neighbor_votes(
        [label_errors.LabelIssue(1, 0, 1, (0.1, 0.9))], FeatureMatrix.from_array(rows), np.array([0, 0, 1, 1])
    )
    assert told.votes == (1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_parts_hold_the_classes_alike_and_groups_whole(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice(4, 300, p=[0.55, 0.3, 0.1, 0.05])
    part = group_sampling.assign_folds(labels, alone(300), 5, seed)
    counts = np.array([np.bincount(labels[part == number], minlength=4) for number in range(5)])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
    groups = random.integers(0, 40, 300)
    part = group_sampling.assign_folds(labels, groups, 5, seed)
    assert all(len(np.unique(part[groups == number])) == 1 for number in np.unique(groups))
    assert np.bincount(part).min() > 20


@pytest.mark.parametrize("seed", range(4))
def test_each_beginning_holds_the_classes_as_the_whole_does(seed: int) -> None:
    labels = np.random.default_rng(seed).choice(3, 400, p=[0.7, 0.2, 0.1])
    order = group_sampling.stratify(labels, alone(400), seed)
    assert sorted(order.tolist()) == list(range(400))
    assert set(labels[order[:3]].tolist()) == {0, 1, 2}
    for count in (20, 50, 200):
        share = np.bincount(labels[order[:count]], minlength=3) / count
        assert np.abs(share - np.bincount(labels) / 400).max() < 2 / count + 0.02
    assert (group_sampling.stratify(labels, alone(400), seed + 1) != order).any()


def test_a_sample_keeps_groups_whole_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    labels, groups = random.integers(0, 3, 500), random.integers(0, 90, 500)
    for most in range(90, 110):
        rows = group_sampling.sample(labels, groups, most, 0)
        assert abs(len(rows) - most) <= 6
        assert not set(groups[rows].tolist()) & set(np.delete(groups, rows).tolist())
    assert (rows == group_sampling.sample(labels, groups, 109, 0)).all()
    assert (group_sampling.sample(labels, groups, 500, 0) == np.arange(500)).all()


def test_images_without_a_group_stand_for_themselves() -> None:
    assert group_sampling.encode_groups(["a", "", "b", "a", "", "b"]).tolist() == [0, 1, 2, 0, 3, 2]


def test_a_sketch_keeps_inner_products() -> None:
    rows = np.abs(np.random.default_rng(0).normal(size=(40, 20_000))).astype(np.float32)  # as after a ReLU
    rows[20:] += 0.5 * rows[:20]
    features = FeatureMatrix.from_array(rows)
    short = count_sketch.sketch_features(features, np.arange(40), 2000)
    assert short.shape == (40, 2000)
    exact, found = rows @ rows.T / 20_000, short @ short.T / 20_000
    assert np.abs(exact - found).max() < 0.15 * exact.max()
    assert (count_sketch.sketch_features(features, np.array([7, 3]), 30_000) == rows[[7, 3]]).all()
    assert count_sketch.count_readable_rows(features, 10**9) == 5000
    assert count_sketch.count_readable_rows(features, 100) == 100


def judged(evidence: RunSnapshot, wrong: int) -> tuple[RunSnapshot, list[str]]:
    """The run as if `wrong` test images, and as many that were learnt from, were labelled otherwise; and their names."""
    images = list(evidence.images)
    chosen = [place for split in ("test", "train") for place, each in enumerate(images) if each.split == split]
    chosen = chosen[: 6 * wrong : 6] + [place for place in chosen if images[place].split == "train"][2 : 2 + 8 * wrong : 8]
    for place in chosen:
        other = evidence.class_names[(evidence.class_names.index(images[place].label) + 1) % 3]
        images[place] = replace(images[place], label=other)
    label = {each.name: each.label for each in images}
    answers = tuple(Prediction(a.name, label[a.name], a.predicted, a.probability) for a in evidence.predictions)
    return replace(evidence, images=tuple(images), predictions=answers), [images[place].name for place in chosen]


@pytest.fixture
def evidence(finished: Any) -> RunSnapshot:
    return RunSnapshot.read(finished.path, finished.cache)


def tables(section: Section) -> dict[str, Table]:
    return {part.caption: part for part in section.parts if isinstance(part, Table)}


def galleries(section: Section) -> list[Gallery]:
    return [part for part in section.parts if isinstance(part, Gallery)]


def words(section: Section, kind: str) -> str:
    return "\n".join(part.text for part in section.parts if isinstance(part, Text) and part.kind == kind)


def test_labels_that_were_changed_are_suspected_on_the_page(evidence: RunSnapshot) -> None:
    changed, names = judged(evidence, 3)
    section = label_issues.build_section(changed)
    found = tables(section)
    assert {str(row[0]) for row in found["Potential label errors in test images"].rows} == set(names[:3])
    learnt = found["Potential label errors in training images"].rows
    assert {str(row[0]) for row in learnt[:3]} == set(names[3:])
    for row in [*found["Potential label errors in test images"].rows, *learnt[:3]]:
        name, given, rather = str(row[0]), row[1], row[2]
        assert rather == name.split("/")[1]
        assert given != rather
        assert 0 <= row[3] < row[4] <= 1
    assert [row[3] for row in learnt] == sorted(row[3] for row in learnt)
    assert all(row[6] > row[5] for row in learnt[:3])  # the neighbours' labels
    first, second = galleries(section)
    assert [picture.captions[-1] for picture in first.pictures] == [
        row[0] for row in found["Potential label errors in test images"].rows
    ]
    assert all(picture.webp for gallery in (first, second) for picture in gallery.pictures)
    assert words(section, "missing") == ""


def test_a_run_without_a_doubtful_label_says_so(evidence: RunSnapshot) -> None:
    answers = np.eye(3, dtype=np.float32)[[evidence.class_names.index(a.label) for a in evidence.predictions]]
    assert "No potential label errors in 18 test images." in words(
        label_issues.build_section(replace(evidence, probabilities=answers)), "plain"
    )


def test_a_sample_of_many_images_is_owned_to(evidence: RunSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_issues, "MAX_IMAGES", 12)
    monkeypatch.setattr(label_issues, "_SKETCH_WIDTH", 8)
    assert "12 of the 24 images were checked" in words(label_issues.build_section(evidence), "plain")


def test_near_duplicates_stand_side_by_side(evidence: RunSnapshot) -> None:
    tested, learnt = evidence.select_images("test"), evidence.select_images("train")
    learnt_names = [learnt[0].name, learnt[1].name, "gone/away.png"]
    pairs = tuple(
        NearDuplicatePair(tested[number].name, name, 0.9 - number / 10) for number, name in enumerate(learnt_names)
    )
    described = NearDuplicateSummary(pairs, False, 3, 0.875, (0.5, 0.9))
    section = label_issues.build_section(change_result(evidence, near_duplicates=described))
    gallery = galleries(section)[-1]
    assert [picture.captions for picture in gallery.pictures[:2]] == [
        ("pair 1, test image", tested[0].name),
        ("pair 1, training image", learnt[0].name),
    ]
    assert [bool(picture.webp) for picture in gallery.pictures] == [True] * 5 + [False]
    assert "without them the accuracy is 87.5 %" in words(section, "warning")
    assert tables(section)["Near-duplicates"].rows[1][2] == 0.8
    assert "1 of 6 thumbnails" in words(section, "missing")


@pytest.mark.parametrize(
    ("cannot_tell", "expected"),
    [(True, "only identical rows"), (False, "No test image is a near-duplicate of a training image.")],
)
def test_what_is_known_of_near_duplicates_is_said(evidence: RunSnapshot, cannot_tell: bool, expected: str) -> None:
    changed = change_result(evidence, near_duplicates=replace(NEAR_DUPLICATES, cannot_tell=cannot_tell))
    assert expected in words(label_issues.build_section(changed), "plain")


def test_of_an_unfinished_run_near_duplicates_were_not_looked_for(evidence: RunSnapshot) -> None:
    for changed in (change_metadata(evidence, result=None), replace(evidence, metadata=None)):
        assert "were not computed" in words(label_issues.build_section(changed), "missing")


def test_without_the_cache_the_command_that_fills_it_is_told(evidence: RunSnapshot, tmp_path: Path) -> None:
    for store in (None, Store(tmp_path / "none")):
        section = label_issues.build_section(replace(evidence, store=store))
        assert "not in the cache" in words(section, "missing")
        (line,) = [part.line for part in section.parts if isinstance(part, Command)]
        assert line.startswith("humeris extract ")
        assert "Potential label errors in test images" in tables(section) or "No potential label errors in" in words(
            section, "plain"
        )


@pytest.mark.parametrize(
    ("kind", "file", "expected"),
    [
        ("features", "", "Move the file of features back"),
        ("splits", "/nowhere/my.keras", "Move the file of the network back"),
    ],
)
def test_where_no_command_brings_the_features_back_the_page_says_what_does(
    evidence: RunSnapshot, kind: str, file: str, expected: str
) -> None:
    assert evidence.metadata is not None
    specs = {name: replace(spec, file=file) for name, spec in evidence.metadata.specs.items()}
    data = change_origin(evidence.metadata.data, kind=kind, root="/nowhere")
    section = label_issues.build_section(replace(change_metadata(evidence, data=data, specs=specs), store=None))
    assert expected in words(section, "missing")
    assert not [part for part in section.parts if isinstance(part, Command)]


def test_rows_that_the_cache_lacks_are_counted(evidence: RunSnapshot) -> None:
    images = tuple(replace(each, digest=b"\1" * 32) if each.name.endswith("03.png") else each for each in evidence.images)
    assert "3 of 24 images have no cached row at nano" in words(
        label_issues.build_section(replace(evidence, images=images)), "missing"
    )


@pytest.mark.parametrize("lost", ["images", "probabilities", "scores", "metadata"])
def test_of_a_run_that_is_not_whole_the_rest_is_shown(evidence: RunSnapshot, lost: str) -> None:
    nothing: dict[str, Any] = {"images": (), "probabilities": None, "scores": TrialScores({}), "metadata": None}
    assert words(label_issues.build_section(replace(evidence, **{lost: nothing[lost]})), "missing")
