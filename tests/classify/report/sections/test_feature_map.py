"""The map of the features: what lies near what, who is drawn and how, and where it cannot be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report_runs import change_metadata

from humeris.classify.evaluate.trial import TrialScores
from humeris.classify.report.blocks import Chart, Command, Section, Text
from humeris.classify.report.charts import draw
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.report.sections import feature_map
from humeris.classify.runs.image_records import ImageRecord
from humeris.classify.runs.predictions import Prediction


def clusters(count: int, classes: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    middles = 5 * random.normal(size=(classes, width))
    return (middles[labels] + random.normal(size=(count, width))).astype(np.float32), labels


def together(places: np.ndarray, labels: np.ndarray) -> float:
    """The share of points whose nearest other point is of their class."""
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return float((labels[apart.argmin(axis=1)] == labels).mean())


@pytest.mark.parametrize("width", [6, 80])
def test_images_that_are_alike_lie_together(width: int) -> None:
    values, labels = clusters(120, 4, width)
    places = feature_map.project_tsne(values)
    assert together(places, labels) > 0.95
    assert places.shape == (120, 2)
    assert places.min(axis=0).tolist() == [0, 0]
    assert places.max(axis=0).tolist() == [1, 1]
    assert (feature_map.project_tsne(values) == places).all()


def test_length_plays_no_part() -> None:
    values, labels = clusters(90, 3, 20)
    values *= np.random.default_rng(1).uniform(0.01, 100, (90, 1)).astype(np.float32)
    assert together(feature_map.project_tsne(values), labels) > 0.95


@pytest.mark.parametrize(
    "values",
    [np.ones((20, 5), np.float32), np.zeros((20, 5), np.float32), np.arange(1, 21, dtype=np.float32)[:, None]],
)
def test_rows_that_do_not_differ_lie_in_the_middle(values: np.ndarray) -> None:
    assert (feature_map.project_tsne(values) == 0.5).all()


def test_rows_along_one_direction_still_have_a_place() -> None:
    turn = np.linspace(0, 1, 30)
    values = np.stack([np.ones(30), turn], axis=1).astype(np.float32)
    values[:, 1] = np.where(turn > 0.5, 1, -1)  # two directions: one component
    places = feature_map.project_tsne(values)
    assert np.isfinite(places).all()
    assert together(places, (turn > 0.5).astype(int)) > 0.9


@pytest.fixture
def evidence(finished: Any) -> RunSnapshot:
    return RunSnapshot.read(finished.path, finished.cache)


def chart_of(section: Section) -> Chart:
    (chart,) = [part for part in section.parts if isinstance(part, Chart)]
    return chart


def points(section: Section) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chart_of(section).spec["data"]["values"]
    return found


def words(section: Section, kind: str = "plain") -> str:
    return "\n".join(part.text for part in section.parts if isinstance(part, Text) and part.kind == kind)


def test_every_image_of_a_small_run_is_a_point_with_a_picture(evidence: RunSnapshot) -> None:
    first = evidence.predictions[0]
    other = next(name for name in evidence.class_names if name != first.label)
    answers = tuple(replace(each, predicted=other if each == first else each.label) for each in evidence.predictions)
    section = feature_map.build_section(replace(evidence, predictions=answers))
    found = {each["image"]: each for each in points(section)}
    assert set(found) == {each.name for each in evidence.images}
    assert Counter(each["kind"] for each in found.values()) == {
        "training image": 24,
        "test image, correct": 17,
        "test image, error": 1,
    }
    assert found[first.name]["kind"] == "test image, error"
    assert all(found[each.name]["class"] == each.label for each in evidence.images)
    assert set(chart_of(section).thumbnails or {}) == set(found)
    places = np.array([[each["x"], each["y"]] for each in found.values()])
    assert together(places, np.array([each["class"] for each in found.values()])) > 0.8  # each point is its own image's
    assert "Features of all 42 images at" in words(section)
    assert "have no meaning" in words(section)
    assert words(section, "missing") == ""


def test_the_chart_is_drawn_with_a_mark_for_each_image(evidence: RunSnapshot) -> None:
    chart = chart_of(feature_map.build_section(evidence))
    svg = draw(chart, "m").wide
    for each in evidence.images:
        assert f'aria-label="{each.name}; {each.label}, ' in svg


def test_the_table_counts_neighbours_as_scikit_learn_finds_them(evidence: RunSnapshot) -> None:
    from sklearn.neighbors import NearestNeighbors

    from humeris.cache.shard import to_keys
    from humeris.classify.data import select_features

    assert evidence.best is not None
    assert evidence.store is not None
    keys = to_keys([each.digest for each in evidence.images])
    values = select_features.load_matrix(evidence.store, evidence.best.tap_refs, keys).to_array().astype(np.float64)
    near = NearestNeighbors(n_neighbors=10, metric="cosine").fit(values).kneighbors(return_distance=False)
    labels = np.array([each.label for each in evidence.images])
    same = (labels[near] == labels[:, None]).mean(axis=1)
    table = chart_of(feature_map.build_section(evidence)).table
    assert table is not None
    for name, count, share in table.rows:
        assert count == 14
        assert share == pytest.approx(same[labels == name].mean())


def test_of_many_images_some_are_drawn_by_class(evidence: RunSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_map, "MAX_POINTS", 20)
    section = feature_map.build_section(evidence)
    assert "20 of the 42 images (a stratified sample)" in words(section)
    tested = {each.name for each in evidence.select_images("test")}
    shown = points(section)
    assert sum(each["image"] in tested for each in shown) == 8
    assert max(Counter(each["class"] for each in shown).values()) <= 8
    assert shown == points(feature_map.build_section(evidence))


def test_room_that_the_others_leave_goes_to_test_images() -> None:
    records = [ImageRecord(str(n), "a", "train" if n < 30 else "test", b"") for n in range(400)]
    rows = feature_map._sample_rows(records, np.zeros(400, int), 300)
    assert len(rows) == 300
    assert (rows < 30).sum() == 30
    assert feature_map._sample_rows(records, np.zeros(400, int), 1000).tolist() == list(range(400))


@pytest.mark.parametrize(("count", "grey"), [(7, False), (14, False), (15, True), (196, True)])
def test_colours_tell_classes_apart_as_far_as_they_can(evidence: RunSnapshot, count: int, grey: bool) -> None:
    classes = tuple(f"class {number:03}" for number in range(count))
    records = [ImageRecord(f"{n}.png", classes[n % count], "train", b"") for n in range(400)]
    answers = tuple(Prediction(f"{n}.png", classes[-1], classes[1], 0.9) for n in range(5))
    assert evidence.splits is not None
    described = change_metadata(evidence, splits=replace(evidence.splits, classes=classes))
    shown = feature_map._choose_colored_classes(replace(described, predictions=answers), records)
    spec = feature_map._build_spec(np.zeros((400, 2)), records, shown, ["training image"] * 400)
    domain = spec["encoding"]["fill"]["scale"]["domain"]
    looks = list(zip(spec["encoding"]["stroke"]["scale"]["range"], spec["encoding"]["fill"]["scale"]["range"], strict=True))
    assert len(looks) == len(domain) == len(set(looks))
    assert ("other classes" in domain) == grey
    assert {classes[1], classes[-1]} <= set(shown)
    assert len(shown) == (7 if grey else count)
    assert {each["class"] for each in spec["data"]["values"]} == set(domain)


def test_hostile_names_are_drawn(evidence: RunSnapshot) -> None:
    names = {each.name: f"<script>{number}&\"'; ‮ =cmd().png" for number, each in enumerate(evidence.images)}
    images = tuple(replace(each, name=names[each.name]) for each in evidence.images)
    section = feature_map.build_section(replace(evidence, images=images))
    svg = draw(chart_of(section), "m").wide
    assert "<script>" not in svg
    assert "&lt;script>41&amp;" in svg or "&lt;script&gt;41&amp;" in svg
    assert "42 of 42 thumbnails are missing" in words(section, "missing")


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ({"store": None}, "not in the cache"),
        ({"scores": TrialScores({})}, "no winner"),
        ({"images": ()}, "are unknown"),
        ({"metadata": None}, "are unknown"),
    ],
)
def test_where_there_can_be_no_map_the_page_says_why(evidence: RunSnapshot, lost: dict[str, Any], expected: str) -> None:
    section = feature_map.build_section(replace(evidence, **lost))
    assert not any(isinstance(part, Chart) for part in section.parts)
    assert expected in words(section, "missing")
    if "store" in lost:
        assert any(isinstance(part, Command) and "humeris extract" in part.line for part in section.parts)


def test_few_images_make_no_map(evidence: RunSnapshot) -> None:
    assert "8 images are too few" in words(
        feature_map.build_section(replace(evidence, images=evidence.images[:8])), "missing"
    )
