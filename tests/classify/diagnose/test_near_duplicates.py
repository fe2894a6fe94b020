"""Near-duplicates across the splits: copies are found, and images that are only alike are not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from humeris.cache.store import Store
from humeris.cache.typed_json import from_json, to_json
from humeris.classify.data import nearest_neighbors
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.diagnose import near_duplicates
from humeris.classify.diagnose.near_duplicates import NearDuplicates, Pair, find, summarize
from humeris.classify.evaluate.confidence_intervals import proportion_ci, wilson_ci
from humeris.classify.runs.result import NearDuplicatePair, NearDuplicateSummary
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images


def classes_of(count: int, classes: int, spread: float, seed: int, dimensions: int = 12, columns: int = 64) -> np.ndarray:
    """Rows as a network makes them: positive, about a class's middle, in fewer dimensions than columns."""
    random, fixed = np.random.default_rng([seed, 1]), np.random.default_rng([dimensions, columns])
    middles, axes = fixed.normal(size=(classes, columns)), fixed.normal(size=(dimensions, columns))
    inside = spread * random.normal(size=(count, dimensions)) @ axes / dimensions**0.5
    return np.maximum(middles[np.arange(count) % classes] + inside + 1, 0).astype(np.float32)


def near(rows: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Rows moved by a share of what their numbers differ by."""
    noise = np.random.default_rng([seed, 2]).normal(size=rows.shape)
    return (rows + share * rows.std() * noise).astype(np.float32)


def pairs_of(test: np.ndarray, development: np.ndarray) -> set[tuple[int, int]]:
    return {
        (pair.test_row, pair.development_row)
        for pair in find(FeatureMatrix.from_array(test), FeatureMatrix.from_array(development)).pairs
    }


@pytest.mark.parametrize("spread", [1.0, 0.1])
def test_copies_are_found_and_no_others(spread: float) -> None:
    development, fresh = classes_of(400, 4, spread, seed=0), classes_of(60, 4, spread, seed=1)
    assert pairs_of(fresh, development) == set()
    fresh[7], fresh[30] = near(development[[11, 250]], 0.05 * spread)
    assert pairs_of(fresh, development) == {(7, 11), (30, 250)}


def test_in_a_tight_class_only_true_copies_are_copies() -> None:
    """The rows of one class lie a hundred times closer than those of the others."""
    spread = np.where(np.arange(300) % 3 == 0, 0.01, 1.0)[:, None]
    wide, middles = classes_of(300, 3, 1.0, seed=0), classes_of(3, 3, 0.0, seed=0)[np.arange(300) % 3]
    rows = middles + spread * (wide - middles)
    development, fresh = rows[:240], rows[240:]
    assert pairs_of(fresh, development) == set()
    fresh[0] = development[3] + 1e-5
    assert pairs_of(fresh, development) == {(0, 3)}


def test_false_alarms_are_as_rare_as_promised() -> None:
    alarms = [
        len(
            {test for test, _ in pairs_of(classes_of(50, 5, 1.0, seed=2 * seed), classes_of(200, 5, 1.0, seed=2 * seed + 1))}
        )
        for seed in range(60)
    ]
    assert np.mean(alarms) <= 3 * 0.05


@pytest.mark.parametrize("copies", [1, 2, 3, 5])
def test_every_copy_of_a_test_image_is_named(copies: int) -> None:
    development, fresh = classes_of(300, 3, 1.0, seed=0), classes_of(40, 3, 1.0, seed=1)
    development[:copies] = near(np.repeat(fresh[[9]], copies, axis=0), 0.04)
    assert pairs_of(fresh, development) == {(9, number) for number in range(copies)}


@pytest.mark.parametrize("copies", [5, 6, 20])
def test_a_test_image_with_any_number_of_equal_copies_is_found(copies: int) -> None:
    development, fresh = classes_of(300, 3, 1.0, seed=0), classes_of(40, 3, 1.0, seed=1)
    development[:copies] = fresh[9]
    found = pairs_of(fresh, development)
    assert {test for test, _ in found} == {9}
    assert {number for _, number in found} <= set(range(copies))


def test_pairs_that_equal_each_other_come_first_with_their_cosine() -> None:
    development, fresh = classes_of(200, 2, 1.0, seed=0), classes_of(30, 2, 1.0, seed=1)
    fresh[3], fresh[4] = development[100], near(development[[50]], 0.08)[0]
    found = find(FeatureMatrix.from_array(fresh), FeatureMatrix.from_array(development)).pairs
    assert [(pair.test_row, pair.development_row) for pair in found] == [(3, 100), (4, 50)]
    middle = development.mean(axis=0)
    first, second = fresh[4] - middle, development[50] - middle
    assert found[0].similarity == pytest.approx(1)
    assert found[1].similarity == pytest.approx(first @ second / np.linalg.norm(first) / np.linalg.norm(second), abs=1e-5)


def test_copies_within_the_development_images_do_not_hide_those_of_test_images() -> None:
    development, fresh = classes_of(300, 3, 1.0, seed=0), classes_of(40, 3, 1.0, seed=1)
    development[200:260] = near(development[100:160], 0.03)
    fresh[5] = near(development[[20]], 0.03)[0]
    assert (5, 20) in pairs_of(fresh, development)


def test_small_tight_groups_are_no_copies() -> None:
    """A few pictures each of many faces: every test image has some that are far more alike than the rest."""
    groups = classes_of(60, 60, 0.0, seed=0)
    rows = near(np.repeat(groups, 5, axis=0), 0.25)
    test = np.arange(300) % 5 == 0
    assert len(pairs_of(rows[test], rows[~test])) <= 2


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    development, fresh = classes_of(150, 3, 1.0, seed=0), classes_of(40, 3, 1.0, seed=1)
    fresh[:10] = near(development[30:40], 0.05)
    whole = pairs_of(fresh, development)
    assert len(whole) == 10
    monkeypatch.setattr(nearest_neighbors, "_ROWS", 7)
    assert pairs_of(fresh, development) == whole


def test_many_development_images_are_calibrated_on_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_N_CALIBRATION_ROWS", 50)
    development, fresh = classes_of(400, 4, 1.0, seed=0), classes_of(60, 4, 1.0, seed=1)
    fresh[7] = near(development[[11]], 0.05)[0]
    assert pairs_of(fresh, development) == {(7, 11)}


@pytest.mark.parametrize("count", [1, 6, 7, 30])
def test_rows_that_all_lie_at_one_point_are_no_copies_and_cannot_be_told(count: int) -> None:
    for rows in (np.zeros((count, 4), np.float32), np.full((count, 4), 3.5, np.float32)):
        assert find(FeatureMatrix.from_array(rows[:1]), FeatureMatrix.from_array(rows)) == NearDuplicates(
            (), cannot_tell=True
        )
    assert find(
        FeatureMatrix.from_array(np.zeros((2, 4))), FeatureMatrix.from_array(np.zeros((count, 4)))
    ) == NearDuplicates((), cannot_tell=True)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1])
def test_where_most_development_rows_have_copies_equal_rows_are_found_and_others_cannot_be_told(share: float) -> None:
    development, fresh = classes_of(300, 3, 1.0, seed=0), classes_of(40, 3, 1.0, seed=1)
    assert not find(FeatureMatrix.from_array(fresh), FeatureMatrix.from_array(development)).cannot_tell
    development[100:] = np.repeat(development[:100], 2, axis=0)
    if share:
        development[100:] = near(development[100:], share)
    fresh[9] = development[270]
    found = find(FeatureMatrix.from_array(fresh), FeatureMatrix.from_array(development))
    assert found.cannot_tell
    assert {pair.test_row for pair in found.pairs} == {9}
    assert 270 in {pair.development_row for pair in found.pairs}


@pytest.mark.parametrize("count", [2, 5, 6, 7])
def test_equal_rows_are_found_among_few(count: int) -> None:
    development, fresh = classes_of(count, 2, 1.0, seed=0), classes_of(20, 2, 1.0, seed=1)
    fresh[4] = development[1]
    found = find(FeatureMatrix.from_array(fresh), FeatureMatrix.from_array(development))
    assert {(pair.test_row, pair.development_row) for pair in found.pairs} == {(4, 1)}
    assert found.cannot_tell == (count < 7)


def test_rows_in_one_direction_from_the_middle_are_not_equal() -> None:
    random = np.random.default_rng(0)
    development, fresh = np.repeat(random.normal(size=(100, 8)), 2, axis=0), random.normal(size=(30, 8))
    development -= development.mean(axis=0)
    fresh[3], fresh[4] = development[11], 3 * development[20]
    assert pairs_of(fresh, development) == {(3, 10), (3, 11)}


def test_the_report_names_the_pairs_and_scores_the_rest() -> None:
    labels, probabilities = np.array([0, 1, 1, 0]), np.eye(2)[[0, 1, 0, 0]]
    pairs = (Pair(1, 0, 0.99), Pair(1, 2, 0.98), Pair(3, 1, 0.97))
    found = summarize(
        NearDuplicates(pairs, False), ["t0", "t1", "t2", "t3"], ["d0", "d1", "d2"], probabilities.argmax(axis=1) == labels
    )
    assert found == NearDuplicateSummary(
        pairs=(
            NearDuplicatePair("t1", "d0", 0.99),
            NearDuplicatePair("t1", "d2", 0.98),
            NearDuplicatePair("t3", "d1", 0.97),
        ),
        cannot_tell=False,
        test_images=2,
        accuracy_without=0.5,
        accuracy_without_95=wilson_ci(1, 2),
    )
    assert from_json(NearDuplicateSummary, json.loads(json.dumps(to_json(found)))) == found


def test_groups_of_the_test_images_that_are_left_are_what_the_interval_counts() -> None:
    labels, groups = np.zeros(40, int), np.arange(40) // 10
    probabilities = np.eye(2)[(groups == 3).astype(int)]
    names = [str(number) for number in range(40)]
    found = summarize(
        NearDuplicates((Pair(0, 0, 0.99),), False), names, ["d0"], probabilities.argmax(axis=1) == labels, groups
    )
    right = (groups != 3)[1:]
    assert found.accuracy_without == right.mean()
    assert found.accuracy_without_95 == proportion_ci(right, groups[1:])
    low, high = wilson_ci(int(right.sum()), 39)
    assert found.accuracy_without_95 is not None
    assert found.accuracy_without_95[0] < low < high < found.accuracy_without_95[1]


def test_a_report_without_pairs_is_of_all_images_and_one_of_nothing_but_copies_has_no_accuracy() -> None:
    labels, probabilities = np.array([0, 1]), np.eye(2)
    none = summarize(NearDuplicates((), True), ["a", "b"], ["c"], probabilities.argmax(axis=1) == labels)
    assert (none.pairs, none.cannot_tell, none.test_images, none.accuracy_without) == ((), True, 0, 1.0)
    every = summarize(
        NearDuplicates((Pair(0, 0, 1.0), Pair(1, 0, 1.0)), False), ["a", "b"], ["c"], probabilities.argmax(axis=1) == labels
    )
    assert (every.test_images, every.accuracy_without, every.accuracy_without_95) == (2, None, None)


def jpeg(image: Image.Image, path: Path, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    path.write_bytes(buffer.getvalue())


def cut(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(width * share), round(height * share / 2), width, height))


COPIED = {
    "recompressed": lambda image: image,
    "smaller": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped": lambda image: cut(image, 0.03),
}


def rows_by_name(folder: Path, cache: Path) -> dict[str, np.ndarray]:
    """nano's rows of the images in a folder, by name."""
    with Store(cache, write=True) as store:
        images = load_images(folder, store, jobs=1)
        extract_features(images, store, ExtractConfig("nano", layers=["block5_out"]))[0]
        (extraction,) = store.iter_extractions()
        rows = extraction.get_features("block5_out", "avg").read(images.keys)
    return {image.name: row for image, row in zip(images.used, rows, strict=True)}


def found_among(folder: Path, cache: Path) -> dict[str, set[tuple[str, str]]]:
    """For each kind of copy, the (copied, development) names of the pairs among `original` and it."""
    rows = rows_by_name(folder, cache)
    names = sorted(name for name in rows if name.startswith("original/"))
    development = FeatureMatrix.from_array(np.stack([rows[name] for name in names]))
    found = {}
    for kind in COPIED:
        copies = sorted(name for name in rows if name.startswith(f"{kind}/"))
        pairs = find(FeatureMatrix.from_array(np.stack([rows[name] for name in copies])), development).pairs
        found[kind] = {(Path(copies[pair.test_row]).stem, Path(names[pair.development_row]).stem) for pair in pairs}
    return found


def scene(seed: int) -> Image.Image:
    """A picture with as many free choices as a photograph: coloured ovals and bars on a gradient."""
    from PIL import ImageDraw

    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 255, (3, 3, 3), dtype=np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
    drawing = ImageDraw.Draw(image)
    for _ in range(10):
        x, y, width, height = random.integers(0, 80, 2).tolist() + random.integers(8, 40, 2).tolist()
        shape = drawing.ellipse if random.random() < 0.6 else drawing.rectangle
        shape((x, y, x + width, y + height), fill=tuple(random.integers(0, 255, 3).tolist()))
    return image


def test_copies_of_generated_images_are_found_through_nano(tmp_path: Path) -> None:
    for seed in range(120):
        image = scene(seed)
        jpeg(image, tmp_path / f"images/original/{seed:03}.jpg", 95)
        if seed < 20:
            for kind, change in COPIED.items():
                jpeg(change(image), tmp_path / f"images/{kind}/{seed:03}.jpg", 60)
    found = found_among(tmp_path / "images", tmp_path / "cache")
    for kind, pairs in found.items():
        assert all(copy == original for copy, original in pairs), kind
        assert len(pairs) >= {"cropped": 14}.get(kind, 20), kind


@pytest.mark.assets
def test_copies_of_photographs_are_found_through_nano(tmp_path: Path, assets: Path) -> None:
    for number, path in enumerate(sorted((assets / "images/hymenoptera/val").rglob("*.jpg"))):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        jpeg(image, tmp_path / f"images/original/{number:03}.jpg", 95)
        if number % 4 == 0:
            for kind, change in COPIED.items():
                jpeg(change(image), tmp_path / f"images/{kind}/{number:03}.jpg", 50)
    found = found_among(tmp_path / "images", tmp_path / "cache")
    for kind, pairs in found.items():
        assert all(copy == original for copy, original in pairs), kind
        assert len(pairs) >= 0.95 * len(list((tmp_path / "images" / kind).iterdir())), kind
