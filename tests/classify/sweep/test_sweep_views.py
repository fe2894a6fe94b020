"""Views and concatenations in a sweep: which rows are learnt from, which are scored, and what comes out as a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_features import view_options

from humeris.cache.errors import DataError, LayerError
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.data.splits import split
from humeris.classify.data.views import ViewReader, ViewRows, Views
from humeris.classify.heads import fit as training
from humeris.classify.heads.families.logreg import LogisticRegression
from humeris.classify.heads.training_data import TrainingData
from humeris.classify.runs.run import Run
from humeris.classify.sweep.finalize import finalize_sweep  # noqa: F401 - the module is under test through `sweep`
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.non_finite import NonFiniteImages
from humeris.extract.backbones.taps import Tap
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels.augment import Policy

logreg = LogisticRegression()

PNG = b"\x89PNG\r\n\x1a\n"  # a sweep opens no image: the first bytes say PNG, the rest says which one
FLIP = Views(3, Policy.parse("flip=0.5"))


def some_spec(backbone: str = "made_up", views: str = "plain") -> ExtractionSpec:
    return ExtractionSpec(backbone, f"of {backbone}", "none", "0" * 64, (8, 8), "none", "1", views=views)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", write=True)


@pytest.fixture
def images(tmp_path: Path, store: Store) -> Images:
    for role, count in {"train": 15, "test": 8}.items():
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / role / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:03}.png").write_bytes(PNG + f"{role} {label} {number}".encode())
    return load_images(tmp_path / "photos", store, jobs=1)


def numbers(images: Images) -> np.ndarray:
    return np.array([images.dataset.classes.index(label) for label in images.labels])


def rows_of(images: Images, view: int, layer: int = 0, columns: int = 4, strength: float = 1.5) -> np.ndarray:
    random = np.random.default_rng([view, layer])
    means = np.eye(columns)[numbers(images)] * strength
    return (random.normal(size=(len(images.used), columns)) + means).astype(np.float32)


def fill(store: Store, images: Images, layer: str, number: int = 0, views: int = 3, backbone: str = "made_up") -> None:
    """A tap with `views` augmented views; of every fourth image (counted from `number`) the last one gave no finite row."""
    bad = np.arange(len(images.used)) % 4 == number % 4
    store.get_extraction(some_spec(backbone)).add(layer, "avg", images.keys, rows_of(images, 0, number))
    for view in range(1, views + 1):
        some = ~bad if view == views else np.ones(len(images.used), bool)
        store.get_extraction(some_spec(backbone, FLIP.version)).add(
            layer, "avg", images.keys[some], rows_of(images, view, number)[some], views=np.full(some.sum(), view, np.uint16)
        )
    digests = [image.digest for image, refused in zip(images.used, bad, strict=True) if refused]
    NonFiniteImages(store.kv_store, some_spec(backbone, FLIP.version)).add(Tap(layer, "avg"), digests)


def learnt_by_hand(images: Images, average: bool) -> tuple[TrainingData, Images]:
    """The problem as the documentation says it, put together row by row."""
    images = images.sort_by_digest()
    splits = split(images)
    rows, labels, shows, views = [], [], [], []
    for place, row in enumerate(splits.development):
        for view in range(4):
            original = rows_by_name[view][images.used[row].name]
            if original is not None:
                rows.append(original)
                labels.append(splits.labels[row])
                shows.append(place)
                views.append(view)
    shown, seen = np.array(shows), np.array(views)
    folds = []
    for fit, score in splits.iter_folds(0):
        fit_places, score_places = np.searchsorted(splits.development, fit), np.searchsorted(splits.development, score)
        scored = np.isin(shown, score_places) & ((seen == 0) | average)
        folds.append((np.nonzero(np.isin(shown, fit_places))[0], np.nonzero(scored)[0]))
    made = TrainingData.from_arrays(np.array(rows), np.array(labels), folds)
    return replace(made, images=shown), images


rows_by_name: list[dict[str, np.ndarray | None]] = []


@pytest.mark.parametrize("average", [False, True])
def test_heads_learn_from_every_view_and_are_scored_on_the_plain_one_or_the_mean(
    store: Store, images: Images, tmp_path: Path, average: bool
) -> None:
    fill(store, images, "layer")
    rows_by_name.clear()
    for view in range(4):
        values = rows_of(images, view)
        rows_by_name.append(
            {
                image.name: None if view == 3 and number % 4 == 0 else values[number]
                for number, image in enumerate(images.used)
            }
        )
    views = replace(FLIP, average=average)
    run = sweep(images, store, SweepConfig(["logreg,C=0.1"], **view_options(views), out=tmp_path / "run", jobs=1))
    problem, ordered = learnt_by_hand(images, average)
    (expected,) = logreg.cross_validate(problem, [{"C": 0.1}], 0)
    ((_, score),) = run.load_trials().items()
    assert score.folds == pytest.approx(expected.folds)
    assert score.log_loss == pytest.approx(expected.log_loss, rel=1e-6)
    assert score.correct == expected.correct

    head = run.load_head(run.find_trial()[0])
    assert head is not None
    by_hand = logreg.fit(problem, {"C": 0.1}, {}, 0)
    assert np.allclose(
        head.predict_proba(problem.features.to_array()), by_hand.predict_proba(problem.features.to_array()), atol=1e-6
    )

    test = sorted(ordered.used[row].name for row in split(ordered).test)
    seen = range(4) if average else range(1)
    for name, answer in zip(test, run.load_probabilities(), strict=True):
        shown = np.array([row for view in seen if (row := rows_by_name[view][name]) is not None])
        assert np.allclose(answer, head.predict_proba(shown).mean(axis=0), atol=1e-6)
    assert (run.result.test_plain is not None) == average
    assert run.metadata.views == views


def test_the_plain_scores_beside_the_averaged_ones_are_those_of_the_plain_views(
    store: Store, images: Images, tmp_path: Path
) -> None:
    fill(store, images, "layer")
    plain_rows = rows_of(images, 0)
    run = sweep(
        images,
        store,
        SweepConfig(["logreg,C=0.1"], **view_options(replace(FLIP, average=True)), out=tmp_path / "run", jobs=1),
    )
    head = run.load_head(run.find_trial()[0])
    assert head is not None
    test = np.array([image.item.split == "test" for image in images.used])
    right = head.predict_proba(plain_rows[test]).argmax(axis=1) == numbers(images)[test]
    assert run.result.test_plain is not None
    assert run.result.test_plain.accuracy == pytest.approx(right.mean())


def test_views_of_one_image_never_straddle_folds(store: Store, images: Images) -> None:
    fill(store, images, "layer")
    plain, augmented = (
        store.get_extraction(some_spec(views=views)).get_features("layer", "avg") for views in ("plain", FLIP.version)
    )
    splits = split(images)
    rows = splits.development
    folds = tuple((np.searchsorted(rows, fit), np.searchsorted(rows, score)) for fit, score in splits.iter_folds(0))
    made = training.build_training_data(
        [ViewReader(plain, augmented)], images.keys[rows], splits.labels[rows], splits.target, folds, FLIP
    )
    assert len(made.images) > 3 * len(rows)
    for fit, score in made.folds:
        assert not set(made.images[fit]) & set(made.images[score])
        assert len(set(made.images[score])) == len(score)
        assert sorted({*made.images[fit], *made.images[score]}) == list(range(len(rows)))


def test_rows_of_views_are_those_that_the_cache_has_for_them(store: Store, images: Images) -> None:
    fill(store, images, "layer")
    plain, augmented = (
        store.get_extraction(some_spec(views=views)).get_features("layer", "avg") for views in ("plain", FLIP.version)
    )
    shown = ViewRows.from_readers([ViewReader(plain, augmented)], images.keys, 3)
    for row in range(len(shown.images)):
        expected = rows_of(images, int(shown.views[row]))[shown.images[row]]
        assert (shown.features[np.array([row])][0] == expected).all()
    assert ((shown.views == 3).sum(), (shown.views == 0).sum()) == (46 - 12, 46)


REFUSED = r"(\d+) of the (\d+) augmented views gave NaN or infinity at a tap of the winner"


def refused_views(run: Run) -> list[tuple[str, str]]:
    return [match.groups() for note in run.result.notes if (match := re.search(REFUSED, note))]


def test_taps_side_by_side_have_the_views_that_all_of_them_have(store: Store, images: Images, tmp_path: Path) -> None:
    fill(store, images, "one", 0)
    fill(store, images, "two", 1)
    run = sweep(
        images, store, SweepConfig(["logreg,C=0.1"], **view_options(FLIP), layers=["one+two"], out=tmp_path / "run", jobs=1)
    )
    ((trial, _),) = run.load_trials().items()
    assert [source.layer for source in trial.tap_refs] == ["one", "two"]
    assert run.complete
    either = sum(number % 4 in {0, 1} for number, image in enumerate(images.used) if image.item.split == "train")
    assert refused_views(run) == [(str(either), "90")]


@pytest.mark.parametrize(("average", "count", "of"), [(False, 8, 90), (True, 12, 138)])
def test_views_that_were_refused_are_counted(
    store: Store, images: Images, tmp_path: Path, average: bool, count: int, of: int
) -> None:
    fill(store, images, "layer")
    views = replace(FLIP, average=average)
    run = sweep(images, store, SweepConfig(["logreg,C=0.1"], **view_options(views), out=tmp_path / "run", jobs=1))
    assert refused_views(run) == [(str(count), str(of))]
    run = sweep(
        images, store, SweepConfig(["logreg,C=0.1"], **view_options(replace(views, count=2)), out=tmp_path / "two", jobs=1)
    )
    assert refused_views(run) == []


def test_a_tap_that_lacks_a_single_view_of_an_image_is_left_out_until_it_has_it(
    store: Store, images: Images, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    store.get_extraction(some_spec()).add("layer", "avg", images.keys, rows_of(images, 0))
    augmented = store.get_extraction(some_spec(views=FLIP.version))
    words = ["sweep", tmp_path / "photos", "--views", 3, "--augment", "flip", "--cache", store.path, "--head", "ridge"]
    for view in (1, 2, 3):
        lacking = np.arange(len(images.used)) == 20 if view > 1 else np.arange(len(images.used)) > 0
        rows = rows_of(images, view)[~lacking]
        augmented.add("layer", "avg", images.keys[~lacking], rows, views=np.full(len(rows), view, np.uint16))
        result = humeris(*words)
        assert result.code == 2
        assert "--views 3 --augment flip=0.5 (made_up/layer:avg lacks 4" in result.err
    augmented.add("layer", "avg", images.keys[1:], rows_of(images, 1)[1:], views=np.ones(45, np.uint16))
    assert "layer:avg lacks 1); run `humeris extract`" in humeris(*words).err
    store.get_extraction(some_spec()).add("other", "avg", images.keys, rows_of(images, 0, 1))
    for view in (1, 2, 3):
        whole = np.full(46, view, np.uint16)
        augmented.add("other", "avg", images.keys, rows_of(images, view, 1), views=whole)
    result = humeris(*words)
    assert result.code == 1, result.err
    assert (
        "left out: made_up/layer:avg lacks rows of 1 image or views of them; run `humeris extract` with "
        "-l layer:avg --views 3 --augment flip=0.5\n" in result.out
    )
    for view in (2, 3):
        one = images.keys[20:21]
        augmented.add("layer", "avg", one, rows_of(images, view)[20:21], views=np.full(1, view, np.uint16))
    result = humeris(*words, "--json")
    assert result.json["left_out"] == []
    assert {each["layer"] for each in result.json["depth"]} == {"layer", "other"}


def test_a_tap_whose_views_are_mostly_not_finite_is_left_out(store: Store, images: Images, tmp_path: Path) -> None:
    fill(store, images, "layer")
    most = [image.digest for image in images.used[:30]]
    NonFiniteImages(store.kv_store, some_spec(views=FLIP.version)).add(Tap("layer", "avg"), most)
    with pytest.raises(DataError, match=r"layer:avg lacks 12\); "):
        sweep(images, store, SweepConfig(["logreg,C=0.1"], **view_options(FLIP), out=tmp_path / "run", jobs=1))


def test_a_tap_without_any_view_is_left_out_and_with_none_the_command_is_named(
    store: Store, images: Images, tmp_path: Path
) -> None:
    store.get_extraction(some_spec()).add("plain", "avg", images.keys, rows_of(images, 0, 5))
    with pytest.raises(
        DataError, match=r"for --views 3 --augment flip=0.5 \(.*plain:avg lacks 46\); .* with the same views"
    ):
        sweep(images, store, SweepConfig(["logreg,C=0.1"], **view_options(FLIP), out=tmp_path / "run", jobs=1))
    fill(store, images, "layer")
    run = sweep(images, store, SweepConfig(["logreg,C=0.1"], **view_options(FLIP), out=tmp_path / "run", jobs=1))
    assert [(each.layer, each.images_missing) for each in run.metadata.left_out] == [("plain", 46)]
    assert {trial.tap_refs[0].layer for trial in run.load_trials()} == {"layer"}


def test_a_sweep_over_views_is_another_question(store: Store, images: Images) -> None:
    fill(store, images, "layer")
    paths = [
        sweep(images, store, SweepConfig(["logreg,C=1"], **view_options(views), jobs=1)).path
        for views in (None, FLIP, replace(FLIP, count=2))
    ]
    assert len(set(paths)) == 3


def three_taps(store: Store, images: Images) -> None:
    for number, layer in enumerate(("one", "two", "three")):
        store.get_extraction(some_spec()).add(layer, "avg", images.keys, rows_of(images, 0, number, 3 + number))
    store.get_extraction(some_spec()).add("one", "max", images.keys, rows_of(images, 0, 7))
    store.get_extraction(some_spec("other")).add("two", "avg", images.keys, rows_of(images, 0, 8, 2))


def swept(store: Store, images: Images, out: Path, *patterns: str, **options: Any) -> set[str]:
    run = sweep(images, store, SweepConfig(["logreg,C=1"], layers=patterns, out=out, jobs=1, **options))
    return {" + ".join(map(str, trial.tap_refs)) for trial in run.load_trials()}


def test_taps_are_put_side_by_side_as_asked(store: Store, images: Images, tmp_path: Path) -> None:
    three_taps(store, images)
    assert swept(store, images, tmp_path / "a", "one:avg+three") == {"made_up/one:avg + made_up/three:avg"}
    assert swept(store, images, tmp_path / "b", "three+one:max", "three") == {
        "made_up/three:avg + made_up/one:max", "made_up/three:avg",
    }  # fmt: skip
    assert swept(store, images, tmp_path / "c", "made_up/two:avg+other/two") == {"made_up/two:avg + other/two:avg"}
    assert swept(store, images, tmp_path / "d", "one", "other/two", concatenate=True) == {
        "made_up/one:avg", "made_up/one:max", "other/two:avg", "made_up/one:avg + made_up/one:max + other/two:avg",
    }  # fmt: skip
    assert swept(store, images, tmp_path / "e", "one+three", pools=["avg"]) == {"made_up/one:avg + made_up/three:avg"}


def test_the_columns_side_by_side_are_those_of_the_taps_in_their_order(store: Store, images: Images, tmp_path: Path) -> None:
    three_taps(store, images)
    run = sweep(images, store, SweepConfig(["logreg,C=1"], layers=["three+one:avg"], out=tmp_path / "run", jobs=1))
    learnt = images.sort_by_digest()
    split_rows = split(learnt)
    order = [images.used.index(image) for image in learnt.used]
    joined = np.hstack([rows_of(images, 0, 2, 5), rows_of(images, 0, 0, 3)])[order]
    rows = split_rows.development
    expected = logreg.fit(TrainingData.from_arrays(joined[rows], split_rows.labels[rows], []), {"C": 1.0}, {}, 0)
    head = run.load_head(run.find_trial()[0])
    assert head is not None
    assert np.allclose(head.predict_proba(joined), expected.predict_proba(joined), atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "one+three",
            r"layer 'one' of one\+three: 2 cached taps match: made_up/one:avg, made_up/one:max; write",
        ),
        ("two+three", r"layer 'two' of .*: 2 cached taps match: made_up/two:avg, other/two:avg; write one of them"),
        ("three+four", r"layer 'four' of three\+four: no cached tap matches; closest: "),
        ("one:avg+nobody/two", r": no cached tap matches; closest: .*two"),
        ("three+", r"a side is empty or given twice; give different taps"),
        ("three+three", r"a side is empty or given twice; give different taps"),
        ("nobody/three", r"layer 'nobody/three': no cached tap matches"),
    ],
)
def test_a_side_that_is_not_one_cached_tap_is_one_line_that_lists_them(
    store: Store, images: Images, tmp_path: Path, pattern: str, message: str
) -> None:
    three_taps(store, images)
    with pytest.raises(LayerError, match=message) as caught:
        swept(store, images, tmp_path / "run", pattern)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_tables_and_text_name_taps_side_by_side(
    store: Store, images: Images, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    three_taps(store, images)
    result = humeris(
        "sweep",
        tmp_path / "photos",
        "-l",
        "three",
        "-l",
        "one:max+three",
        "--cache",
        store.path,
        "-j",
        1,
        "-o",
        tmp_path / "run",
    )
    assert result.code == 0, result.err
    assert "one:max + three:avg" in result.out
    curve = Run.load(tmp_path / "run").compute_depth_curve()
    assert [each.taps for each in curve] == [("made_up/three:avg",), ("made_up/one:max", "made_up/three:avg")]


def test_families_that_use_all_taps_get_them_side_by_side_once(
    store: Store, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_taps(store, images)
    monkeypatch.setattr(LogisticRegression, "uses_all_taps", True)
    run = sweep(images, store, SweepConfig(["logreg,C=0.1/1"], out=tmp_path / "run", jobs=1))
    assert {len(trial.tap_refs) for trial in run.load_trials()} == {5}
    assert len(run.load_trials()) == 2


def test_one_command_extracts_views_and_concatenations_and_exports_a_model_that_agrees(
    photos: Path, humeris: Callable[..., Any], tmp_path: Path
) -> None:
    result = humeris(
        "run", photos, "-b", "nano", "-l", "block4_out+block5_out:max", "--views", 2, "--augment", "flip,crop",
        "--average-views", "--head", "logreg,C=0.1/1", "-o", tmp_path / "run", "-j", 1, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    found = result.json
    assert found["exported"]["parity"]["top1_agree"] == found["exported"]["parity"]["images"]
    assert [source["layer"] for source in found["best"]["tap_refs"]] == ["block4_out", "block5_out"]
    assert found["extracted"][0]["taps"] == ["block4_out:avg", "block5_out:max"]
    assert found["extracted"][0]["computed"] == 3 * 36
    assert found["views"] == {
        "count": 2,
        "policy": "flip=0.5,crop=0.25",
        "version": found["views"]["version"],
        "average": True,
    }
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["result"]["test_plain"]["images"] == found["test"]["images"]
    )


def test_sweep_fills_gaps_first_when_asked_and_only_then(photos: Path, humeris: Callable[..., Any], tmp_path: Path) -> None:
    words = ["sweep", photos, "-b", "nano", "-l", "block4_out", "--head", "logreg,C=1", "-j", 1, "--json"]
    without = humeris(*words, "-o", tmp_path / "run")
    assert without.code == 2
    assert "run `humeris extract`" in without.err
    first = humeris(*words, "--extract", "-o", tmp_path / "run")
    assert first.code == 0, first.err
    assert first.json["extracted"][0]["computed"] == 36
    again = humeris(*words, "--extract", "-o", tmp_path / "run")
    assert again.json["extracted"][0]["computed"] == 0
    assert again.json["best"] == first.json["best"]


def test_each_backbone_may_be_given_its_own_layers(photos: Path, humeris: Callable[..., Any], tmp_path: Path) -> None:
    other = "nano,weights=random"
    assert BackboneSpec.parse(other).title == other
    result = humeris(
        "sweep", photos, "-b", "nano", "-b", other, "-l", "nano/block4_out", "-l", "block5_out", "-l",
        f"{other}/block4_out+{other}/block5_out", "--extract", "--head", "logreg,C=1", "-j", 1, "--json",
        "-o", tmp_path / "run",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert {" + ".join(each["taps"]) for each in result.json["depth"]} == {
        "nano/block4_out:avg", "nano/block5_out:avg", f"{other}/block5_out:avg",
        f"{other}/block4_out:avg + {other}/block5_out:avg",
    }  # fmt: skip
    assert [each["taps"] for each in result.json["extracted"]] == [["block4_out:avg", "block5_out:avg"]] * 2
